"""Sphinx's settings for the book; `build.py` collects its pages."""

import re
from importlib.metadata import metadata

from docutils.nodes import SkipNode
from myst_nb.core.render import NbElementRenderer

from labutils.instructor.pages import to_mathml
from labutils.paths import PROJECT_ROOT

project = "Labs on deep generative models"
copyright = re.search(r"Copyright \(c\) (.*)", (PROJECT_ROOT / "LICENSE").read_text(encoding="utf-8"))[1]
release = metadata("labutils")["Version"]
extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc, html_theme, html_title = "index", "sphinx_book_theme", project
html_theme_options = {"use_fullscreen_button": False, "navbar_persistent": [], "show_toc_level": 2,
                      "navigation_with_keys": False, "footer_content_items": ["copyright.html"]}
html_static_path, html_css_files, templates_path = ["book.css"], ["book.css"], ["templates"]
html_sourcelink_suffix = ""     # a lab is downloaded as a notebook
html_math_renderer = "mathml"
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions, myst_dmath_double_inline = ["dollarmath"], True
myst_heading_anchors = 3
autodoc_inherit_docstrings = False       # those of torch are not ours
suppress_warnings = ["mystnb.unknown_mime_type"]        # the metrics of a lab, which have a text beside them


def render_image(self, data):
    """Return the node of an output picture with its description, which myst-nb leaves out."""
    [image] = original(self, data)
    image["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
    return [image]


original, NbElementRenderer.render_image = NbElementRenderer.render_image, render_image


def show_attachments(app, docname, source):
    """Take the diagrams of a lab from img/: myst-nb does not know attachments, which are copies of these files."""
    source[0] = source[0].replace("](attachment:", "](../img/")


def write_formula(self, node):
    """Write a formula as MathML, which needs no script."""
    block = node.tagname == "math_block"
    formula = to_mathml(node.astext(), display=block)
    self.body.append(f'<div class="formula" tabindex="0">{formula}</div>' if block else formula)
    raise SkipNode


ROW = re.compile(r"(\S(?:.*?\S)?) {2,}(\S.*)", re.S)      # of a table: a name, two spaces or more, a text


def to_rst(app, what, name, obj, options, lines):
    """Rewrite a docstring of the project as reStructuredText: its words in `code`, examples, tables of arguments."""
    blocks = "\n".join(lines).strip("\n").split("\n\n")
    lines[:] = "\n\n".join(map(block_to_rst, blocks)).split("\n") + [""]


def block_to_rst(block):
    """Rewrite lines without an empty line between them: an example, a table of names and texts, or a paragraph."""
    if block.startswith("    "):
        return "::\n\n" + block
    if not re.match(ROW, block):
        return text_to_rst(block)
    rows = re.split(r"\n(?=\S)", block)
    if not all(re.match(ROW, row) for row in rows):     # a paragraph with two spaces in it
        return text_to_rst(block)
    return "\n".join(f"``{name}``\n    {text_to_rst(' '.join(text.split()))}"
                     for name, text in (re.match(ROW, row).groups() for row in rows))


def text_to_rst(text):
    """Rewrite a text: what is between backquotes is code, and no other sign has a meaning."""
    parts = re.split(r"`([^`]*)`", text)
    parts[::2] = [re.sub(r"^(?=\w)", r"\\ ", re.sub(r"([\\*|_])", r"\\\1", part)) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def setup(app):
    app.connect("source-read", show_attachments)
    app.connect("autodoc-process-docstring", to_rst)
    app.add_html_math_renderer("mathml", inline_renderers=(write_formula, None), block_renderers=(write_formula, None))
