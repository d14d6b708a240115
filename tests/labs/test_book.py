"""The book: no solution in the students', folded ones in the instructors', links that lead somewhere, and its pages."""

import base64
import hashlib
import html
import json
import os
import re
import zipfile
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from filelock import FileLock
from helpers import LABS, PROJECT_ROOT, command, notebook_path, page_flaws, tags

from labutils.instructor.release import TEACHERS_ONLY

pytest.importorskip("myst_nb", reason="Sphinx is not installed (make test installs it)")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """A function that builds a version of the book, once for all tests that run at the same time; gives its folder."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "book"

    @cache
    def build(version):
        with FileLock(folder.with_suffix(f".{version}.lock")):
            if not (folder / f"{version}.zip").exists():
                done = command("python", PROJECT_ROOT / "docs/book/build.py", version, folder)
                assert done.returncode == 0, done.stderr
        return folder / version
    return build


# --------------------------------------------------------------------------------------- solutions

def secrets():
    """Return {lab: pieces of its solutions and answers that occur nowhere else in the labs}, without white space."""
    hidden, seen = {lab: [] for lab in LABS}, []
    for lab in LABS:
        for cell in nbformat.read(notebook_path(lab), 4).cells:
            if TEACHERS_ONLY & set(tags(cell)):
                hidden[lab].append(re.sub(r"\$[^$]*\$|</?\w+>", "\n", cell.source))        # formulas become MathML
                continue
            parts = re.split(r"^[ \t]*#+ (?:BEGIN|END) (?:SOLUTION|HIDDEN TESTS).*", cell.source, flags=re.M)
            hidden[lab] += parts[1::2]
            seen += parts[::2]
            (hidden[lab] if "nbgrader" in cell.metadata else seen).extend(printed(cell))
    seen = re.sub(r"\s", "", "\n".join(seen))
    return {lab: [piece for text in texts for piece in pieces(text) if piece not in seen]
            for lab, texts in hidden.items()}


def pictures():
    """Return the names that pictures printed by solutions have in a book: their SHA-256."""
    cells = [cell for lab in LABS for cell in nbformat.read(notebook_path(lab), 4).cells if "nbgrader" in cell.metadata]
    return {hashlib.sha256(base64.b64decode(output.data["image/png"])).hexdigest()
            for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})}


def printed(cell):
    """Return the texts of a cell's outputs, and the descriptions of its pictures."""
    outputs = cell.get("outputs", [])
    return [output.get("text", "") for output in outputs] + [
        about.get("alt", "") for output in outputs for about in output.get("metadata", {}).values()]


def pieces(text):
    """Return the pieces of a text, of 15 letters or more, between the signs that a page rewrites."""
    parts = re.split(r"""[`*'"’\[\]()<>&|\\\n]|^\d+\. """, text, flags=re.M)
    return [piece for piece in (re.sub(r"\s", "", part) for part in parts) if len(piece) >= 15]


def written(folder):
    """Return {path: text without tags, escapes and white space} of all files of a book; base64 is left out."""
    texts = {}
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "ignore")
            if path.suffix == ".ipynb":
                cells = json.loads(text)["cells"]
                text = "\n".join(["".join(part) for cell in cells for part in (
                    cell["source"], *(output.get("text", "") for output in cell.get("outputs", [])))])
            if path.suffix == ".html":
                text = html.unescape(re.sub(r"<[^>]*>", "", text.replace('alt="', ">")))
            texts[path.relative_to(folder).as_posix()] = re.sub(r"\s", "", text)
    return texts


def test_no_file_of_the_students_book_has_a_piece_of_a_solution(book):
    student, solutions = written(book("student")), written(book("solutions"))
    for lab, hidden in secrets().items():
        assert len(hidden) > 5, lab
        leaks = {piece: name for piece in hidden for name, text in student.items() if piece in text}
        assert leaks == {}, lab
        page = solutions[f"notebooks/{lab}.html"]
        assert [piece for piece in hidden if piece not in page] == [], lab      # or the search would find nothing
    drawn, shown = ({path.stem for path in book(version).glob("_images/*")} for version in ("solutions", "student"))
    assert pictures() and pictures() <= drawn - shown


def test_the_instructors_book_folds_the_solutions_and_the_students_has_stubs(book):
    for lab in LABS:
        solved, stubs = (book(version).joinpath(f"notebooks/{lab}.html").read_text(encoding="utf-8").split(mark)[:-1]
                         for version, mark in (("solutions", "### BEGIN SOLUTION"), ("student", "# YOUR CODE HERE")))
        assert len(solved) == len(stubs) > 0
        assert all(folded(before) for before in solved) and not any(folded(before) for before in stubs)


def folded(before):
    """Tell whether the text before a place in a page leaves a cell that is folded open."""
    return before.rfind('<details class="admonition hide above-input">') > before.rfind("</details>")


# ------------------------------------------------------------------------------------------- pages

class Page(HTMLParser):
    """The ids of a page, [(tag, address)] of what it leads to or shows, and the descriptions of its pictures."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.alts = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        addresses = [attributes.get("href"), attributes.get("src"), *(attributes.get("srcset") or "").split(",")]
        self.alts += [attributes.get("alt")] if tag == "img" else []
        self.links += [(tag, address.split()[0]) for address in addresses if address]


@pytest.mark.parametrize("version", ["student", "solutions"])
def test_each_link_within_the_book_leads_somewhere_and_no_page_needs_another_host(book, version):
    folder = book(version)
    pages = {path: Page(path) for path in html_pages(folder)}
    for path, page in pages.items():
        assert all(alt and not alt.endswith((".png", ".svg")) for alt in page.alts), path    # its path, if it has none
        for tag, address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                assert tag == "a" and parts.scheme in ("http", "https"), f"{path}: {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file() and folder in target.parents, f"{path}: {address}"
            if target in pages and parts.fragment:
                assert unquote(parts.fragment) in pages[target].ids, f"{path}: {address}"


def html_pages(folder):
    """Return the pages of a book; there is one for each lab and each document."""
    pages = [path for path in folder.rglob("*.html") if "_static" not in path.parts]
    assert {path.stem for path in pages} > {*LABS, "index", "start", "data", "speed", "cluster", "TEACHING", "command",
                                            "labutils", "CONTRIBUTING", "search"}
    return pages


ROOM = """box => { const all = Array.from(box.querySelectorAll('mi, mo, mn'), part => part.getBoundingClientRect()),
                          {top, bottom} = box.getBoundingClientRect();
                  return [Math.min(...all.map(part => part.top - top)),
                          Math.min(...all.map(part => bottom - part.bottom))] }"""


@pytest.mark.browser
def test_each_page_reads_well_without_a_network_in_both_themes_and_the_search_finds(book, browser):
    flaws = {path.name: [flaw for flaw in page_flaws(browser, path) if not allowed(flaw)]
             for path in html_pages(book("student"))}
    assert {name: found for name, found in flaws.items() if found} == {}
    page = browser.new_page(offline=True, color_scheme="dark")
    page.goto(book("student").joinpath("search.html").as_uri() + "?q=reparameterisation")
    page.locator("#search-results a[href*='02_vae']").first.wait_for(timeout=60_000)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.goto(book("student").joinpath("notebooks/05_wgan.html").as_uri())
    boxes = page.evaluate(f"Array.from(document.querySelectorAll('.formula'), {ROOM})")
    assert len(boxes) > 5 and min(map(min, boxes)) > 4, "glyphs stand out of their boxes by some pixels"
    page.close()


def allowed(flaw):
    """Links have a test of their own; formulas in the contents for printing are unseen; and the name of a variable."""
    return flaw.startswith(("link ", "<math ")) or "$LABS_DATA_DIR" in flaw


def test_docstrings_become_prose_code_and_tables(book):
    page = re.sub(r"</?span[^>]*>", "", book("student").joinpath("labutils.html").read_text(encoding="utf-8"))
    assert "``" not in page and "docutils literal notranslate\">InMemoryLoader</code>s for the data set" in page
    assert re.search(r'<dt><code class="docutils literal notranslate">limit</code></dt>\s*<dd><p>the most', page)
    assert re.search(r"<pre>step = GraphedStep\(lambda", page)      # an example


def test_the_zip_is_small_and_has_what_the_folder_has(book):
    for version in ("student", "solutions"):
        packed = book(version).with_suffix(".zip")
        assert packed.stat().st_size < 15e6
        names = {name for name in zipfile.ZipFile(packed).namelist() if not name.endswith("/")}
        assert names == {path.relative_to(book(version).parent).as_posix()
                         for path in book(version).rglob("*") if path.is_file()}
