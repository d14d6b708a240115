"""The fake course: small labs that replace the real ones."""

import pytest
from helpers import write_lab

from labutils.instructor import labs


@pytest.fixture
def notebooks(request, tmp_path, monkeypatch):
    """The folder of the small labs of the test's file, {name: sources of the cells} as its `SMALL_LABS`."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, sources in request.module.SMALL_LABS.items():
        write_lab(folder, name, sources)
    monkeypatch.setattr(labs, "NOTEBOOKS", folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder
