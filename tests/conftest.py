"""Fixtures that all tests share."""

import gzip
import hashlib
import http.server
import os
import shutil
import signal
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
from helpers import idx, no_proxy, write_picture

from labutils.data import SOURCES
from labutils.data.idx import FILES

# terminals, signals and a shell that Windows does not have
collect_ignore = ["runner/test_run.py", "runner/test_cluster.py", "library/test_make.py"] if os.name == "nt" else []

# a shell that starts the tests in the background leaves Ctrl-C and a closed terminal ignored, by children too
for number, handler in ((signal.SIGINT, signal.default_int_handler),
                        (getattr(signal, "SIGHUP", signal.SIGINT), signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_modifyitems(items):
    """Start with the runs of the labs, which take longest."""
    items.sort(key=lambda item: item.path.stem != "test_runs")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, where one is installed, and playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[
            "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"])
        yield chromium
        chromium.close()


# ---------------------------------------------------------------------------------- small data sets

@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """No data set but the bundled ones: a folder that takes the place of the project's root."""
    monkeypatch.setattr("labutils.data.source.PROJECT_ROOT", tmp_path / "project")
    monkeypatch.delenv("LABS_DATA_DIR", raising=False)
    return tmp_path / "project"


@pytest.fixture
def offline(monkeypatch):
    """No server answers."""
    monkeypatch.setattr("labutils.data.source.why_silent", lambda urls: "no server answers")


@pytest.fixture
def tiny(no_data, tmp_path, monkeypatch):
    """A data set of 6 and 4 pictures that passes for MNIST: the folder of its files, and their contents by name."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (6, 28, 28), np.uint8), np.arange(6, dtype=np.uint8),
              rng.integers(0, 256, (4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8)]
    contents = {file: idx(array.shape, array.tobytes()) for file, array in zip(FILES, arrays)}
    md5 = tuple(hashlib.md5(content).hexdigest() for content in contents.values())
    monkeypatch.setattr(SOURCES["mnist"], "md5", md5, raising=False)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return folder, contents


@pytest.fixture
def mirror(tiny, tmp_path, monkeypatch):
    """A server with the tiny set, which torchvision's MNIST asks: a data folder, the server's own folder, its log."""
    from torchvision.datasets import MNIST
    folder, contents = tiny
    site, log, resources = tmp_path / "site", [], []
    site.mkdir()
    for file, content in contents.items():
        packed = gzip.compress(content, mtime=0)
        (site / f"{file}.gz").write_bytes(packed)
        resources.append((f"{file}.gz", hashlib.md5(packed).hexdigest()))
    shutil.rmtree(folder.parent)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(site))

        def log_message(self, *_):
            pass

        def translate_path(self, path):     # a proxy is asked for a whole address
            return super().translate_path(urlsplit(path).path)

        def do_GET(self):
            log.append(self.path)
            super().do_GET()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(MNIST, "resources", resources)
    no_proxy(monkeypatch)
    yield tmp_path, site, log
    server.shutdown()


@pytest.fixture
def celeba(no_data, tmp_path, monkeypatch):
    """A data folder with nine pictures in CelebA's layout; torchvision's class reads them without its checksums."""
    from torchvision.datasets import CelebA
    monkeypatch.setattr(CelebA, "file_list", [(id_, None, name) for id_, _, name in CelebA.file_list])
    folder = tmp_path / "celeba"
    names = [f"{i:06d}.jpg" for i in range(1, 10)]
    for i, name in enumerate(names):
        write_picture(folder / "img_align_celeba" / name, np.full((218, 178, 3), (20 * i, 100, 200), np.uint8))
    split = [0, 0, 0, 0, 0, 1, 2, 2, 2]
    (folder / "list_eval_partition.txt").write_text("".join(f"{n} {s}\n" for n, s in zip(names, split)))
    (folder / "identity_CelebA.txt").write_text("".join(f"{n} 1\n" for n in names))
    for file, columns in (("list_bbox_celeba", 4), ("list_landmarks_align_celeba", 10), ("list_attr_celeba", 40)):
        header = " ".join(f"column_{c}" for c in range(columns))
        rows = [" ".join([n, *("1" if (i + c) % 2 else "-1" for c in range(columns))]) for i, n in enumerate(names)]
        (folder / f"{file}.txt").write_text("\n".join(["9", header, *rows]) + "\n")
    return tmp_path
