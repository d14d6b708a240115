"""The kernel of every notebook, and a hook of JupyterLab: what it does before it saves one."""

import json
from contextlib import suppress
from pathlib import Path

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

def keep_version(model, path, contents_manager, **_):
    """Save a notebook with the version of Python that its file names: the kernel's own would be a diff of no use."""
    if model["type"] != "notebook":
        return
    with suppress(OSError, ValueError, KeyError):       # a new notebook has none
        stored = json.loads(Path(contents_manager.root_dir, path).read_text(encoding="utf-8"))
        model["content"]["metadata"]["language_info"]["version"] = stored["metadata"]["language_info"]["version"]
