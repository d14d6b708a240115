"""The page of a notebook: formulas, pictures, what an output can be; and that it needs nothing but itself."""

import base64
import re

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from helpers import LABS, notebook_path, page_flaws
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labutils.images import encode
from labutils.instructor.pages import as_page, to_mathml
from labutils.paths import PROJECT_ROOT

PICTURE = base64.b64encode(encode(np.zeros((30, 3000), np.uint8))).decode()
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'


def shown(data, **metadata):
    """An output that shows `data`."""
    return new_output("display_data", data, metadata=metadata)


def parsed(*cells):
    """The page of a notebook with these cells, as elements."""
    return BeautifulSoup(as_page(new_notebook(cells=list(cells)), "02_vae,seed=1"), "html.parser")


# ------------------------------------------------------------------------------------------------ formulas

@pytest.mark.parametrize("latex, parts", [
    (r"\frac{a}{b}", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"),
    (r"\mathbb E", "<mi>𝔼</mi>"),
    (r"\mathbb R", "<mi>ℝ</mi>"),
    (r"\mathcal N", "<mi>𝒩</mi>"),
    (r"\mathcal L", "<mi>ℒ</mi>"),
    (r"\mathbf x_1", "<msub><mi>𝐱</mi><mn>1</mn></msub>"),
    (r"\mathfrak C", "<mi>ℭ</mi>"),
    (r"\log p", '<mi>log</mi><mspace width="0.167em" /><mi>p</mi>'),
    (r"\log(p)", '<mi>log</mi><mo stretchy="false">('),
    (r"b \log p", '<mi>b</mi><mspace width="0.167em" /><mi>log</mi><mspace width="0.167em" /><mi>p</mi>'),
    (r"(b)\log p", ')</mo><mspace width="0.167em" /><mi>log</mi>'),
    (r"\nabla_z \log q", '</msub><mspace width="0.167em" /><mi>log</mi>'),
    (r"\max_D V", '<munder><mo movablelimits="true" lspace="0" rspace="0">max</mo><mi>D</mi></munder>'),
    (r"\sum_{i=1}^n x", '<munderover><mo>∑</mo>'),
    (r"x \sim p", "<mo>∼</mo>"),
    (r"p \| q", '<mo fence="false" stretchy="false">‖</mo>'),
    (r"\left\| q \right\|", '<mo stretchy="true" fence="true" form="prefix">‖</mo>'),
    (r"\lVert x \rVert_2", '<msub><mo stretchy="false">‖</mo><mn>2</mn></msub>'),
    (r"\big\lVert x\big\rVert", '<mo minsize="1.2em" maxsize="1.2em" stretchy="true">‖</mo><mi>x</mi>'),
    (r"\big\| x", '<mo minsize="1.2em" maxsize="1.2em" stretchy="true">‖</mo>'),
    (r"\arg\min_k x", '<mi>arg</mi><mspace width="0.167em" /><munder><mo movablelimits="true" lspace="0" rspace="0">'
                          'min</mo><mi>k</mi></munder><mspace width="0.167em" />'),
    (r"a := b", "<mo>≔</mo>"),
    (r"\text{a < b & c}", "<mtext>a\u00a0&lt;\u00a0b\u00a0&amp;\u00a0c</mtext>"),
    (r"a < b", "<mo>&lt;</mo>"),
    (r"\texttt{logvar}", '<mtext mathvariant="monospace" style="font-family: monospace">logvar</mtext>'),
    (r"\big(x\big)", '<mo minsize="1.2em" maxsize="1.2em">(</mo>'),
    (r"\begin{aligned} a &= b \\ c &= d\end{aligned}", '<mtd columnalign="right" style="text-align: right"><mi>a</mi>'),
])
def test_a_formula_is_what_browsers_draw(latex, parts):
    formula = to_mathml(latex, display=True)
    assert formula.startswith('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') and parts in formula


@pytest.mark.parametrize("latex", [r"\newfangled x", r"\frac{1", r"\frac1", r"\begin{tikzpicture} x & y",
                                   r"a & b", r"x_", r"\left( x", ""])
def test_a_formula_that_cannot_be_converted_stays_readable_as_it_was_written(latex):
    shown = BeautifulSoup(to_mathml(latex), "html.parser").code
    assert shown["class"] == ["tex"] and shown.text == f"${latex.strip()}$"
    page = parsed(new_markdown_cell(f"before ${latex}$ after"))
    assert page.main.text.split() == ["before", *f"${latex}$".split(), "after"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"abx2+_^{}&|<>$'\"~# ", *r"\frac \left \right \sum \text \begin{align} \end{align} "
                                 r"\\ \foo \mathbb \hat \sqrt \max".split()]), max_size=8))
def test_whatever_a_formula_is_there_is_one_element(pieces):
    found = BeautifulSoup(to_mathml("".join(pieces)), "html.parser").find_all(recursive=False)
    assert [part.name in ("math", "code") for part in found] == [True]


def test_code_prose_and_attributes_are_no_formulas():
    page = parsed(new_markdown_cell("It costs \\$5 or `$x$`, $y_1$ and\n\n```\n$z$\n```\n\n$$a = b$$\n\n"
                                    "| $c$ |\n| - |\n| `$d$` |\n\n<details>\n\n$e$\n\n</details>\n\n"
                                    "\\begin{align} f &= g \\end{align}"))
    assert [re.sub(r"\s", "", formula.text) for formula in page("math")] == ["y1", "a=b", "c", "e", "f=g(1)"]
    assert [formula["display"] for formula in page("math")] == ["inline", "block", "inline", "inline", "block"]
    assert [code.text.strip() for code in page(["code", "pre"])] == ["$x$", "$z$", "$d$"] and "costs $5" in page.text


def test_every_formula_of_the_labs_is_converted():
    count = 0
    for lab in LABS:
        page = as_page(nbformat.read(notebook_path(lab), 4), lab)
        assert re.findall('<code class="tex">.*?</code>', page) == []
        count += page.count("<math ")
    assert count > 500


# ------------------------------------------------------------------------------------- pictures and outputs

def test_a_page_has_its_name_its_diagrams_and_the_notebooks_descriptions():
    about = {"image/png": {"alt": 'Rows of "a" & <b>', "width": 300}}
    pictures = [shown({"text/plain": "", "image/png": PICTURE}, **about), shown({"image/png": PICTURE}),
                shown({"image/svg+xml": DRAWING}, **{"image/svg+xml": {"alt": "A dot"}})]
    attached = {"dot.svg": {"image/png": PICTURE, "image/svg+xml": base64.b64encode(DRAWING.encode()).decode()}}
    text = "![A picture is coded](../img/vae.svg) ![A dot, attached](attachment:dot.svg) ![Lost](attachment:no.svg)"
    page = parsed(new_markdown_cell(text, attachments=attached),
                  new_code_cell("x", outputs=pictures, execution_count=7))
    assert page.title.text == "02_vae,seed=1" and page.html["lang"] == "en"
    assert [picture["alt"] for picture in page("img")] == [
        "A picture is coded", "A dot, attached", 'Rows of "a" & <b>',
        "A picture without a description, in the output of cell 7", "A dot"]
    kinds = [picture["src"].partition(";base64,")[0] for picture in page("img")]
    assert kinds == [f"data:image/{kind}" for kind in ("svg+xml", "svg+xml", "png", "png", "svg+xml")]
    assert page("img")[2]["width"] == "300" and page.em.text == "Lost"
    assert base64.b64decode(page.img["src"].partition(",")[2]) == (PROJECT_ROOT / "img/vae.svg").read_bytes()


@pytest.mark.parametrize("text", ["<details><![a](b)", "![folder]()", "![gone](nowhere.png)", "> " * 400 + "x",
                                  "[" * 300, "$" * 501])
def test_an_odd_text_costs_no_run_its_page(text):
    words = parsed(new_markdown_cell("before"), new_markdown_cell(text), new_markdown_cell("after")).main.text.split()
    assert (words[0], words[-1]) == ("before", "after")


def test_hidden_code_is_folded_and_a_link_to_a_file_of_the_project_is_text():
    hidden = new_code_cell("answer = 42", metadata={"jupyter": {"source_hidden": True}})
    page = parsed(new_markdown_cell("See [docs](../docs/speed.md), [b](https://doi.org/1), [c](#Set-up).\n\n## Set-up"),
                  hidden, new_code_cell("x = 1"))
    assert [link["href"] for link in page("a")] == ["https://doi.org/1", "#Set-up"] and page.h2["id"] == "Set-up"
    assert "See docs," in page.text
    assert page.details.pre.text == "answer = 42" and "x = 1" not in page.details.text
    assert page.details.pre.find(class_="number").text == "42"


TRACEBACK = ["\x1b[31m----\x1b[39m", "\x1b[38;5;28;01mreturn\x1b[39;00m \x1b[38;5;66;03m# why\x1b[39;00m <b>",
             *(f"\x1b[{code}m colour {code} \x1b[0m" for code in (*range(30, 38), *range(90, 98), "30;42", 1))]
OUTPUTS = [
    new_output("stream", text="1234 " * 60), new_output("stream", name="stderr", text="\x1b[33mcareful\x1b[0m"),
    new_output("error", ename="ValueError", evalue="no", traceback=TRACEBACK),
    shown({"text/html": "<table><tr><th>a</th></tr><tr><td>1</td></tr></table>", "text/plain": "lost"}),
    shown({"text/markdown": "A *formula* $\\mathbb E$"}), shown({"text/latex": "$\\displaystyle\\frac12$"}),
    shown({"text/latex": "\\begin{align} a &= b \\end{align}"}), shown({"text/plain": "<Figure>"}),
    shown({"application/vnd.jupyter.widget-view+json": {}, "text/plain": "interactive"}),
    shown({"application/json": {}}), shown({"image/png": PICTURE}, **{"image/png": {"alt": "Black"}}),
    new_output("execute_result", {"text/plain": "array([1])"}, execution_count=1)]
CODE = "@staticmethod\ndef f(x: int = 0x1F) -> str:    # why\n    return f'{x!r}' if x is not None else len('a')\n"
TEXT = ("# A lab\n\n**Bold** `code` [link](https://doi.org/1)\n\n## A section, $x$\n\n| | b |\n| - | -: |\n| "
        + "x" * 200 + " | y |\n\n```python\nx = 1  # a comment\n```\n\n> quoted\n\n$$" + "x + " * 60 + "y$$\n\n"
        "<details><summary>Hint</summary>\n\n$e$\n\n</details>")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a notebook that has what a notebook can have, much of it wide."""
    notebook = new_notebook(cells=[new_markdown_cell(TEXT), new_code_cell(CODE + "# " + "x" * 200, outputs=OUTPUTS),
                                   new_code_cell("!ls\n", execution_count=2), nbformat.v4.new_raw_cell("raw")])
    notebook.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(as_page(notebook, "page"), encoding="utf-8")
    return path


def test_of_each_output_the_best_form_is_shown(page):
    text = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").main.text
    kept = ("careful", "return # why <b>", "array([1])", "<Figure>", "interactive", "𝔼")
    assert [part for part in kept if part not in text] == []
    assert "lost" not in text and "\x1b" not in text and "raw" not in text


@pytest.mark.browser
def test_a_page_is_readable_in_both_themes_whatever_it_shows(browser, page):
    flaws = page_flaws(browser, page)
    assert not flaws, "\n".join(flaws)


@pytest.mark.browser
def test_what_is_wide_scrolls_in_its_own_box_and_takes_the_keyboards_focus(browser, page):
    narrow = browser.new_page(viewport={"width": 500, "height": 700})
    narrow.goto(page.as_uri())
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 500
    wide = narrow.evaluate("""[...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > box.clientWidth)
        .map(box => [box.tagName, getComputedStyle(box).overflowX, box.clientWidth < 500, box.tabIndex])""")
    assert wide == [["DIV", "auto", True, 0], ["SPAN", "auto", True, 0], *[["PRE", "auto", True, 0]] * 2]
    assert narrow.evaluate("document.querySelectorAll(`[tabindex='0']`).length") == 4, "and what fits does not"
    assert narrow.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.width < 500)")
    narrow.close()


@pytest.mark.browser
def test_what_an_output_would_load_or_run_is_stopped(browser, tmp_path):
    evil = ('<script>document.title = "hacked"</script><img src="https://example.org/a.png" alt="a" '
            'onerror="document.title = 1"><iframe src="https://example.org/"></iframe>')
    path = tmp_path / "evil.html"
    path.write_text(as_page(new_notebook(cells=[new_markdown_cell(evil), new_code_cell("x", outputs=[
        shown({"text/html": evil})])]), "mine"), encoding="utf-8")
    page, left = browser.new_page(), []
    page.on("response", lambda response: left.append(response.url))
    page.on("requestfailed", lambda request: request.failure == "csp" or left.append(request.url))
    page.goto(path.as_uri())
    assert page.title() == "mine" and left == [path.as_uri()]
    page.close()
