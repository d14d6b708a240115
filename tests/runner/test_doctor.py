"""`labs doctor` in a small project where nothing is wrong, and then one thing is."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import pytest

from labutils.instructor import cli, doctor
from labutils.paths import PROJECT_ROOT

TORCH = """
class cuda:
    is_available = lambda: {sees}
    device_count = lambda: 1
    get_device_name = lambda i: "the GPU"
class backends:
    class mps:
        is_available = lambda: False
class version:
    cuda = {build!r}
get_num_threads = lambda: 3
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_program(path, text):
    write(path, f"#!/bin/sh\n{text}\n").chmod(0o755)


def write_kernel(project, name, program):
    about = {"argv": [str(program), "-m", "ipykernel_launcher"], "display_name": name, "language": "python"}
    write(project / "jupyter/kernels" / name / "kernel.json", json.dumps(about))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without a fault: its own requirements, dummies of the large packages, kernels, programs."""
    write(tmp_path / "pyproject.toml", '[project]\ndependencies = ["numpy>=1"]\n')
    write(tmp_path / "constraints.txt", f"# pins\nnumpy=={metadata.version('numpy')}\nabsent-elsewhere==1.0\n")
    write(tmp_path / "notebooks/01_good.ipynb", '{"cells": []}')
    for name in doctor.MODULES:
        write(tmp_path / f"modules/{name}.py", "")
    write(tmp_path / "modules/torch.py", TORCH.format(sees=False, build=None))
    write_kernel(tmp_path, "python3", sys.executable)
    monkeypatch.setattr(doctor, "PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'modules'}:{PROJECT_ROOT}")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "nobody"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("LABS_DATA_DIR", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    original = doctor.python
    said = "digits    verified  comes with the project\n"
    monkeypatch.setattr(doctor, "python", lambda *arguments: original(*arguments) if arguments[0] == "-c" else
                        subprocess.CompletedProcess(arguments, 0, said, ""))
    return tmp_path


def faults(capsys):
    """Run the command; return the exit code and the faults it prints."""
    code = cli.main(["doctor"])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return code, [line for line in printed.out.splitlines() if line.startswith("fault: ")], printed.out


def test_where_nothing_is_wrong_it_says_so_and_what_is_there(project, capsys):
    code, found, out = faults(capsys)
    assert (code, found) == (0, []) and "no fault found" in out
    for part in (str(project), sys.executable, metadata.version("numpy"), "cpu (3 threads)", "GB are free in", "1 in",
                 "data set digits", "kernel python3", "runs go to"):
        assert part in out


def break_module(project, name, code):
    write(project / f"modules/{name}.py", code)


def smi(project, text):
    write_program(project / "bin/nvidia-smi", text)


BREAKAGES = {
    "torch does not import": (
        lambda p, m: break_module(p, "torch", "raise ImportError('libcudart.so.13: cannot open')"),
        ["torch cannot be imported (ImportError: libcudart.so.13", doctor.INSTALL]),
    "torchvision of another torch": (
        lambda p, m: break_module(p, "torchvision", "raise RuntimeError('no torchvision::nms')"),
        ["torchvision", "does not fit torch", "no torchvision::nms", doctor.PAIR]),
    "torch kills Python": (
        lambda p, m: break_module(p, "torch", "import os\nos.kill(os.getpid(), 9)"),
        ["importing torch ends Python", "-9", doctor.INSTALL]),
    "cv2 without libGL": (
        lambda p, m: break_module(p, "cv2", "raise ImportError('libGL.so.1')"),
        ["cv2 cannot be imported", "libGL.so.1", doctor.INSTALL]),
    "torch for the CPU only": (
        lambda p, m: smi(p, "echo 'A GPU, 570.1'"),
        ["A GPU, 570.1", "built for the CPU only", doctor.PAIR]),
    "a driver that is too old": (
        lambda p, m: (smi(p, "echo 'A GPU, 470.1'"), break_module(p, "torch", TORCH.format(sees=False, build="13.2"))),
        ["A GPU, 470.1", "CUDA 13.2 may need a newer driver"]),
    "a driver that fails": (
        lambda p, m: smi(p, "echo 'Driver/library version mismatch'; exit 18"),
        ["nvidia-smi fails (Driver/library version mismatch)", "restart the machine"]),
    "a hidden GPU": (
        lambda p, m: (smi(p, "echo 'A GPU, 570.1'"), m.setenv("CUDA_VISIBLE_DEVICES", "")),
        ["CUDA_VISIBLE_DEVICES=''", "unset it"]),
    "a missing package": (
        lambda p, m: write(p / "pyproject.toml", '[project]\ndependencies = ["numpy", "no-such-package>=2"]\n'),
        ["packages missing: no-such-package", doctor.INSTALL]),
    "a package of another version": (
        lambda p, m: write(p / "constraints.txt", "numpy==0.1\n"),
        [f"numpy {metadata.version('numpy')} (not 0.1)", doctor.INSTALL]),
    "a package that is too old": (
        lambda p, m: write(p / "pyproject.toml", '[project]\ndependencies = ["numpy>=99"]\n'),
        [f"packages too old for the labs: numpy {metadata.version('numpy')} (not >=99)", doctor.INSTALL]),
    "a Mac with an Intel processor": (
        lambda p, m: (m.setattr("platform.system", lambda: "Darwin"), m.setattr("platform.machine", lambda: "x86_64")),
        ["Intel processor", "no torch above 2.2", "Colab", "arm64"]),
    "no project around labutils": (
        lambda p, m: (p / "pyproject.toml").unlink(),
        ["without the project around it", doctor.INSTALL]),
    "no right to write": (
        lambda p, m: write(p / "runs", "a file, not a folder"),
        ["nothing can be written to", "runs", "--out"]),
    "no such data folder": (
        lambda p, m: m.setenv("LABS_DATA_DIR", "/no/such/folder"),
        ["LABS_DATA_DIR=/no/such/folder", "unset it"]),
    "a stale kernel": (
        lambda p, m: write_kernel(p, "old", "/no/such/bin/python"),
        ["the kernel old", "/no/such/bin/python does not exist", "jupyter kernelspec remove old"]),
    "python3 of another environment": (
        lambda p, m: (write_program(p / "other/bin/python", ""), write_kernel(p, "python3", p / "other/bin/python")),
        ["the kernel python3", "other/bin/python", "jupyter kernelspec remove python3"]),
    "a notebook that is no JSON": (
        lambda p, m: write(p / "notebooks/01_good.ipynb", "<<<<<<< HEAD"),
        ["01_good.ipynb is not a notebook", "git checkout notebooks/01_good.ipynb"]),
    "a notebook without cells": (
        lambda p, m: write(p / "notebooks/02_list.ipynb", "[]"),
        ["02_list.ipynb is not a notebook", "git checkout"]),
    "a notebook with a number for cells": (
        lambda p, m: write(p / "notebooks/02_number.ipynb", '{"cells": 5}'),
        ["02_number.ipynb is not a notebook", "git checkout"]),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_fault_is_named_in_one_line_with_the_way_out(project, capsys, monkeypatch, breakage):
    provoke, parts = BREAKAGES[breakage]
    provoke(project, monkeypatch)
    code, found, out = faults(capsys)
    assert code == 1 and "no fault found" not in out
    named = [line for line in found if all(part in line for part in parts)]
    assert len(named) == 1, found
    assert len(found) == 1 or breakage in ("no project around labutils", "torch kills Python"), found


def test_what_labs_data_says_of_missing_sets_and_the_proxy_is_told(project, capsys, monkeypatch):
    said = ("mnist     missing   /sets lacks t10k-labels-idx1-ubyte; 'labs data mnist' fetches it into /sets\n"
            "looked for in /sets\ndownloads go through the proxy proxy.example.org:3128\n")
    monkeypatch.setattr(doctor, "python", lambda *arguments: subprocess.CompletedProcess(arguments, 0, said, ""))
    lines = dict(doctor.data_sets())
    assert "lacks t10k-labels-idx1-ubyte" in lines["data set mnist"]
    assert lines == {"data set mnist": lines["data set mnist"], "proxy of downloads": "proxy.example.org:3128"}


def test_a_data_folder_at_home_is_no_fault(project, capsys, monkeypatch):
    (project / "home/sets").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(project / "home"))
    monkeypatch.setenv("LABS_DATA_DIR", "~/sets")
    assert faults(capsys)[:2] == (0, [])


def test_a_gpu_that_torch_sees_is_no_fault(project, capsys):
    smi(project, "echo 'A GPU, 570.1'")
    break_module(project, "torch", TORCH.format(sees=True, build="13.2"))
    code, found, out = faults(capsys)
    assert (code, found) == (0, []) and "the GPU, cpu" in out


def test_a_build_label_is_no_other_version_and_pins_that_are_not_needed_may_be_missing(project, capsys, monkeypatch):
    found = {"numpy": f"{metadata.version('numpy')}+cpu"}
    monkeypatch.setattr(doctor, "installed_version", found.get)
    assert faults(capsys)[:2] == (0, [])


@pytest.mark.parametrize("memory, disk, part", [(1e9, 9e9, "1.0 GB of memory are free"),
                                                (9e9, 2e8, "0.2 GB are free on the disk")])
def test_little_memory_and_a_full_disk(project, capsys, monkeypatch, memory, disk, part):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("memory", "total available")(16e9, memory))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1e12, 0, disk))
    code, [found], _ = faults(capsys)
    assert code == 1 and part in found


def test_cores_and_memory_are_those_of_the_container(project, capsys, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: namedtuple("memory", "total available")(64e9, 50e9))
    monkeypatch.setattr(doctor, "memory_limit", lambda machine: machine / 64)
    monkeypatch.setattr(doctor, "cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    code, [found], printed = faults(capsys)
    assert code == 1 and "only 1.0 GB of memory are free" in found
    assert "2 of 64 may be used" in printed and "1.0 of 1.0 GB are free" in printed


@pytest.mark.parametrize("module, probe", [("psutil", "memory"), ("jupyter_client.kernelspec", "kernels"),
                                           ("packaging.version", "packages")])
def test_a_probe_that_breaks_is_a_fault_and_the_others_go_on(project, capsys, monkeypatch, module, probe):
    monkeypatch.setitem(sys.modules, module, None)      # to import it fails
    code, [found], out = faults(capsys)
    assert code == 1 and f"{probe}: could not be examined (ModuleNotFoundError" in found and doctor.INSTALL in found
    assert "notebooks" in out and "python" in out


def test_it_starts_where_every_package_is_broken(tmp_path):
    broken = [*doctor.MODULES, "nbformat", "yaml", "psutil", "jupyter_client", "packaging", "filelock", "PIL"]
    for name in broken:
        write(tmp_path / f"{name}.py", "raise ImportError('broken on purpose')")
    for command in ("doctor", "data"):
        done = subprocess.run([sys.executable, "-m", "labutils.instructor.cli", command], text=True, timeout=120,
                              capture_output=True, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT_ROOT}"})
        assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
        if command == "data":
            assert done.stderr.count("\n") == 1 and "'labs doctor' says" in done.stderr
        else:
            assert all(f"{name} cannot be imported" in done.stdout for name in doctor.MODULES)
            for part in ("memory: could not be examined", "fault: 'labs data' fails", "notebooks"):
                assert part in done.stdout


@pytest.mark.slow
def test_a_damaged_data_set_is_a_fault_of_the_real_command(project, tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    from labutils.data.idx import FILES
    for file in FILES:
        write(tmp_path / "MNIST/raw" / file, "no IDX file")
    monkeypatch.setenv("LABS_DATA_DIR", str(tmp_path))
    found = [text for label, text in doctor.data_sets() if label == doctor.FAULT]
    assert len(found) == 1 and "the data set mnist is damaged" in found[0] and FILES[0] in found[0]
