"""`labs data`: what is here, what is fetched, and a folder that a class shares."""

import hashlib
import multiprocessing
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from helpers import needs_mnist
from filelock import FileLock
from test_data import celeba, mirror, tiny      # noqa: F401 (fixtures)

from labutils import data
from labutils.data import FILES, IdxSource, find_idx
from labutils.instructor import cli, datasets
from labutils.instructor.datasets import examine


def labs(capsys, *arguments):
    """Run `labs data`; return its exit code, lines of output by their first word, and errors."""
    code = cli.main(["data", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, {line.split()[0]: line for line in out.splitlines()}, err


@pytest.fixture
def here(tiny, monkeypatch):            # noqa: F811
    """The tiny MNIST of test_data.py in LABS_DATA_DIR, and nothing else: its folder."""
    root, folder, _ = tiny
    monkeypatch.setenv("LABS_DATA_DIR", str(root))
    monkeypatch.setattr(data, "any_answers", lambda urls: False)
    return folder


def modes(root):
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}


def stamps(root):
    return {path: path.stat().st_ctime_ns for path in (root, *root.rglob("*"))}


# --------------------------------------------------------------------------------------- what is here

def test_each_data_set_is_said_to_be_here_or_missing(here, capsys):
    code, lines, err = labs(capsys)
    assert code == 0 and err == ""
    assert set(lines) == {"digits", "faces", "mnist", "fashion", "kmnist", "celeba", "looked"}
    size = sum(path.stat().st_size for path in here.iterdir()) / 1e6
    assert "verified" in lines["mnist"] and f"{size:.1f} MB in {here}" in lines["mnist"]
    for name in ("digits", "faces"):
        assert "comes with the project" in lines[name]
    for name in ("fashion", "kmnist", "celeba"):
        assert "missing" in lines[name] and f"'labs data {name}'" in lines[name]
    assert str(here.parents[1]) in lines["looked"] and str(data.PROJECT_ROOT / "data") in lines["looked"]


@pytest.mark.parametrize("named", [[], ["mnist"]])
def test_a_damaged_set_is_named_with_its_file_and_ends_with_1(here, capsys, named):
    (here / FILES[2]).write_bytes(b"no IDX file")
    code, lines, err = labs(capsys, *named)
    said = err if named else lines["mnist"]
    assert code == 1 and FILES[2] in said and "delete it" in said
    assert not named or (err.count("\n") == 1 and "mnist" not in lines)


def test_labels_without_their_images_are_damage(here, monkeypatch):
    files = [here / file for file in FILES]
    shutil.copy(files[3], files[1])         # four labels for six images
    sums = tuple(hashlib.md5(file.read_bytes()).hexdigest() for file in files)
    monkeypatch.setitem(data.IDX_SOURCES, "mnist", IdxSource("MNIST", sums))
    assert examine("mnist").verdict == "damaged" and "6 images" in examine("mnist").remark


def test_a_set_whose_checksums_are_not_published_is_said_to_be_verified_in_part(here):
    shutil.move(here.parent, here.parents[1] / "KMNIST")
    state = examine("kmnist")
    assert state.verdict == "verified" and "headers and lengths only" in state.remark
    assert examine("mnist").verdict == "missing"


def test_three_files_of_four_are_no_data_set(here, capsys):
    (here / FILES[1]).unlink()
    assert "missing" in labs(capsys)[1]["mnist"]


@pytest.mark.parametrize("how", ["whole", "table", "picture"])
def test_celeba_is_verified_to_the_last_picture(celeba, monkeypatch, how):        # noqa: F811
    monkeypatch.setenv("LABS_DATA_DIR", str(celeba))
    if how == "table":
        (celeba / "celeba/list_bbox_celeba.txt").unlink()
    if how == "picture":
        (celeba / "celeba/img_align_celeba/000005.jpg").unlink()
    state = examine("celeba")
    assert state.verdict == ("verified" if how == "whole" else "damaged") and state.folder == celeba / "celeba"
    assert how != "picture" or "lacks 1 of 9 pictures" in state.remark


# ------------------------------------------------------------------------------------------- fetching

def test_a_set_is_downloaded_once_and_verified(mirror, monkeypatch, capsys):      # noqa: F811
    root, _, log = mirror
    monkeypatch.setenv("LABS_DATA_DIR", str(root))
    code, lines, _ = labs(capsys, "mnist", "digits", "mnist")
    assert code == 0 and "verified" in lines["mnist"] and str(root / "MNIST") in lines["mnist"] and "digits" in lines
    asked = len(log)
    assert asked and labs(capsys, "mnist")[0] == 0 and len(log) == asked


def test_what_cannot_be_had_is_one_line_with_the_way_out_and_the_others_go_on(here, capsys):
    code, lines, err = labs(capsys, "fashion", "mnist")
    assert code == 1 and "verified" in lines["mnist"] and "fashion" not in lines
    assert err.count("\n") == 1 and err.startswith("labs data: fashion: ") and "no server answers" in err and 'dataset="digits"' in err


@pytest.mark.parametrize("arguments, parts", [
    (["mnits"], ["'mnits'", "mnist", "celeba"]),
    (["mnist", "MNIST"], ["'MNIST'", "mnist"]),
    (["folder"], ["'folder'", "folder:PATH"]),
    (["--to", "somewhere"], ["--to", "somewhere", "mnist"]),
])
def test_bad_usage_ends_with_2_before_anything_is_fetched(here, tmp_path, monkeypatch, capsys, arguments, parts):
    monkeypatch.setattr(datasets, "bring", lambda *_: pytest.fail("fetched"))
    code, lines, err = labs(capsys, *arguments)
    assert code == 2 and not lines and err.count("\n") == 1 and all(part in err for part in parts), err


def test_a_folder_of_pictures_is_read(tmp_path, capsys):
    from test_data import write_picture
    import numpy as np
    for name in "abc":
        write_picture(tmp_path / "album" / f"{name}.png", np.zeros((9, 9), np.uint8))
    assert labs(capsys, f"folder:{tmp_path / 'album'}")[0] == 0
    code, _, err = labs(capsys, f"folder:{tmp_path / 'nothing'}")
    assert code == 1 and "does not exist" in err


# ---------------------------------------------------------------------------------- a shared folder

def test_a_shared_folder_is_for_all_to_read_and_nobody_to_write(here, tmp_path, capsys):
    shared = tmp_path / "new" / "shared"
    shared.parent.mkdir(0o700)
    code, lines, err = labs(capsys, "mnist", "--to", shared)
    assert code == 0 and err == "" and str(shared / "MNIST/raw") in lines["mnist"]
    assert modes(shared) == {".": 0o555, ".labs.lock": 0o644, "MNIST": 0o555, "MNIST/raw": 0o555,
                             **{f"MNIST/raw/{file}": 0o444 for file in FILES}}
    assert f"other users cannot reach {shared}" in lines["note:"]
    assert data.load_dataset("mnist", shared)[0].shape == (6, 1, 28, 28)


def test_a_second_call_touches_nothing(here, tmp_path, capsys):
    labs(capsys, "mnist", "--to", tmp_path / "shared")
    before = stamps(tmp_path / "shared")
    assert labs(capsys, "mnist", "--to", tmp_path / "shared")[0] == 0
    assert stamps(tmp_path / "shared") == before


def test_a_folder_that_holds_the_set_already_is_closed(here, capsys):
    assert labs(capsys, "mnist", "--to", here.parents[1])[0] == 0
    assert set(modes(here.parents[1]).values()) == {0o555, 0o444, 0o644}, "0o644 is the lock's"


def test_another_set_is_added_to_a_closed_folder(here, tmp_path, capsys, monkeypatch):
    shared = tmp_path / "shared"
    shutil.copytree(here.parent, here.parents[1] / "KMNIST")
    assert labs(capsys, "mnist", "--to", shared)[0] == 0
    assert labs(capsys, "kmnist", "--to", shared)[0] == 0
    assert modes(shared)["KMNIST/raw"] == modes(shared)["MNIST/raw"] == modes(shared)["."] == 0o555


@pytest.mark.parametrize("name, file", [("mnist", f"MNIST/raw/{FILES[1]}"), ("celeba", "celeba/list_attr_celeba.txt")])
def test_after_a_file_was_deleted_the_set_is_copied_anew(here, celeba, tmp_path, capsys, monkeypatch, name, file):      # noqa: F811
    monkeypatch.setenv("LABS_DATA_DIR", str(here.parents[1] if name == "mnist" else celeba))
    shared = tmp_path / "shared"
    assert labs(capsys, name, "--to", shared)[0] == 0
    before = modes(shared)
    shared.chmod(0o755)
    (shared / file).parent.chmod(0o755)
    (shared / file).unlink()
    code, lines, err = labs(capsys, name, "--to", shared)
    assert (code, err) == (0, "") and "verified" in lines[name] and modes(shared) == before


def test_a_folder_that_another_process_closes_meanwhile_is_opened_again(here, open_folder, monkeypatch):
    class Lock(FileLock):
        def __enter__(self):
            entered = super().__enter__()
            shared.chmod(0o555)     # as who had the lock before leaves it
            return entered
    shared = open_folder / "shared"
    shutil.copytree(here.parents[1] / "MNIST", open_folder / "source/MNIST")
    monkeypatch.setenv("LABS_DATA_DIR", str(open_folder / "source"))
    monkeypatch.setattr(datasets, "FileLock", Lock)
    assert as_nobody(cli.main, ["data", "mnist", "--to", str(shared)]) == 0


def test_a_damaged_copy_is_not_copied(here, tmp_path, capsys):
    (here / FILES[0]).write_bytes(b"x")
    code, _, err = labs(capsys, "mnist", "--to", tmp_path / "shared")
    assert code == 1 and FILES[0] in err and not (tmp_path / "shared/MNIST").exists()


@pytest.mark.parametrize("prepare, part", [
    (lambda folder: (folder.mkdir(), (folder / "thesis.tex").write_text("")), "thesis.tex"),
    (lambda folder: folder.write_text(""), "is not a folder"),
])
def test_a_folder_with_other_things_is_refused(here, tmp_path, capsys, prepare, part):
    prepare(tmp_path / "home")
    mode = (tmp_path / "home").stat().st_mode
    code, lines, err = labs(capsys, "mnist", "--to", tmp_path / "home")
    assert code == 2 and part in err and err.count("\n") == 1 and not lines
    assert (tmp_path / "home").stat().st_mode == mode


def as_nobody(function, *arguments):
    """Call a function in a process without the rights of root; return what it returns."""
    def call(queue):
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        queue.put(function(*arguments))
        queue.close()
        queue.join_thread()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=call, args=(queue,))
    process.start()
    try:
        return queue.get(timeout=60)
    finally:
        process.join(60)


@pytest.fixture
def open_folder():
    """A folder that every user may reach and write to; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o777)


def test_a_user_without_special_rights_makes_adds_to_and_reuses_a_closed_folder(here, open_folder, monkeypatch):
    shutil.copytree(here.parents[1] / "MNIST", open_folder / "source/MNIST")
    shutil.copytree(here.parents[1] / "MNIST", open_folder / "source/KMNIST")
    monkeypatch.setenv("LABS_DATA_DIR", str(open_folder / "source"))
    shared = open_folder / "shared"
    for name in ("mnist", "kmnist", "mnist"):
        assert as_nobody(cli.main, ["data", name, "--to", str(shared)]) == 0
    assert modes(shared)["."] == 0o555 and modes(shared)["KMNIST/raw"] == 0o555


def test_a_set_that_cannot_be_had_leaves_the_folder_closed(here, open_folder, monkeypatch):
    monkeypatch.setattr(data, "PROJECT_ROOT", open_folder / "project")
    shutil.copytree(here.parents[1] / "MNIST", open_folder / "source/MNIST")
    monkeypatch.setenv("LABS_DATA_DIR", str(open_folder / "source"))
    shared = open_folder / "shared"
    assert as_nobody(cli.main, ["data", "mnist", "--to", str(shared)]) == 0
    assert as_nobody(cli.main, ["data", "fashion", "--to", str(shared)]) == 1
    assert modes(shared)["."] == 0o555 and not (shared / "FashionMNIST").exists()


def test_another_user_reads_a_closed_folder_and_cannot_add_to_it(here, open_folder, capfd, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("takes two users: run as root")
    shared = open_folder / "shared"
    assert cli.main(["data", "mnist", "--to", str(shared)]) == 0
    monkeypatch.setenv("LABS_DATA_DIR", "")
    monkeypatch.setattr(data, "PROJECT_ROOT", open_folder / "project")
    assert as_nobody(cli.main, ["data", "mnist", "--to", str(shared)]) == 0
    capfd.readouterr()
    assert as_nobody(cli.main, ["data", "fashion", "--to", str(shared)]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and f"{shared} is read-only and belongs to another user" in err


def test_a_folder_that_may_not_be_read_is_named(here, open_folder, monkeypatch, capfd):
    monkeypatch.setattr(data, "PROJECT_ROOT", open_folder)
    (open_folder / "closed").mkdir(0o000)
    monkeypatch.setenv("LABS_DATA_DIR", str(open_folder / "closed"))
    assert as_nobody(cli.main, ["data", "mnist"]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "may not be read" in err and str(open_folder / "closed") in err and "LABS_DATA_DIR" in err


def test_processes_that_share_a_folder_at_once_all_succeed(mirror, open_folder):      # noqa: F811
    _, _, log = mirror
    arguments = ["data", "mnist", "--to", str(open_folder / "shared")]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=lambda: os._exit(cli.main(arguments))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert {log.count(path) for path in log} == {2}, "torchvision asks twice for a file; only one process does"
    assert modes(open_folder / "shared")["MNIST/raw"] == 0o555


@needs_mnist
def test_the_real_mnist_is_copied_verified_and_closed(tmp_path, capsys):
    source = find_idx("mnist")
    code, lines, _ = labs(capsys, "mnist", "--to", tmp_path / "shared")
    assert code == 0 and "verified" in lines["mnist"]
    copied = tmp_path / "shared/MNIST/raw"
    assert {path.name for path in copied.iterdir()} == {path.name for path in source.iterdir()}
    assert data.load_dataset("mnist", tmp_path / "shared")[0].shape == (60_000, 1, 28, 28)
    one = next(copied.glob("train-images*"))
    one.chmod(0o644)
    one.write_bytes(one.read_bytes()[:-1])
    code, _, err = labs(capsys, "mnist", "--to", tmp_path / "shared")
    assert code == 1 and one.name in err
