"""The table of the generators in README.md is the scoreboard that lab 10 shows, word for word.

`python -m labutils.instructor.compare` copies it, after the lab was refreshed.
"""

import re

from ..paths import PROJECT_ROOT, replacing
from .labs import UsageError, read_lab

README, LAB, CELL = PROJECT_ROOT / "README.md", "10_compare", "scoreboard"


def scoreboard():
    """Return the stored table of the lab, in Markdown; raises `UsageError` if there is none."""
    for cell in read_lab(LAB).cells:
        for output in cell.get("outputs", []) if cell.id == CELL else ():
            if "text/markdown" in output.get("data", {}):
                return output.data["text/markdown"]
    raise UsageError(f"notebooks/{LAB}.ipynb stores no scoreboard; run labs refresh {LAB}")


def with_scoreboard(text):
    """Return the text of a README with this table in the place of the one that begins with the same column."""
    table = scoreboard()
    first = table.partition(" |")[0]
    changed, count = re.subn(rf"^{re.escape(first)} \|.*(\n\|.*)*", lambda _: table, text, flags=re.M)
    if count != 1:
        raise UsageError(f"{README.name} has {count} tables that begin with '{first}'; the scoreboard takes the place "
                         "of one")
    return changed


def write():
    """Put the scoreboard into README.md."""
    text = with_scoreboard(README.read_text(encoding="utf-8"))
    with replacing(README) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
