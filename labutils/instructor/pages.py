"""Notebooks as pages of HTML that need nothing else: no network, no file beside them."""

import hashlib
import re
from base64 import b64encode
from functools import cache
from html import escape, unescape
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
from nbconvert.filters import ansi2html
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from pygments.lexers import get_lexer_by_name
from pygments.token import Token
from pygments.util import ClassNotFound

from ..paths import PROJECT_ROOT
from .mathml import to_mathml

# what is shown of an output that has several forms: the first of these
FORMS = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "image/png", "image/jpeg", "image/gif",
         "image/webp", "text/plain")
COLOURED = ((Token.Comment, "comment"), (Token.Keyword, "keyword"), (Token.Operator.Word, "keyword"),
            (Token.Literal.String, "string"), (Token.Literal.Number, "number"), (Token.Name.Builtin, "name"),
            (Token.Name.Function, "name"), (Token.Name.Class, "name"), (Token.Name.Decorator, "name"))
SCROLLS = '<{0} class="wide" tabindex="0">{1}</{0}>'


def as_page(notebook, title):
    """Return a notebook as one page of HTML, with its pictures in it; the page requests nothing and follows the theme.

    Formulas are MathML, pictures keep their descriptions, hidden code is folded.
    """
    language = notebook.metadata.get("language_info", {}).get("pygments_lexer", "python")
    return template().render(cells=notebook.cells, title=title, language=language)


@cache
def template():
    """Return the template of a page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True, loader=jinja2.FileSystemLoader(Path(__file__).parent))
    environment.filters.update(markdown=markdown, terminal=terminal, code=coloured, sha256=sha256, latex=latex)
    environment.globals.update(form_of=form_of, data_uri=data_uri)
    return environment.get_template("page.html.j2")


def sha256(text):
    """Return the hash by which a page allows its own script, and no other."""
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


def form_of(output):
    """Return the MIME type in which an output is shown, or None: no page can show it."""
    return next((form for form in FORMS if form in output.data), None)


def data_uri(form, data):
    """Return an output's picture as an address that holds it."""
    content = b64encode(data.encode()).decode() if form == "image/svg+xml" else "".join(data.split())
    return f"data:{form};base64,{content}"


def coloured(code, language):
    """Return code with comments, words of the language and so on in elements `span` of a class that says which."""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    parts = []
    for token, text in lexer.get_tokens(code):
        kind = next((name for group, name in COLOURED if token in group), None)
        parts.append(f'<span class="{kind}">{escape(text)}</span>' if kind else escape(text))
    return "".join(parts).rstrip("\n")


def terminal(text):
    """Return the HTML of a text with a terminal's codes; of its colours the sixteen with names remain."""
    return re.sub(r'(<span[^>]*) style="[^"]*"', r"\1", ansi2html(text))


def latex(text):
    """Return an output of LaTeX as MathML."""
    display = not text.strip().startswith("$") or text.strip().startswith("$$")
    return to_mathml(text.strip().strip("$"), display)


def markdown(source, attachments=None):
    """Return the HTML of a text in Markdown; a text that the parser cannot take stays as it was written."""
    renderer = Renderer(escape=False, embed_images=True, path=str(PROJECT_ROOT), attachments=attachments,
                        exclude_anchor_links=True)
    try:
        return MarkdownWithMath(renderer).render(source)
    except Exception:       # of mistune, of the parser of HTML, too deep a nesting: no reason to lose the page of a run
        return SCROLLS.format("pre", escape(source))


class Renderer(IPythonRenderer):
    """nbconvert's renderer of Markdown, with MathML in place of formulas, and boxes in which wide things scroll."""

    def inline_math(self, body):
        return to_mathml(body)

    def block_math(self, body):
        return SCROLLS.format("span", to_mathml(body, display=True))

    def latex_environment(self, name, body):
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def table(self, text):
        return SCROLLS.format("div", f"<table>{text}</table>")

    def table_cell(self, text, align=None, head=False):
        kind = "th" if head and text else "td"      # a heading without words is none
        return f'<{kind} style="text-align: {align or "left"}">{text}</{kind}>\n'

    def block_code(self, code, info=None):
        return SCROLLS.format("pre", coloured(code, (info or "text").split()[0]))

    def image(self, text, url, title=None):
        try:        # nbconvert embeds only pictures below the folder that it is given
            return super().image(text, url.removeprefix("../"), title)
        except (InvalidNotebook, OSError):      # a missing attachment, a folder
            return f"<em>{text}</em>"

    def link(self, text, url, title=None):
        """A link to a file of the project leads nowhere from a page that lies anywhere: its text remains."""
        return super().link(text, url, title) if urlsplit(url).scheme or url.startswith("#") else text

    def heading(self, text, level, **attributes):
        words = unescape(text if "<" not in text else "".join(part.split(">")[-1] for part in text.split("<")))
        return f'<h{level} id="{escape(words.strip().replace(" ", "-"))}">{text}</h{level}>\n'
