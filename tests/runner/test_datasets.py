"""`labs data`: which data sets are here, and fetching them, into a shared folder too."""

import hashlib
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import no_proxy, write_picture

from labutils.data import SOURCES, load_dataset
from labutils.data.idx import FILES
from labutils.instructor import cli, datasets


def labs(capsys, *arguments):
    """Run `labs data`; return its exit code, lines of output by their first word, and errors."""
    code = cli.main(["data", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, {line.split()[0]: line for line in out.splitlines()}, err


def examine(name):
    return datasets.examine(SOURCES[name])


@pytest.fixture
def here(tiny, tmp_path, offline, monkeypatch):
    """The tiny MNIST in LABS_DATA_DIR, and nothing else: the folder of its files."""
    monkeypatch.setenv("LABS_DATA_DIR", str(tmp_path))
    return tiny[0]


# --------------------------------------------------------------------------------------- what is here

def test_the_report_says_of_each_data_set_whether_it_is_here(here, no_data, capsys):
    code, lines, err = labs(capsys)
    assert code == 0 and err == ""
    assert set(lines) == {"digits", "faces", "mnist", "fashion", "kmnist", "celeba", "looked"}
    size = sum(path.stat().st_size for path in here.iterdir()) / 1e6
    assert "verified" in lines["mnist"] and f"{size:.1f} MB in {here}" in lines["mnist"]
    for name in ("digits", "faces"):
        assert "comes with the project" in lines[name]
    for name in ("fashion", "kmnist", "celeba"):
        assert "missing" in lines[name] and f"'labs data {name}'" in lines[name]
    assert str(here.parents[1]) in lines["looked"] and str(no_data / "data") in lines["looked"]


def test_a_data_folder_that_does_not_exist_is_not_skipped(here, no_data, monkeypatch, capsys):
    monkeypatch.setenv("LABS_DATA_DIR", "/no/such/folder")
    for arguments, code in (([], 2), (["mnist"], 1)):
        found, lines, err = labs(capsys, *arguments)
        assert found == code and not lines and err.count("\n") == 1 and "LABS_DATA_DIR='/no/such/folder'" in err


@pytest.mark.parametrize("names", [[], ["mnist"]])
def test_a_damaged_set_is_named_with_its_file_and_ends_with_1(here, capsys, names):
    (here / FILES[2]).write_bytes(b"no IDX file")
    code, lines, err = labs(capsys, *names)
    message = err if names else lines["mnist"]
    assert code == 1 and FILES[2] in message and "delete it" in message
    assert not names or (err.count("\n") == 1 and "mnist" not in lines)


def test_labels_without_their_images_are_damage(here, monkeypatch):
    files = [here / file for file in FILES]
    shutil.copy(files[3], files[1])         # four labels for six images
    monkeypatch.setattr(SOURCES["mnist"], "md5", tuple(hashlib.md5(file.read_bytes()).hexdigest() for file in files))
    assert examine("mnist").verdict == "damaged" and "6 images" in examine("mnist").remark


def test_a_set_whose_checksums_are_not_published_is_said_to_be_verified_in_part(here):
    shutil.move(here.parent, here.parents[1] / "KMNIST")
    state = examine("kmnist")
    assert state.verdict == "verified" and "headers and lengths only" in state.remark
    assert examine("mnist").verdict == "missing"


def test_three_files_of_four_are_no_data_set_and_the_fourth_is_named(here, capsys):
    (here / FILES[1]).unlink()
    code, lines, _ = labs(capsys)
    assert code == 0 and lines["mnist"].split()[1] == "missing"
    assert f"{here} lacks {FILES[1]}; 'labs data mnist' fetches it into {here}" in lines["mnist"]
    assert "lacks" not in lines["fashion"]


def test_the_proxy_of_downloads_is_named_without_its_password(here, monkeypatch, capsys):
    no_proxy(monkeypatch)
    assert "downloads" not in labs(capsys)[1]
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example.org:3128/")
    assert labs(capsys)[1]["downloads"] == "downloads go through the proxy proxy.example.org:3128"


@pytest.mark.parametrize("how", ["whole", "table", "picture"])
def test_celeba_is_verified_to_the_last_picture(celeba, monkeypatch, how):
    monkeypatch.setenv("LABS_DATA_DIR", str(celeba))
    if how == "table":
        (celeba / "celeba/list_bbox_celeba.txt").unlink()
    if how == "picture":
        (celeba / "celeba/img_align_celeba/000005.jpg").unlink()
    state = examine("celeba")
    assert state.verdict == ("verified" if how == "whole" else "damaged") and state.folder == celeba / "celeba"
    assert how != "picture" or "lacks 1 of 9 pictures" in state.remark


def without_rights(*arguments):
    """Run `labs data` in a process of a user who is not root; return its exit code."""
    def run(queue):
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        queue.put(cli.main(["data", *arguments]))
        queue.close()
        queue.join_thread()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=run, args=(queue,))
    process.start()
    code = queue.get(timeout=60)
    process.join(60)
    return code


@pytest.fixture
def closed(no_data, offline, monkeypatch):
    """A data folder that every user can reach, since pytest's own folders are closed; the test takes rights away."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "closed")
        folder.mkdir()
        monkeypatch.setenv("LABS_DATA_DIR", str(folder))
        monkeypatch.setattr("labutils.data.source.PROJECT_ROOT", Path(name))
        yield folder
        folder.chmod(0o700)


def test_a_folder_that_may_not_be_read_is_named(closed, capfd):
    closed.chmod(0o000)
    assert without_rights("mnist") == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "may not be read" in err and str(closed) in err and "LABS_DATA_DIR" in err


def test_a_folder_that_may_only_be_read_serves_its_sets_and_takes_no_other(tiny, closed, monkeypatch, capfd):
    monkeypatch.setattr("labutils.data.source.why_silent", lambda urls: "")
    shutil.copytree(tiny[0], closed / "MNIST/raw")
    for folder in (closed / "MNIST/raw", closed / "MNIST", closed):
        folder.chmod(0o555)
    assert without_rights("mnist") == 0
    out, err = capfd.readouterr()
    assert "verified" in out and err == ""
    assert without_rights("fashion") == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and f"you may not write to {closed}" in err and "name another folder" in err


# ------------------------------------------------------------------------------------------- fetching

def test_a_set_is_downloaded_once_and_verified(mirror, monkeypatch, capsys):
    root, _, log = mirror
    monkeypatch.setenv("LABS_DATA_DIR", str(root))
    code, lines, _ = labs(capsys, "mnist", "digits", "mnist")
    assert code == 0 and "verified" in lines["mnist"] and str(root / "MNIST") in lines["mnist"] and "digits" in lines
    n_requests = len(log)
    assert n_requests and labs(capsys, "mnist")[0] == 0 and len(log) == n_requests


def test_what_cannot_be_fetched_is_one_line_with_the_way_out_and_the_others_go_on(here, capsys):
    code, lines, err = labs(capsys, "fashion", "mnist")
    assert code == 1 and "verified" in lines["mnist"] and "fashion" not in lines
    assert err.count("\n") == 1 and err.startswith("labs data: fashion: ")
    assert "no server answers" in err and 'dataset="digits"' in err


@pytest.mark.parametrize("arguments, parts", [
    (["mnits"], ["'mnits'", "mnist", "celeba"]),
    (["mnist", "MNIST"], ["'MNIST'", "mnist"]),
    (["folder"], ["'folder'", "folder:PATH"]),
    (["--to", "somewhere"], ["--to", "somewhere", "mnist"]),
    (["mnist", "--to", __file__], [__file__, "is not a folder"]),
])
def test_bad_usage_ends_with_2_before_anything_is_fetched(here, monkeypatch, capsys, arguments, parts):
    monkeypatch.setattr(datasets, "fetch_one", lambda *_: pytest.fail("fetched"))
    code, lines, err = labs(capsys, *arguments)
    assert code == 2 and not lines and err.count("\n") == 1 and all(part in err for part in parts), err


def test_a_folder_of_pictures_is_read(tmp_path, capsys):
    for grey in (0, 100, 200):
        write_picture(tmp_path / "album" / f"{grey}.png", np.full((9, 9), grey, np.uint8))
    assert labs(capsys, f"folder:{tmp_path / 'album'}")[0] == 0
    code, _, err = labs(capsys, f"folder:{tmp_path / 'nothing'}")
    assert code == 1 and "does not exist" in err


# ---------------------------------------------------------------------------------- a shared folder

def test_a_set_that_is_here_is_copied_into_a_shared_folder_once(here, tmp_path, capsys):
    shared = tmp_path / "new" / "shared"
    code, lines, err = labs(capsys, "mnist", "--to", shared)
    assert code == 0 and err == "" and str(shared / "MNIST/raw") in lines["mnist"]
    assert load_dataset("mnist", shared)[0].shape == (6, 1, 28, 28)
    before = {path: path.stat().st_ctime_ns for path in (shared, *shared.rglob("*"))}
    assert labs(capsys, "mnist", "--to", shared)[0] == 0
    assert before == {path: path.stat().st_ctime_ns for path in (shared, *shared.rglob("*"))}


def test_a_copy_has_the_usual_names_and_nothing_but_the_set(here, tmp_path, capsys):
    root = here.parents[1]
    for file in FILES:
        (here / file).rename(root / file.replace("-idx", ".idx"))
    (root / "notes.txt").write_text("no part of the set")
    size = sum(path.stat().st_size for path in root.glob("*.idx*"))
    code, lines, _ = labs(capsys, "mnist")
    assert code == 0 and f"{size / 1e6:.1f} MB in {root}" in lines["mnist"]
    assert labs(capsys, "mnist", "--to", tmp_path / "shared")[0] == 0
    files = {path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()}
    assert files == {*FILES, ".mnist.lock"}


def test_a_set_that_is_not_here_is_downloaded_into_a_shared_folder(mirror, tmp_path, capsys):
    code, lines, _ = labs(capsys, "mnist", "--to", tmp_path / "shared")
    assert code == 0 and "verified" in lines["mnist"] and str(tmp_path / "shared/MNIST/raw") in lines["mnist"]


@pytest.mark.parametrize("name, file", [("mnist", f"MNIST/raw/{FILES[1]}"), ("celeba", "celeba/list_attr_celeba.txt")])
def test_a_set_with_a_missing_file_is_completed(here, celeba, tmp_path, capsys, name, file):
    shared = tmp_path / "shared"
    assert labs(capsys, name, "--to", shared)[0] == 0
    (shared / file).unlink()
    code, lines, err = labs(capsys, name, "--to", shared)
    assert (code, err) == (0, "") and "verified" in lines[name] and str(shared) in lines[name]


def test_a_damaged_copy_is_not_copied(here, tmp_path, capsys):
    (here / FILES[0]).write_bytes(b"x")
    code, _, err = labs(capsys, "mnist", "--to", tmp_path / "shared")
    assert code == 1 and FILES[0] in err and not (tmp_path / "shared/MNIST").exists()


def test_a_folder_that_cannot_be_written_to_is_named(here, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, _, err = labs(capsys, "mnist", "--to", tmp_path / "file" / "below")
    assert code == 1 and err.count("\n") == 1 and "cannot create" in err and str(tmp_path / "file" / "below") in err
