"""Formulas of LaTeX as MathML, which browsers draw without a script, a font of ours or a network.

latex2mathml converts. Its result is then mended where browsers draw it otherwise than LaTeX: most
know no font by its name (`mathvariant`), for instance, and set `log` and `p` without a space.
"""

import unicodedata
from functools import lru_cache
from html import escape, unescape
from xml.etree import ElementTree

from latex2mathml.converter import Converter

CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
SCRIPTS = CHILDREN.keys() - {"mfrac", "mroot"}
LETTERS = {"double-struck": "DOUBLE-STRUCK", "script": "SCRIPT", "fraktur": "FRAKTUR", "bold": "BOLD"}
SAME = (("{aligned}", "{split}"), (":=", r"\coloneq "), ("=:", r"\eqqcolon "))      # what the converter knows
LEFT_OUT = {r"\arg": "arg", r"\Vert": "‖", r"\lVert": "‖", r"\rVert": "‖", r"\|": "‖"}     # by the converter
LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
WITH_LIMITS = ("∑", "∏", "max", "min", "sup", "inf", "lim")


@lru_cache(maxsize=4096)
def to_mathml(latex, display=False):
    """Return a formula of LaTeX, without its dollars, as an element `math`.

    display  True: a formula on a line of its own

    A formula that cannot be converted becomes an element `code` of the class `tex` that holds it as it was written.
    """
    try:
        source = latex
        for ours, theirs in SAME:
            source = source.replace(ours, theirs)
        formula = Converter(display="block" if display else "inline").convert_to_element(source)
    except Exception:       # the converter raises its own classes, and IndexError, StopIteration and others as well
        return as_written(latex, display)
    parts = list(formula.iter())
    for part in parts:
        text = unescape(part.text or "")        # the converter writes signs as entities
        part.text = LEFT_OUT.get(text, text) or None
        if is_broken(part):
            return as_written(latex, display)
    for part in parts:
        mend(part)
    for part in parts:
        set_apart(part)
    return ElementTree.tostring(formula, encoding="unicode")


def as_written(latex, display):
    """Return a formula of LaTeX with its dollars as an element `code`."""
    dollars = "$$" if display else "$"
    return f'<code class="tex">{escape(dollars + latex.strip() + dollars)}</code>'


def is_broken(part):
    """Tell whether the converter has taken a command that it does not know for a name, or has missed an argument."""
    return (len(part) != CHILDREN.get(part.tag, len(part)) or part.text == "&"
            or "\\" in (part.text or "") or part.tag == "mo" and not part.text)


def mend(part):
    """Change what browsers draw otherwise than LaTeX."""
    if part.text:
        mend_sign(part)
    if part.tag in LIMITS and (part[0].text in WITH_LIMITS or part[0].get("movablelimits")):
        part.tag = LIMITS[part.tag]
        part[0].set("movablelimits", "true")        # below and above in a display only
    if part.tag == "mover" and part.get("accent"):
        part[1].set("stretchy", "false")
    if "columnalign" in part.attrib:
        part.set("style", f"text-align: {part.get('columnalign')}")


def mend_sign(part):
    """Set the font and the spaces of a letter, a sign or a name."""
    font, sign = part.get("mathvariant"), len(part.text) == 1
    if font in LETTERS:
        part.text = "".join(in_font(letter, LETTERS[font]) for letter in part.text)
        del part.attrib["mathvariant"]
    elif font == "monospace":
        part.set("style", "font-family: monospace")
    part.text = {"~": "\u223c"}.get(part.text, part.text)       # \\sim
    if part.text in "∞∅∇":
        part.tag, part.attrib["mathvariant"] = "mi", "normal"
    elif part.tag == "mi" and sign and unicodedata.category(part.text) in ("Po", "Sm"):
        part.tag = "mo"
    if part.tag == "mo" and (part.text in "|/" or is_name(part)):
        part.attrib.update(lspace="0", rspace="0")
    if part.text == "‖":
        part.attrib.setdefault("stretchy", str("minsize" in part.attrib).lower())       # \\big, or as it is


def in_font(letter, font):
    """Return the sign of Unicode for a letter or digit in a font; the letter itself, if there is none."""
    name = unicodedata.name(letter, "").replace("LATIN ", "").replace("LETTER ", "")
    for candidate in (f"MATHEMATICAL {font} {name}", f"{font} {name}", f"BLACK-LETTER {name}"):
        try:
            return unicodedata.lookup(candidate)
        except KeyError:
            continue
    return letter


def is_name(part):
    """Tell whether a part is the name of a function, such as log or max, perhaps with scripts."""
    while part.tag in SCRIPTS:
        part = part[0]
    return (part.tag in ("mi", "mo") and len(part.text or "") > 1 and part.text.replace("\u2009", "").isalpha()
            and "mathvariant" not in part.attrib)


def is_operator(part):
    """Tell whether a part is a sign such as + or a bracket, which brings its own space, or begins with one."""
    while part.tag in SCRIPTS or part.tag == "mrow" and len(part):
        part = part[0]
    return part.tag in ("mspace", "mo") and not is_name(part)


def set_apart(row):
    """Put thin spaces between the names of functions in a row and what they stand next to."""
    if row.tag in CHILDREN:
        return
    for name in [part for part in row if is_name(part)]:
        at = list(row).index(name)
        if at + 1 < len(row) and not is_operator(row[at + 1]):
            row.insert(at + 1, thin_space())
        if at and (not is_operator(row[at - 1]) or row[at - 1].text in (")", "]")):
            row.insert(at, thin_space())


def thin_space():
    """Return the space of LaTeX's \\,."""
    return ElementTree.Element("mspace", width="0.167em")
