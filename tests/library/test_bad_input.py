"""Bad input of every kind: one line that names the value and the way out, never a traceback, nothing half-written."""

import gzip
import json
import pickle
import re
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from helpers import write_lab
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from labutils import (CheckpointError, DatasetError, collage, get_device, get_loaders, load_checkpoint, require_positive,
                      save_checkpoint, save_image, seed_everything, show, to_uint8)
from labutils import data
from labutils.data import FILES, IDX_SOURCES, load_dataset, read_idx
from labutils.instructor import cli, labs

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARAMETERS = ("epochs: int = 2  # passes\nrate: float = 0.1  # learning rate\npretrained: bool = False  # load weights\n"
              'device: str = "cpu"  # where\nout_dir: str = "runs/x"  # pictures')


# --------------------------------------------------------------------------------- the command line

@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one good lab and some files that are no labs: the folder above its notebooks."""
    folder = tmp_path_factory.mktemp("course")
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    write_lab(notebooks, "01_good", PARAMETERS, ["1"], heading=True)
    write_lab(notebooks, "02_unclosed", PARAMETERS, ["### BEGIN SOLUTION\n1"], heading=True)
    (notebooks / "03_text.ipynb").write_text("<<<<<<< HEAD")
    (notebooks / "04_list.ipynb").write_text("[]")
    (notebooks / "05_empty.ipynb").write_text("")
    (notebooks / "06_object.ipynb").write_text('{"cells": 5}')
    (notebooks / "quick.yml").write_text("epochs: [1\n")
    (folder / "a_file").write_text("")
    (folder / "loop").symlink_to("loop")
    (folder / "full").mkdir()
    (folder / "full/thesis.tex").write_text("")
    return folder


@pytest.fixture
def at_course(course, monkeypatch):
    """The course in the place of the real one; no data set but the bundled ones, and nobody answers."""
    monkeypatch.setattr(labs, "NOTEBOOKS", course / "notebooks")
    monkeypatch.setattr(data, "PROJECT_ROOT", course)
    monkeypatch.setattr(data, "any_answers", lambda urls: False)
    monkeypatch.delenv("LABS_DATA_DIR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(course)
    return course


def refused(capsys, arguments):
    """Run the command line; return its exit code and its last line of error, the only one but for argparse's usage."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(("usage: ", "  "))]
    assert "Traceback" not in out + err and len(lines) == 1, err
    return code, lines[0]


USAGE = [
    ([], ["labs: error", "required"]),
    (["dance"], ["'dance'", "run", "doctor"]),
    (["--wrong"], ["labs: error"]),
    (["run", "03_vea"], ["'03_vea'", "01_good"]),
    (["run", ""], ["''", "01_good"]),
    (["run", "../01_good"], ["'../01_good'", "01_good"]),
    (["run", "01_good.ipynb"], ["'01_good.ipynb'", "01_good"]),
    (["run", "01_good", "--wrong"], ["--wrong"]),
    (["run", "01_good", "-p", "epoch", "3"], ["01_good", "'epoch'", "epochs"]),
    (["run", "01_good", "-p", "", "3"], ["01_good", "''", "epochs"]),
    (["run", "01_good", "-p", "epochs"], ["-p", "2 arguments"]),
    (["run", "01_good", "-p", "epochs", "ten"], ["epochs ten", "int"]),
    (["run", "01_good", "-p", "epochs", "2.5"], ["epochs 2.5", "int"]),
    (["run", "01_good", "-p", "epochs", ""], ["epochs", "int"]),
    (["run", "01_good", "-p", "epochs", "1e3"], ["epochs 1e3", "int"]),
    (["run", "01_good", "-p", "rate", "fast"], ["rate fast", "float"]),
    (["run", "01_good", "-p", "rate", "0.1 0.2"], ["rate 0.1 0.2", "float"]),
    (["run", "01_good", "-p", "pretrained", "maybe"], ["pretrained maybe", "bool"]),
    (["run", "01_good", "-p", "pretrained", "1"], ["pretrained 1", "bool"]),
    (["run", "01_good", "-p", "out_dir", "x"], ["out_dir", "--out"]),
    (["run", "01_good", "--device", "gpu"], ["'gpu'", "cpu"]),
    (["run", "01_good", "--device", ""], ["device=''", "cpu"]),
    (["run", "01_good", "--device", "cuda"], ["'cuda'", "cpu"]),
    (["run", "01_good", "--device", "cuda:x"], ["'cuda:x'", "cpu"]),
    (["run", "--jobs", "0"], ["--jobs", "'0'", "at least 1"]),
    (["run", "--jobs", "two"], ["--jobs", "'two'", "at least 1"]),
    (["run", "--jobs", "1.5"], ["--jobs", "'1.5'", "at least 1"]),
    (["run", "--jobs", "²"], ["--jobs", "'²'", "at least 1"]),
    (["run", "--timeout", "-1"], ["--timeout", "'-1'", "at least 1"]),
    (["run", "--timeout", ""], ["--timeout", "''", "at least 1"]),
    (["run", "--quick", "01_good"], ["quick.yml", "git checkout"]),
    (["list", "nothing"], ["'nothing'", "01_good"]),
    (["list", "01_good", "02_unclosed"], ["02_unclosed"]),
    (["list"], ["is not a notebook", "git checkout"]),
    (["list", "03_text"], ["03_text.ipynb is not a notebook", "git checkout"]),
    (["list", "04_list"], ["04_list.ipynb is not a notebook", "git checkout"]),
    (["list", "05_empty"], ["05_empty.ipynb is not a notebook", "git checkout"]),
    (["list", "06_object"], ["06_object.ipynb is not a notebook", "git checkout"]),
    (["refresh", "nothing"], ["'nothing'", "01_good"]),
    (["refresh", "01_good", "-p", "epochs", "1"], ["-p"]),
    (["release"], ["DIR"]),
    (["release", "full"], ["full", "name a new one"]),
    (["release", "a_file"], ["a_file", "name a new one"]),
    (["release", "a_file/below", "01_good"], ["a_file/below", "cannot be made", "name another one"]),
    (["release", "new", "nothing"], ["'nothing'", "01_good"]),
    (["release", "new", "02_unclosed"], ["02_unclosed", "### BEGIN SOLUTION", "END"]),
    (["release", "new", "03_text"], ["03_text.ipynb is not a notebook", "git checkout"]),
    (["release", "new", "06_object"], ["06_object.ipynb is not a notebook", "git checkout"]),
    (["data", "mnits"], ["'mnits'", "mnist"]),
    (["data", "mnist", ""], ["''", "mnist"]),
    (["data", "folder:"], ["folder:", "folder:PATH"]),
    (["data", "--to", "full"], ["--to", "full", "mnist"]),
    (["data", "mnist", "--to", "full"], ["full", "thesis.tex", "for data sets alone"]),
    (["data", "mnist", "--to", "a_file"], ["a_file", "not a folder"]),
    (["data", "--all"], ["--all"]),
    (["doctor", "me"], ["me"]),
    (["run", "-f", "nothing.yml"], ["-f nothing.yml", "cannot be read as YAML"]),
    (["run", "01_good", "-p", "epochs", "1,,2"], ["epochs 1,,2", "nothing beside a comma"]),
    (["run", "01_good", "--check", "-p", "rate", "0.5"], ["--check", "01_good sets rate"]),
    (["run", "01_good", "--scheduler", "127.0.0.1:1", "--jobs", "2"], ["--jobs", "--scheduler"]),
    (["report"], ["DIR"]),
    (["report", "nothing"], ["nothing is not a folder", "runs/quick"]),
    (["report", "notebooks"], ["there are no runs in", "runs/quick"]),
    (["bands", "nothing"], ["profile"]),
    (["bands", "nothing", "slow"], ["'slow'", "quick"]),
    (["bands", "nothing", "quick"], ["no runs that went well in", "nothing", "labs run --quick"]),
    *[([*arguments, path], [repr(path), reason, "name another folder"])
      for arguments in (["run", "--out"], ["report"], ["bands"], ["release"], ["data", "mnist", "--to"])
      for path, reason in (("~nobody_here/x", "home directory"), ("loop/x", "loop"), ("x" * 300, "File name too long"))],
]


@pytest.mark.parametrize("arguments, parts", USAGE, ids=lambda value: " ".join(value)[:80] if value else "nothing")
def test_a_bad_command_is_one_line_and_2(at_course, capsys, arguments, parts):
    before = sorted(at_course.rglob("*"))
    code, line = refused(capsys, arguments)
    assert code == 2 and all(part in line for part in parts), line
    assert sorted(at_course.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("arguments, parts", [
    (["data", "mnist"], ["'mnist'", "no server answers", 'dataset="digits"']),
    (["data", "celeba"], ["'celeba'", "no server answers", 'dataset="faces"']),
    (["data", "folder:nothing"], ["nothing does not exist", 'dataset="faces"']),
    (["data", "folder:~nobody-of-this-name"], ["~nobody-of-this-name does not exist"]),
    (["data", "mnist", "--to", "a_file/below"], ["cannot create the folder", "a_file/below", "another one"]),
])
def test_what_cannot_be_had_is_one_line_and_1(at_course, capsys, arguments, parts):
    code, line = refused(capsys, arguments)
    assert code == 1 and all(part in line for part in parts), line


def test_a_lab_that_is_no_notebook_fails_by_its_name_and_the_others_run(at_course, capsys):
    code, line = refused(capsys, ["run", "03_text", "--out", "new"])
    assert code == 1 and "03_text: failed" in line and "03_text.ipynb is not a notebook; restore it with git checkout" in line


def test_so_it_does_before_a_cluster_is_asked(at_course, capsys, tmp_path):
    pytest.importorskip("distributed")
    code, line = refused(capsys, ["run", "03_text", "--scheduler", "127.0.0.1:1", "--out", str(tmp_path / "out")])
    assert code == 1 and "03_text: failed" in line and "03_text.ipynb is not a notebook" in line
    assert json.loads((tmp_path / "out/03_text/run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("name", ["03_text", "04_list", "06_object"])
def test_what_is_no_notebook_is_not_refreshed(at_course, capsys, name):
    code, line = refused(capsys, ["refresh", "01_good", name])
    assert code == 2 and f"{name}.ipynb is not a notebook" in line


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@quick
@given(text=words, command=st.sampled_from([["run"], ["list"], ["refresh"], ["data"], ["release", "new"], ["dance"],
                                            ["run", "01_good", "--device"], ["run", "01_good", "--jobs"]]))
def test_any_text_as_an_argument_is_refused(at_course, capsys, text, command):
    assume(not re.match("-{1,2}h|--$|auto|cpu", text) and not (text.isdecimal() and int(text)))
    code, line = refused(capsys, [*command, text])
    assert code == 2


@quick
@given(text=words, type_name=st.sampled_from(["int", "float", "bool", "str"]))
def test_any_text_as_a_value_has_the_parameters_type_or_is_refused(text, type_name):
    try:
        value = labs.parse_value("name", text, type_name, "-p")
    except labs.UsageError as error:
        assert repr(text)[1:-1] in repr(str(error)) and type_name in str(error)
    else:
        assert value is None or type(value).__name__ == type_name


# ------------------------------------------------------------------------------------- the loaders

@pytest.mark.parametrize("arguments, parts", [
    ({"name": "mnits"}, ["'mnits'", "mnist"]),
    ({"name": ""}, ["''", "mnist"]),
    ({"name": None}, ["None", "mnist"]),
    ({"name": 5}, ["data set 5", "mnist"]),
    ({"name": ["mnist"]}, ["['mnist']", "mnist"]),
    ({"name": "folder:"}, ["'folder:'", "folder:PATH"]),
    ({"batch_size": 0}, ["batch_size=0", "at least 1"]),
    ({"batch_size": -3}, ["batch_size=-3"]),
    ({"batch_size": 2.5}, ["batch_size=2.5"]),
    ({"batch_size": "64"}, ["batch_size='64'"]),
    ({"batch_size": None}, ["batch_size=None"]),
    ({"batch_size": True}, ["batch_size=True"]),
    ({"limit": 0}, ["limit=0", "None for all images"]),
    ({"limit": "all"}, ["limit='all'", "None for all images"]),
    ({"limit": float("nan")}, ["limit=nan", "None for all images"]),
    ({"image_range": None}, ["image_range=None", "(0, 1)"]),
    ({"image_range": 5}, ["image_range=5", "(0, 1)"]),
    ({"image_range": "01"}, ["image_range='01'", "(0, 1)"]),
    ({"image_range": (1, 0)}, ["image_range=(1, 0)", "low < high"]),
    ({"image_range": (0, 0)}, ["image_range=(0, 0)", "low < high"]),
    ({"image_range": (0, 1, 2)}, ["image_range=(0, 1, 2)", "(0, 1)"]),
    ({"image_range": (0, float("inf"))}, ["inf", "(0, 1)"]),
    ({"image_range": (float("nan"), 1)}, ["nan", "(0, 1)"]),
    ({"image_range": ("a", "b")}, ["('a', 'b')", "(0, 1)"]),
    ({"device": "gpu"}, ["device='gpu'", 'device="auto"']),
    ({"device": "meta"}, ["device='meta'", 'device="auto"']),
    ({"device": None}, ["device=None", 'device="auto"']),
    ({"seed": "0"}, ["seed='0'", "whole number"]),
    ({"seed": 1.5}, ["seed=1.5", "whole number"]),
    ({"seed": None}, ["seed=None", "whole number"]),
    ({"seed": -1}, ["seed=-1", "whole number"]),
    ({"seed": 2**70}, [f"seed={2**70}", "whole number"]),
    ({"image_shape": (3, 28, 28)}, ["dataset='digits'", "(1, 28, 28)", "(3, 28, 28)"]),
    ({"image_shape": 784}, ["(1, 28, 28)", "784"]),
])
def test_get_loaders_names_the_argument(arguments, parts):
    with pytest.raises(ValueError) as error:
        get_loaders(**{"name": "digits", **arguments})
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value), str(error.value)


def idx(shape, content=b"", kind=8):
    return bytes((0, 0, kind, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + content


@pytest.mark.parametrize("content", [
    b"", b"\0", b"\0\0\x08\x03", idx((2,), b"12"), idx((1, 2, 2), b"123"), idx((1, 2, 2), b"12345"), idx((1, 2, 2), b"1234", kind=13),
    idx((2**32 - 1, 2**32 - 1, 2**32 - 1)), idx((2**31, 2**31, 4)), b"<html>not found</html>",
], ids=lambda content: repr(content[:20]))
@pytest.mark.parametrize("name, ending", [("mnist", ""), ("kmnist", ""), ("mnist", ".gz"), ("kmnist", ".gz")])
def test_a_file_that_is_no_idx_file_is_named(tmp_path, name, ending, content):
    path = tmp_path / f"{FILES[0]}{ending}"
    path.write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(DatasetError) as error:
        read_idx(tmp_path, name, FILES[0])
    assert str(path) in str(error.value) and "delete it and run again" in str(error.value) and "\n" not in str(error.value)


@quick
@given(content=st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda rest: b"\0\0\x08\x03" + rest),
                         st.binary(max_size=60).map(lambda rest: b"\x1f\x8b\x08" + bytes(7) + rest),
                         st.binary(max_size=60).map(lambda rest: gzip.compress(rest)[:-1])),
       name=st.sampled_from(sorted(IDX_SOURCES)), ending=st.sampled_from(["", ".gz"]))
def test_random_bytes_are_an_idx_file_or_a_named_error(tmp_path, content, name, ending):
    path = tmp_path / f"{FILES[0]}{ending}"
    path.write_bytes(content)
    try:
        images = read_idx(tmp_path, name, FILES[0])
    except DatasetError as error:
        assert str(path) in str(error)
    else:
        assert name == "kmnist" and not ending and content[16:] == images.tobytes()
    finally:
        path.unlink()


def png(shape=(20, 20)):
    import cv2
    return cv2.imencode(".png", np.full(shape, 7, np.uint8))[1].tobytes()


def png_that_claims(width, height):
    """A PNG file whose header claims a size, with a correct checksum, and no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    begin = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return begin + struct.pack(">I", 10) + b"IDAT"


@pytest.mark.parametrize("content", [b"", b"no picture", png()[:60], png()[:30], png_that_claims(2**31 - 1, 2**31 - 1),
                                     png_that_claims(0, 0), png_that_claims(200, 200), png_that_claims(20_000, 20_000), pickle.dumps([1]), b"GIF89a", b"BM" + bytes(60)],
                         ids=lambda content: repr(content[:12]))
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp", ".ppm"])
def test_files_that_are_no_pictures_are_skipped_by_name(tmp_path, capsys, content, ending):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / f"bad{ending}").write_bytes(content)
    assert len(load_dataset(f"folder:{tmp_path}")[0]) == 1
    assert f"1 file(s) skipped that cannot be read as pictures: bad{ending}" in capsys.readouterr().out


def pictures():
    """Whole pictures in several formats, by their ending."""
    import io

    from PIL import Image
    found, picture = {}, Image.fromarray(np.arange(300).astype(np.uint8).reshape(10, 10, 3))
    turned = Image.Exif()
    turned[0x0112], turned[0x8298] = 6, "nobody"       # orientation, copyright
    for ending, form in (("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF"), ("webp", "WEBP"), ("bmp", "BMP"), ("ppm", "PPM")):
        file = io.BytesIO()
        picture.save(file, form, exif=turned)
        found[ending] = file.getvalue()
    return found


PICTURES = pictures()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(quick, max_examples=300)
@given(ending=st.sampled_from(sorted(PICTURES)), where=st.floats(0, 1), patch=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_a_picture_that_is_altered_anywhere_is_read_or_skipped(tmp_path, ending, where, patch, cut):
    content = PICTURES[ending]
    start = int(where * len(content))
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content[:start] if cut else content[:start] + patch + content[start + len(patch):])
    picture = data.read_picture(path)
    assert picture is None or (picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3)


# ------------------------------------------------------------------------------------- checkpoints

class Boobytrap:
    """What a pickle can hold: loading it runs code."""

    def __reduce__(self):
        return exec, ("import sys; sys.boobytrap = True",)


def safetensors_file(header, content=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + content


def with_config(config, tensors=None):
    return safetensors_file({"__metadata__": {"config": config}, **(tensors or {})})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a good checkpoint of `nn.Linear(3, 2)` as `net`."""
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    return save_checkpoint(path, config={"epochs": 3}, net=nn.Linear(3, 2)).read_bytes()


BAD_CHECKPOINTS = {
    "empty": b"", "one byte": b"\0", "a header as long as the universe": b"\xff" * 8 + b"{}",
    "a header that is no JSON": safetensors_file(b"not json"), "a header that is a list": safetensors_file(b"[]"),
    "a header that is no UTF-8": safetensors_file(b"\xff\xfe"), "a header without end": safetensors_file(b"{" * 1000),
    "no config": safetensors_file({}), "a config that is no JSON": with_config("{"), "a config that is a list": with_config("[1]"),
    "a config that is a number": with_config("5"), "a config as deep as a well": with_config("[" * 100_000),
    "a config that is no text": safetensors_file({"__metadata__": {"config": 5}}),
    "no tensors": with_config("{}"),
    "tensors beyond the end": with_config("{}", {"net/weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}),
    "an unknown type": with_config("{}", {"net/weight": {"dtype": "X9", "shape": [], "data_offsets": [0, 4]}}),
    "a negative shape": with_config("{}", {"net/weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
    "a pickle": pickle.dumps(Boobytrap()), "an old pickle": pickle.dumps(Boobytrap(), 0),
    "a zip": b"PK\x03\x04" + bytes(100), "text": b"weights, please", "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


def check_refused(path, network, before):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, net=network)
    assert str(path) in str(error.value) and "pretrained=False" in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), before)), "nothing is loaded"


@pytest.mark.parametrize("how", BAD_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_named_and_runs_no_code(tmp_path, how):
    path, network = tmp_path / "net.pt", nn.Linear(3, 2)     # torch.load would not unpickle a net.safetensors
    path.write_bytes(BAD_CHECKPOINTS[how])
    check_refused(path, network, [tensor.clone() for tensor in network.state_dict().values()])
    assert not hasattr(sys, "boobytrap")


@pytest.mark.parametrize("saved", [Boobytrap(), {"net/weight": torch.zeros(2, 3)}, nn.Linear(3, 2)], ids=["trap", "tensors", "module"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_or_numpy_saves_is_refused_and_runs_no_code(tmp_path, saved, zipped):
    path, network = tmp_path / "net.pt", nn.Linear(3, 2)
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    before = [tensor.clone() for tensor in network.state_dict().values()]
    check_refused(path, network, before)
    np.save(path.with_suffix(".npy"), np.array([Boobytrap()], dtype=object), allow_pickle=True)
    check_refused(path.with_suffix(".npy"), network, before)
    assert not hasattr(sys, "boobytrap")


@pytest.mark.parametrize("network, part", [
    (nn.Linear(4, 2), "(2, 3) in the file and (2, 4) in the module"), (nn.Linear(3, 5), "(5, 3) in the module"),
    (nn.Linear(3, 2, bias=False), "the module has no tensor 'bias'"), (nn.Sequential(nn.Linear(3, 2)), "the file has no tensor '0.weight'"),
])
def test_weights_of_another_shape_are_named(tmp_path, whole, network, part):
    path = tmp_path / "net.safetensors"
    path.write_bytes(whole)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, net=network)
    assert part in str(error.value) and "'epochs': 3" in str(error.value) and "pretrained=False" in str(error.value)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", None])
def test_a_device_that_is_not_there_is_no_fault_of_the_file(tmp_path, whole, device):
    (tmp_path / "net.safetensors").write_bytes(whole)
    with pytest.raises(ValueError) as error:
        load_checkpoint(tmp_path / "net.safetensors", device=device, net=nn.Linear(3, 2))
    assert f"device={device!r}" in str(error.value) and 'device="auto"' in str(error.value)


@quick
@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(safetensors_file)))
def test_random_bytes_are_no_checkpoint(tmp_path, content):
    path, network = tmp_path / "net.safetensors", nn.Linear(3, 2)
    path.write_bytes(content)
    check_refused(path, network, [tensor.clone() for tensor in network.state_dict().values()])


@settings(quick, max_examples=200)
@given(where=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_a_checkpoint_that_is_altered_anywhere_is_loaded_whole_or_refused(tmp_path, whole, where, value, cut):
    start = int(where * len(whole))
    content = whole[:start] if cut else whole[:start] + bytes([value]) + whole[start + 1:]
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    try:
        assert isinstance(load_checkpoint(path, net=nn.Linear(3, 2)), dict)
    except CheckpointError as error:
        assert str(path) in str(error)


def test_settings_that_json_cannot_hold_leave_no_file(tmp_path):
    with pytest.raises(TypeError, match="Tensor is not JSON serializable"):
        save_checkpoint(tmp_path / "a.safetensors", config={"loss": torch.zeros(1)}, net=nn.Linear(3, 2))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- pictures, seeds, devices, counts

IMAGES = torch.zeros(4, 8, 8)
BYTES = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize("call, part", [
    (lambda path: collage(None, 2), "dtype object"),
    (lambda path: collage("pictures", 2), "array of real numbers"),
    (lambda path: collage([[1, 2], [3]], 2), "inhomogeneous"),
    (lambda path: collage(IMAGES + 1j, 2), "complex"),
    (lambda path: collage(IMAGES / 0, 2), "not finite"),
    (lambda path: collage(IMAGES[0], 2), "(8, 8)"),
    (lambda path: collage(IMAGES[:0], 2), "(0, 1, 8, 8)"),
    (lambda path: collage(IMAGES[None], 2), "(1, 4, 8, 8)"),
    (lambda path: collage(torch.zeros(()), 2), "()"),
    (lambda path: collage(IMAGES, 0), "n_cols=0"),
    (lambda path: collage(IMAGES, -2), "n_cols=-2"),
    (lambda path: collage(IMAGES, 2.0), "n_cols=2.0"),
    (lambda path: collage(IMAGES, "2"), "n_cols='2'"),
    (lambda path: collage(IMAGES, None), "n_cols=None"),
    (lambda path: collage(IMAGES, True), "n_cols=True"),
    (lambda path: collage(IMAGES, 2, scale=0), "scale=0"),
    (lambda path: collage(IMAGES, 2, scale="large"), "scale='large'"),
    (lambda path: collage(IMAGES, 2, image_range=(1, 0)), "image_range=(1, 0)"),
    (lambda path: collage(IMAGES, 2, image_range=(0, 0)), "image_range=(0, 0)"),
    (lambda path: collage(IMAGES, 2, image_range=None), "image_range=None"),
    (lambda path: to_uint8(IMAGES, (0, 1, 2)), "image_range=(0, 1, 2)"),
    (lambda path: to_uint8(BYTES, "ab"), "image_range='ab'"),
    (lambda path: to_uint8(IMAGES, (0, float("inf"))), "inf"),
    (lambda path: to_uint8({"image": 1}), "dtype object"),
    (lambda path: save_image(path / "a.png", None), "uint8"),
    (lambda path: save_image(path / "a.png", IMAGES), "float32"),
    (lambda path: save_image(path / "a.png", BYTES[0]), "(4,)"),
    (lambda path: save_image(path / "a.png", BYTES[:0]), "(0, 4)"),
    (lambda path: save_image(path / "a.png", np.zeros((4, 4, 2), np.uint8)), "(4, 4, 2)"),
    (lambda path: save_image(path / "a.png", np.zeros((4, 4, 4), np.uint8)), "(4, 4, 4)"),
    (lambda path: save_image(path / "a.png", np.zeros((4, 4, 1), np.uint8)), "(4, 4, 1)"),
    (lambda path: save_image(path / "a.xyz", BYTES), "'.xyz'; take .png"),
    (lambda path: save_image(path / "a", BYTES), "''; take .png"),
    (lambda path: show(IMAGES), "use to_uint8 or collage first"),
    (lambda path: show("a.png"), "use to_uint8 or collage first"),
    *[(lambda path, seed=seed: seed_everything(seed), f"seed={seed!r}: must be a whole number")
      for seed in (-1, 2**32, 0.5, "0", None, True, float("nan"), [1])],
    *[(lambda path, device=device: get_device(device), f"device={device!r}: not to be had here")
      for device in ("gpu", "cuda:99", "cuda:x", "", "cpu ", "meta", None, 5, [1])],
    *[(lambda path, value=value: require_positive(epochs=value), f"epochs={value!r}: must be a whole number of at least 1")
      for value in (0, -1, 0.5, "10", None, True, float("nan"), float("inf"))],
])
def test_a_bad_argument_is_a_value_error_that_names_it(tmp_path, call, part):
    with pytest.raises(ValueError) as error:
        call(tmp_path)
    assert part in str(error.value) and len(str(error.value).splitlines()) == 1, str(error.value)
    assert list(tmp_path.iterdir()) == []


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3))


@quick
@given(value=anything)
def test_any_value_is_taken_or_named(value):
    for call, name in ((seed_everything, "seed"), (get_device, "device"), (lambda v: require_positive(epochs=v), "epochs"),
                       (lambda v: collage(IMAGES, v), "n_cols"), (lambda v: to_uint8(IMAGES, v), "image_range"),
                       (lambda v: get_loaders("digits", v), "batch_size")):
        if name == "n_cols" and isinstance(value, int) and value > 1000:
            continue    # a sheet so wide is a matter of memory
        try:
            call(value)
        except ValueError as error:
            assert f"{name}={value!r}" in str(error)
