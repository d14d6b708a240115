"""Notebooks as pages of HTML that need nothing else: no network, no file beside them."""

import html
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from xml.etree import ElementTree

from jinja2 import FileSystemLoader
from latex2mathml.converter import Converter
from nbconvert import HTMLExporter

from ..paths import PROJECT_ROOT

EXPORTING = Lock()      # the exporter keeps state while it works


def as_page(notebook, title):
    """Return a notebook as one page of HTML, with the diagrams of img/ in it."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:     # nbconvert embeds only pictures below the folder that it is given
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../img/", "](img/")
    with EXPORTING:
        page, _ = exporter().from_notebook_node(notebook, {"metadata": {"path": str(PROJECT_ROOT), "name": title}})
    return page


@cache
def exporter():
    """Return the exporter to HTML; it is slow to make."""
    return HTMLExporter(template_file="page.html.j2", embed_images=True,
                        extra_loaders=[FileSystemLoader(Path(__file__).parent)])


@lru_cache(maxsize=4096)
def to_mathml(latex, display=False):
    """Return a formula of LaTeX, without its dollars, as an element `math`, which browsers show without a script.

    display  True: a formula on a line of its own

    A formula that cannot be converted becomes an element `code` of the class `tex` that holds it as it was written.
    """
    try:
        formula = Converter(display="block" if display else "inline").convert_to_element(latex)
    except Exception:       # the converter raises its own classes, and IndexError, StopIteration and others as well
        return as_written(latex, display)
    for part in formula.iter():
        part.text = html.unescape(part.text or "") or None      # the converter writes signs as entities
        if "\\" in (part.text or ""):       # and a command that it does not know as its name
            return as_written(latex, display)
    return ElementTree.tostring(formula, encoding="unicode")


def as_written(latex, display):
    """Return a formula of LaTeX with its dollars as an element `code`."""
    dollars = "$$" if display else "$"
    return f'<code class="tex">{html.escape(dollars + latex + dollars)}</code>'
