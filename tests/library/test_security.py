"""What must not happen: others reach the server, or reading a file runs code."""

import ast
import json
import os
import pickle
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import psutil
import pytest
import torch
from helpers import BIN, NOTEBOOKS, Boobytrap

from labutils.paths import PROJECT_ROOT

# ------------------------------------------------------------------------------------ make lab


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab as `make lab` starts it, without browser and user's configuration: (process, address, token)."""
    steps = subprocess.run(["make", "--no-print-directory", "-n", "lab", f"BIN={BIN}"], cwd=PROJECT_ROOT,
                           capture_output=True, text=True)
    command = shlex.split(steps.stdout.splitlines()[-1])
    folder = tmp_path_factory.mktemp("jupyter")
    folders = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_")}
    process = subprocess.Popen([*command, "--no-browser", "--allow-root", "--port=0"], cwd=PROJECT_ROOT, text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**environment, **folders})
    watchdog = threading.Timer(120, process.kill)       # which ends every wait below
    watchdog.start()
    try:
        pattern = r"(http://[^/\s]+/)lab/tree/student\?token=(\w+)"
        found = next(filter(None, (re.search(pattern, line) for line in process.stderr)), None)
        assert found, "JupyterLab did not say where it listens"
        threading.Thread(target=process.stderr.read, daemon=True).start()      # a full pipe would stop the server
        wait_until_it_listens(process, found[1])
        yield process, *found.groups()
    finally:
        watchdog.cancel()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_it_listens(process, address):
    """Wait until the server accepts a connection: it prints its address a moment before."""
    parts = urlsplit(address)
    while process.poll() is None:
        try:
            return socket.create_connection((parts.hostname, parts.port), timeout=10).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
    pytest.fail("JupyterLab ended, or did not listen in time")


def ask(address):
    """Return the server's answer, or its refusal: 403, or "login" for the page to log in."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return "login" if "/login?" in answer.url else answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_jupyterlab_listens_on_loopback_only(server):
    process, address, _ = server
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    connections = sum((psutil.Process(pid).net_connections("inet") for pid in family), [])
    bound = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert bound and bound <= {"127.0.0.1", "::1"}
    assert re.fullmatch(r"http://(localhost|127\.0\.0\.1):\d+/", address)


@pytest.mark.parametrize("path", ["api/contents", "api/kernels", "api/terminals", "files/README.md",
                                  "lab/tree/notebooks"])
@pytest.mark.slow
def test_jupyterlab_answers_nobody_without_the_token(server, path):
    _, address, token = server
    assert len(token) >= 32
    for wrong in ("", "?token=", f"?token={token[:-1]}"):
        assert ask(f"{address}{path}{wrong}") in (403, "login")
    assert ask(f"{address}{path}?token={token}") not in (403, "login")


@pytest.mark.slow
def test_jupyterlab_opens_on_the_labs(server):
    _, address, token = server
    listing = json.loads(ask(f"{address}api/contents/notebooks?token={token}"))
    assert {path.name for path in NOTEBOOKS} <= {entry["name"] for entry in listing["content"]}


# ------------------------------------------------------------------------------------- unpickling

PICKLING = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
LOADING = {"torch.load", "torch.jit.load", "np.load", "numpy.load"}


def test_no_module_reads_what_can_hold_a_pickle():
    for path in (PROJECT_ROOT / "labutils").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            assert not PICKLING & set(names), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in LOADING, f"{path}:{node.lineno}"


READ_EVERYTHING = """
import sys
from labutils import CheckpointError, find_pretrained, get_loaders, load_checkpoint
from labutils.checkpoints import PRETRAINED_DIR, read_checkpoint
import sklearn.datasets, skimage.data, torchvision
found = []
sys.addaudithook(lambda event, arguments: found.append(arguments) if event == "pickle.find_class" else None)
for name in ("digits", "faces"):
    get_loaders(name)
for path in PRETRAINED_DIR.glob("*.safetensors"):
    read_checkpoint(find_pretrained(path.stem))
for path in sys.argv[1:]:
    try:
        load_checkpoint(path)
    except CheckpointError:
        pass
before = list(found)
import pickle
pickle.loads(pickle.dumps(CheckpointError))
print(before, len(found))
"""


@pytest.mark.slow
def test_reading_data_and_weights_unpickles_nothing(tmp_path):
    # not named .safetensors, which torch.load itself would not unpickle
    trap = tmp_path / "trap.pt"
    trap.write_bytes(pickle.dumps(Boobytrap()))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "torch.pt")
    done = subprocess.run([sys.executable, "-c", READ_EVERYTHING, trap, tmp_path / "torch.pt"], cwd=PROJECT_ROOT,
                          capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["[]", "1"], done.stdout + done.stderr      # the 1 shows that the hook works
