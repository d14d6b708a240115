"""The data sets and their loaders: what they hold, how files are found, verified and downloaded, and bad input."""

import errno
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import pickle
import shutil
import ssl
import struct
import time
import zlib
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch
from helpers import anything, check_named, idx, needs_mnist, no_proxy, quick, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import MNIST, CelebA

from labutils import DatasetError, get_loaders
from labutils.data import SOURCES, load_dataset, network, pictures, source
from labutils.data.idx import FILES

# ---------------------------------------------------------------------------------------- loaders


def test_batches_have_the_promised_shape_type_and_range():
    train, test = get_loaders("digits", batch_size=100, limit=250)
    sizes = [len(labels) for _, labels in train]
    assert sizes == [100, 100, 50] and len(train) == 3 and train.n_images == 250
    for images, labels in (*train, *test):
        assert images.shape == (len(labels), 1, 28, 28)
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.min() == 0 and images.max() == 1


@pytest.mark.parametrize("low, high", [(0, 1), (-1, 1), (0, 255)])
def test_image_range_is_reached_exactly(low, high):
    train, _ = get_loaders("digits", batch_size=64, limit=64, image_range=(low, high))
    images, _ = next(iter(train))
    assert images.min() == low and images.max() == high
    assert train.images.dtype == torch.uint8


def test_each_pass_has_all_images_once_in_a_new_order():
    train, test = get_loaders("digits", batch_size=32, limit=200)
    first, second = ([images for images, _ in train] for _ in range(2))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    in_order = (train.images.float() / 255).flatten(1).sum(1).sort().values
    torch.testing.assert_close(torch.cat(first).flatten(1).sum(1).sort().values, in_order)
    assert torch.equal(torch.cat([labels for _, labels in test]), test.labels)


@pytest.mark.parametrize("piece", [1, 784 * 70, 784 * 96, 2**18])
def test_batches_do_not_depend_on_how_many_are_made_at_one_time(monkeypatch, piece):
    monkeypatch.setattr("labutils.data.loader.PIECE", piece)
    for loader in get_loaders("digits", batch_size=32, limit=200):
        order = torch.randperm(200, generator=torch.Generator().manual_seed(0)) if loader.shuffle else torch.arange(200)
        batches = list(loader)
        assert [len(images) for images, _ in batches] == [32] * 6 + [8] and len(batches) == len(loader)
        assert torch.equal(torch.cat([images for images, _ in batches]), loader.images[order] / 255)
        assert torch.equal(torch.cat([labels for _, labels in batches]), loader.labels[order])


def test_the_order_depends_on_the_seed_alone():
    def labels(seed):
        torch.rand(17)      # other random numbers must not matter
        return torch.cat([labels for _, labels in get_loaders("digits", 64, limit=300, seed=seed)[0]])
    assert torch.equal(labels(1), labels(1))
    assert not torch.equal(labels(1), labels(2))


@pytest.mark.parametrize("limit, batch_size, n_images", [(129, 128, 128), (129, 127, 129), (128, 128, 128), (2, 64, 2),
                                                         (3, 2, 2), (None, 64, 6000)])
def test_an_image_that_would_be_alone_in_its_batch_is_not_taken_where_two_are_needed(limit, batch_size, n_images):
    """torch's batch normalisation refuses a batch of one in the middle of a training."""
    train, test = get_loaders("digits", batch_size, limit=limit, min_batch=2)
    sizes = [len(x) for x, _ in train]
    assert train.n_images == sum(sizes) and min(sizes) >= 2 and len(sizes) == len(train)
    assert train.n_images == n_images
    assert get_loaders("digits", batch_size, limit=limit)[0].n_images - train.n_images in (0, 1)
    assert test.n_images == min(limit or 297, 297)


@pytest.mark.parametrize("options, parts", [
    ({"limit": 1, "min_batch": 2}, ["dataset='digits', limit=1: 1 training im", "a batch needs 2", "a larger limit"]),
    ({"batch_size": 1, "min_batch": 2}, ["batch_size=1", "at least 2"])])
def test_too_few_images_are_named_with_the_way_out(options, parts):
    with pytest.raises(ValueError) as error:
        get_loaders("digits", **options)
    assert all(part in str(error.value) for part in parts), error.value


def test_limit_takes_the_first_images_of_both_sets():
    for all_images, limited in zip(get_loaders("digits"), get_loaders("digits", limit=20)):
        assert limited.n_images == 20 and torch.equal(all_images.images[:20], limited.images)
    assert get_loaders("digits", limit=10**6)[1].n_images == 297


@pytest.mark.parametrize("name, value, parts", [
    *[("name", value, [f"data set {value!r}", "mnist", "digits", "folder:PATH"])
      for value in ("mnits", "", None, 5, ["mnist"], "folder:")],
    *[("batch_size", value, ["at least 1"]) for value in (0, -3, 2.0, 2.5, "64", None, True)],
    *[("limit", value, ["None for all images"]) for value in (0, -5, True, "all", float("nan"))],
    *[("image_range", value, ["(0, 1)", "low < high"])
      for value in (None, 5, "01", (1, 0), (0, 0), (0, 1, 2), (0, float("inf")), (float("nan"), 1), ("a", "b"))],
    *[("device", value, ['device="auto"']) for value in ("gpu", "meta", None)],
    *[("seed", value, ["whole number"]) for value in ("0", 1.5, None, -1, 2**70)],
    *[("image_shape", value, ["dataset='digits'", "(1, 28, 28)", str(value)])
      for value in ((1, 32, 32), (3, 28, 28), 784)],
])
def test_a_bad_argument_is_named(name, value, parts):
    with pytest.raises(ValueError) as error:
        get_loaders(**{"name": "digits", name: value})
    expected = parts if name in ("name", "image_shape") else [f"{name}={value!r}", *parts]
    assert all(part in str(error.value) for part in expected) and "\n" not in str(error.value), str(error.value)


@quick
@given(value=anything)
def test_any_batch_size_is_accepted_or_named(value):
    check_named("batch_size", value, lambda: get_loaders("digits", value))


# -------------------------------------------------------------------------------- bundled pictures

def test_digits_are_those_of_scikit_learn_in_the_format_of_mnist():
    from sklearn.datasets import load_digits
    images, labels, test_images, test_labels = load_dataset("digits")
    assert images.shape == (6000, 1, 28, 28) and test_images.shape == (297, 1, 28, 28)
    assert torch.equal(torch.cat([labels[:1500], test_labels]), torch.from_numpy(load_digits().target).long())
    assert torch.equal(labels[:1500], labels[4500:])            # a variant keeps its label
    frame = torch.ones(28, 28, dtype=torch.bool)
    frame[4:24, 4:24] = False
    assert not images[..., frame].any() and not test_images[..., frame].any()
    originals = torch.cat([images[:1500], test_images])[:, 0, 4:24, 4:24].numpy()
    for picture, small in zip(originals[::50], load_digits().images[::50]):
        back = cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(back.ravel(), small.ravel())[0, 1] > 0.95


def test_variants_differ_from_their_originals_and_from_each_other():
    images = load_dataset("digits")[0].float().flatten(1)
    for i, j in ((0, 1500), (1500, 3000), (3000, 4500)):
        distance = (images[i:i + 1500] - images[j:j + 1500]).abs().mean(dim=1)
        assert distance.min() > 1
        assert distance.mean() < 40     # two different digits are about 60 apart


def test_faces_are_those_of_scikit_image_split_by_seed():
    from skimage.data import lfw_subset
    images, labels, test_images, test_labels = load_dataset("faces")
    assert images.shape == (80, 1, 32, 32) and test_images.shape == (20, 1, 32, 32) and images.dtype == torch.uint8
    assert not labels.any() and labels.shape == (80,) and test_labels.shape == (20,)
    small = [cv2.resize(face[0], (25, 25), interpolation=cv2.INTER_AREA).ravel()
             for face in torch.cat([images, test_images]).numpy()]
    near = np.corrcoef(small, lfw_subset()[:100].reshape(100, -1))[:100, 100:]
    assert near.max(axis=1).min() > 0.95
    assert sorted(near.argmax(axis=1)) == list(range(100)), "each face once, none of the background"
    assert (near.argmax(axis=1) != np.arange(100)).any(), "the order is drawn"


# ------------------------------------------------------------------------- files like those of MNIST

def compress(path):
    """Replace a file by its gzipped form; return the new path."""
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def test_raw_and_gzipped_files_give_the_same(tiny, tmp_path):
    folder, contents = tiny
    raw = load_dataset("mnist", tmp_path)
    compress(folder / FILES[0])
    compress(folder / FILES[3])
    for a, b in zip(raw, load_dataset("mnist", tmp_path)):
        assert torch.equal(a, b)
    assert raw[0].shape == (6, 1, 28, 28) and raw[1].tolist() == list(range(6))
    assert raw[0].numpy().tobytes() == contents[FILES[0]][16:]


def test_search_order(tiny, no_data, tmp_path, monkeypatch):
    folder, mnist = tiny[0], SOURCES["mnist"]
    assert mnist.find(tmp_path) == folder
    shutil.copytree(tmp_path / "MNIST", tmp_path / "other" / "MNIST")
    monkeypatch.setenv("LABS_DATA_DIR", str(tmp_path / "other"))
    assert mnist.find(tmp_path) == folder and mnist.find() == tmp_path / "other" / "MNIST" / "raw"
    monkeypatch.setenv("LABS_DATA_DIR", "")
    assert mnist.find() is None
    shutil.copytree(tmp_path / "MNIST", no_data / "data" / "MNIST")
    assert mnist.find() == no_data / "data" / "MNIST" / "raw"
    monkeypatch.setenv("LABS_DATA_DIR", str(no_data))       # a folder that has other sets
    assert mnist.find() == no_data / "data" / "MNIST" / "raw"


def dotted(file):
    return file.replace("-idx", ".idx")


PLACES = {      # of a file, below the data folder
    "higher": "{file}", "much higher": "raw/{file}", "in between": "MNIST/{file}", "small letters": "mnist/raw/{file}",
    "lower": "MNIST/raw/MNIST/raw/{file}", "a dot": "MNIST/raw/{dotted}", "a dot, packed": "MNIST/raw/{dotted}.gz",
    "a dot and higher": "{dotted}", "Kaggle": "{file}/{file}", "Kaggle with dots": "MNIST/raw/{dotted}/{dotted}",
    "packed and higher": "{file}.gz"}


@pytest.mark.parametrize("place", PLACES)
def test_files_of_the_other_spelling_or_a_folder_off_are_found(tiny, tmp_path, place):
    folder, contents = tiny
    shutil.rmtree(folder.parent)
    for file, content in contents.items():
        path = tmp_path / PLACES[place].format(file=file, dotted=dotted(file))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    images, labels, *_ = load_dataset("mnist", tmp_path)
    assert images.numpy().tobytes() == contents[FILES[0]][16:] and labels.tolist() == list(range(6))
    assert len(SOURCES["mnist"].contents(SOURCES["mnist"].find(tmp_path))) == 4


@pytest.mark.parametrize("below", ["", "raw"])
def test_a_data_folder_may_be_the_sets_own(tiny, tmp_path, below):
    assert load_dataset("mnist", tmp_path / "MNIST" / below)[0].shape == (6, 1, 28, 28)


@pytest.mark.parametrize("name, other", [("mnist", "fashion"), ("fashion", "mnist"), ("kmnist", "mnist")])
def test_files_of_another_set_are_not_taken(tiny, offline, tmp_path, monkeypatch, name, other):
    folder, _ = tiny
    own, md5 = SOURCES[other], SOURCES["mnist"].md5
    monkeypatch.setattr(SOURCES["mnist"], "md5", ("0",) * 4)
    monkeypatch.setattr(own, "md5", md5)
    source.move(folder, tmp_path / "sets")
    assert own.find(tmp_path / "sets") == tmp_path / "sets"
    (tmp_path / "sets" / FILES[0]).rename(tmp_path / FILES[0])
    assert (f"{tmp_path / 'sets'} lacks {FILES[0]}" in own.look(tmp_path / "sets")
            and SOURCES[name].look(tmp_path / "sets") == ""), "a part of another set is nothing to be told of"
    (tmp_path / FILES[0]).rename(tmp_path / "sets" / FILES[0])
    with pytest.raises(DatasetError) as error:
        load_dataset(name, tmp_path / "sets")
    assert f"the files in {tmp_path / 'sets'} have not the checksums of" in str(error.value)


@pytest.mark.parametrize("place", ["MNIST/raw", ".", "mnist"])
@pytest.mark.parametrize("n", [1, 3])
def test_what_is_missing_of_a_set_is_named_and_where(tiny, offline, tmp_path, place, n):
    folder, contents = tiny
    shutil.rmtree(folder.parent)
    target = tmp_path / place
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES[:n]:
        (target / dotted(file)).write_bytes(contents[file])
    with pytest.raises(DatasetError) as error:
        load_dataset("mnist", tmp_path)
    assert f"{target} lacks {', '.join(FILES[n:])}" in str(error.value) and "\n" not in str(error.value)
    assert f"put the files into {tmp_path / 'MNIST/raw'}: {', '.join(FILES)}" in str(error.value)


@pytest.mark.parametrize("lies, said", [
    ([], "{root} is empty"), (["MNIST/"], "{root} holds MNIST"), (["archive.zip"], "{root} holds archive.zip"),
    (["MNIST/raw/"], "{root}/MNIST/raw is empty"), (["MNIST/raw/mnist.npz"], "{root}/MNIST/raw holds mnist.npz"),
    ([f"{i}.png" for i in range(9)], "{root} holds 0.png, 1.png, 2.png, 3.png and 5 more"),
])
def test_what_lies_in_the_place_of_a_set_is_named(no_data, offline, tmp_path, lies, said):
    root = tmp_path / "sets"
    root.mkdir()
    for name in lies:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("")
    with pytest.raises(DatasetError) as error:
        load_dataset("mnist", root)
    assert str(error.value).endswith(f"; now {said.format(root=root)}"), str(error.value)


@pytest.mark.parametrize("name, resolved", [("sets/", "sets"), ("~/sets", "home/sets"), ("sets", "sets"),
                                            ("./sets/../sets", "sets"), ("a folder", "a folder")])
def test_ways_to_name_a_data_folder(tiny, no_data, monkeypatch, name, resolved):
    monkeypatch.setattr("labutils.paths.PROJECT_ROOT", no_data)     # where relative paths start
    monkeypatch.setenv("HOME", str(no_data / "home"))
    shutil.copytree(tiny[0].parent, no_data / resolved / "MNIST")
    monkeypatch.setenv("LABS_DATA_DIR", name)
    assert SOURCES["mnist"].find().resolve() == no_data / resolved / "MNIST/raw"
    assert load_dataset("mnist", name)[0].shape == (6, 1, 28, 28)


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
@pytest.mark.parametrize("name", ["data_dir", "LABS_DATA_DIR"])
def test_a_wrong_data_folder_is_named_and_no_other_takes_its_place(tiny, no_data, offline, tmp_path, monkeypatch, kind,
                                                                   name):
    shutil.copytree(tmp_path / "MNIST", no_data / "data" / "MNIST")
    wrong = tmp_path / "wrong"
    if kind != "missing":
        wrong.mkdir() if kind == "empty" else wrong.write_text("")
    if name == "LABS_DATA_DIR":
        monkeypatch.setenv(name, str(wrong))
    else:
        monkeypatch.setenv("LABS_DATA_DIR", str(tmp_path))      # has the set
    if (name, kind) == ("LABS_DATA_DIR", "empty"):      # data/ may have what a shared folder has not
        assert load_dataset("mnist")[0].shape == (6, 1, 28, 28)
        return
    with pytest.raises(DatasetError) as error:
        get_loaders("mnist", data_dir=wrong if name == "data_dir" else None)
    parts = {"empty": ["no server answers", 'dataset="digits"', f"put the files into {wrong}", f"{wrong} is empty"],
             "file": [f"{wrong} is no folder", "correct the name"],
             "missing": [f"there is no folder {wrong}", "make the folder"]}[kind]
    parts = [f"{name}={str(wrong)!r}", *parts]
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value), str(error.value)
    assert wrong.exists() == (kind != "missing")


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("how", ["truncated", "altered", "empty", "header"])
def test_a_damaged_file_is_named_with_the_way_out(tiny, tmp_path, gzipped, how):
    folder, contents = tiny
    path, content = folder / FILES[2], bytearray(contents[FILES[2]])
    if how == "altered":
        content[500] ^= 1
    path.write_bytes({"truncated": content[:-1], "empty": b"", "header": content[:6]}.get(how, content))
    if gzipped:
        path = compress(path)
    with pytest.raises(DatasetError) as error:
        get_loaders("mnist", data_dir=tmp_path)
    assert str(path) in str(error.value) and 'dataset="digits"' in str(error.value)


def test_kmnist_is_verified_gzipped_and_by_its_length_unpacked(tiny, tmp_path, monkeypatch):
    from torchvision.datasets import KMNIST
    shutil.move(tmp_path / "MNIST", tmp_path / "KMNIST")
    folder, kmnist = tmp_path / "KMNIST" / "raw", SOURCES["kmnist"]
    assert load_dataset("kmnist", tmp_path)[0].shape == (6, 1, 28, 28)
    (folder / FILES[1]).write_bytes((folder / FILES[1]).read_bytes()[:-1])
    with pytest.raises(DatasetError, match="truncated"):
        load_dataset("kmnist", tmp_path)
    packed = compress(folder / FILES[0])
    with pytest.raises(DatasetError, match=f"{FILES[0]}.gz is truncated or altered"):
        kmnist.read_file(folder, FILES[0])
    monkeypatch.setattr(KMNIST, "resources", [(packed.name, hashlib.md5(packed.read_bytes()).hexdigest())])
    assert kmnist.read_file(folder, FILES[0]).shape == (6, 28, 28)


@pytest.mark.parametrize("content", [
    b"", b"\0", b"\0\0\x08\x03", idx((2,), b"12"), idx((1, 2, 2), b"123"), idx((1, 2, 2), b"12345"), b"<html></html>",
    idx((1, 2, 2), b"1234", kind=13), idx((2**32 - 1, 2**32 - 1, 2**32 - 1)), idx((2**31, 2**31, 4)),
], ids=lambda content: repr(content[:20]))
@pytest.mark.parametrize("name, ending", [("mnist", ""), ("kmnist", ""), ("mnist", ".gz"), ("kmnist", ".gz")])
def test_a_file_that_is_no_idx_file_is_named(tmp_path, name, ending, content):
    path = tmp_path / f"{FILES[0]}{ending}"
    path.write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(DatasetError) as error:
        SOURCES[name].read_file(tmp_path, FILES[0])
    message = str(error.value)
    assert str(path) in message and "delete it and run again" in message and "\n" not in message


@quick
@given(content=st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda rest: b"\0\0\x08\x03" + rest),
                         st.binary(max_size=60).map(lambda rest: b"\x1f\x8b\x08" + bytes(7) + rest),
                         st.binary(max_size=60).map(lambda rest: gzip.compress(rest)[:-1])),
       name=st.sampled_from(["mnist", "fashion", "kmnist"]), ending=st.sampled_from(["", ".gz"]))
def test_random_bytes_are_an_idx_file_or_a_named_error(tmp_path, content, name, ending):
    path = tmp_path / f"{FILES[0]}{ending}"
    path.write_bytes(content)
    try:
        images = SOURCES[name].read_file(tmp_path, FILES[0])
    except DatasetError as error:
        assert str(path) in str(error)
    else:
        assert name == "kmnist" and not ending and content[16:] == images.tobytes()
    finally:
        path.unlink()


# ---------------------------------------------------------------------------------------- downloads

def test_without_network_the_error_names_the_places_and_the_bundled_digits(tiny, tmp_path, monkeypatch):
    (tiny[0] / FILES[0]).unlink()
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])      # nothing listens there
    start = time.monotonic()
    with pytest.raises(DatasetError) as error:
        get_loaders("mnist", data_dir=tmp_path)
    assert time.monotonic() - start < 30
    for part in ("'mnist'", str(tmp_path), 'dataset="digits"', "no server answers"):
        assert part in str(error.value)


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(network, "knock", lambda url: time.sleep(60))
    start = time.monotonic()
    assert "in 0.5 seconds" in network.why_silent(["http://a/", "http://b/"], seconds=0.5)
    assert time.monotonic() - start < 5


def test_one_server_that_answers_is_enough_and_nobody_waits_for_the_other(monkeypatch):
    monkeypatch.setattr(network, "knock", lambda url: "" if "b" in url else time.sleep(60))
    start = time.monotonic()
    assert network.why_silent(["http://a/", "http://b/"]) == ""
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_download_goes_through_the_proxy_of_the_environment(mirror, monkeypatch, name):
    root, _, log = mirror
    monkeypatch.setenv(name, MNIST.mirrors[0])
    monkeypatch.setattr(MNIST, "mirrors", ["http://mirror.invalid/"])       # which only the proxy can reach
    assert load_dataset("mnist", root)[0].shape == (6, 1, 28, 28)
    assert log and all(path.startswith("http://mirror.invalid/") for path in log)


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_a_server_that_no_proxy_names_is_asked_itself(mirror, monkeypatch, name):
    root, _, log = mirror
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, "127.0.0.1")
    assert load_dataset("mnist", root)[0].shape == (6, 1, 28, 28) and not any("://" in path for path in log)


@pytest.mark.parametrize("proxy, url, parts", [
    ("http://me:secret@127.0.0.1:9", "http://mirror.invalid/", ["the proxy 127.0.0.1:9: ", "refused"]),
    ("127.0.0.1:9", "https://mirror.invalid/", ["the proxy 127.0.0.1:9: ", "refused"]),
    ("http://127.0.0.1:no-port", "http://mirror.invalid/", ["the proxy 127.0.0.1:no-port: "]),
    ("socks5://127.0.0.1:9", "http://mirror.invalid/", ["the proxy 127.0.0.1:9: ", "socks5"]),
    ("", "http://127.0.0.1:9/", ["refused", "where a proxy leads out, set http_proxy and https_proxy"]),
])
def test_a_proxy_that_fails_is_named_without_its_password(monkeypatch, proxy, url, parts):
    no_proxy(monkeypatch)
    for name in ("http_proxy", "https_proxy") if proxy else ():
        monkeypatch.setenv(name, proxy)
    said = network.why_silent([url])
    assert said.startswith("no server answers: ") and all(part in said for part in parts), said
    assert "secret" not in said and "\n" not in said


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("code, part", [(407, "wants a name and password"), (503, "Service Unavailable")])
def test_a_proxy_that_does_not_let_through_is_no_answer(mirror, monkeypatch, scheme, code, part):
    monkeypatch.setenv(f"{scheme}_proxy", MNIST.mirrors[0])
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_HEAD", lambda self: self.send_error(code))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_CONNECT", lambda self: self.send_error(code),
                        raising=False)
    said = network.why_silent([f"{scheme}://mirror.invalid/"])
    assert part in said and f"the proxy {urlsplit(MNIST.mirrors[0]).netloc}" in said


@pytest.mark.parametrize("code", [403, 404, 405])
def test_a_server_that_refuses_is_an_answer(mirror, monkeypatch, code):
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_HEAD", lambda self: self.send_error(code))
    assert network.why_silent(MNIST.mirrors) == ""


def test_a_certificate_that_is_not_trusted_is_named_with_the_ways_out(monkeypatch):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate in certificate chain"
    no_proxy(monkeypatch)
    monkeypatch.setattr("urllib.request.urlopen", Mock(side_effect=URLError(error)))
    said = network.why_silent(["https://mirror.invalid/"])
    for part in ("of mirror.invalid", error.verify_message, "SSL_CERT_FILE", "log in", "Install Certificates.command"):
        assert part in said


PAGE = b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>"


@pytest.mark.parametrize("name", ["mnist", "celeba"])
def test_a_web_page_in_place_of_a_file_is_named_with_the_way_out(mirror, monkeypatch, name):
    root, site, _ = mirror
    (site / f"{FILES[1]}.gz").write_bytes(PAGE)

    def page(self):
        Path(self.root, "celeba").mkdir()
        Path(self.root, "celeba/img_align_celeba.zip").write_bytes(PAGE)
        raise RuntimeError("no\nzip file")
    monkeypatch.setattr(CelebA, "download", page)
    monkeypatch.setattr(SOURCES["celeba"], "servers", lambda: MNIST.mirrors, raising=False)
    with pytest.raises(DatasetError) as error:
        load_dataset(name, root)
    file = "img_align_celeba.zip" if name == "celeba" else f"{FILES[1]}.gz"
    assert f"a web page in place of {file}" in str(error.value) and "log in with a browser" in str(error.value)
    assert "\n" not in str(error.value) and [path.name for path in root.iterdir() if "down" in path.name] == []


@pytest.mark.parametrize("number, part", [(errno.ENOSPC, "there is no room left for"), (errno.EDQUOT, "no room left"),
                                          (errno.EROFS, "you may not write to"), (errno.EACCES, "may not write to")])
def test_a_full_disk_and_missing_rights_are_one_line_with_the_way_out(mirror, monkeypatch, number, part):
    monkeypatch.setattr(MNIST, "download", Mock(side_effect=OSError(number, os.strerror(number), "a file")))
    with pytest.raises(DatasetError) as error:
        load_dataset("mnist", mirror[0])
    for words in (part, str(mirror[0] / "MNIST/raw"), os.strerror(number), "LABS_DATA_DIR", 'dataset="digits"'):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_torchvision_downloads_and_verifies_once(mirror):
    root, _, log = mirror
    images = load_dataset("mnist", root)[0]
    assert images.shape == (6, 1, 28, 28) and len(set(log)) == 4
    n_requests = len(log)
    load_dataset("mnist", root)
    assert len(log) == n_requests


def load_in_process(root, queue, start):
    start.wait(60)
    queue.put(len(load_dataset("mnist", root)[0]))
    queue.close()
    queue.join_thread()


@pytest.mark.parametrize("n", [2, 8])
def test_processes_download_one_set_at_once(mirror, n):
    root, _, log = mirror
    context = multiprocessing.get_context("fork")       # the children see the patched classes
    queue = context.Queue()
    start = context.Barrier(n)
    processes = [context.Process(target=load_in_process, args=(root, queue, start)) for _ in range(n)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [6] * n
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert {log.count(path) for path in log} == {2}, "torchvision asks twice for a file; only one process does"
    assert sorted(path.name for path in root.iterdir() if path.name.startswith(".down")) == []


def test_a_download_that_breaks_off_leaves_nothing_half_written(mirror):
    root, site, _ = mirror
    path = site / f"{FILES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetError, match='dataset="digits"'):
        load_dataset("mnist", root)
    assert SOURCES["mnist"].find(root) is None
    assert [path.name for path in root.iterdir() if path.name not in ("site", ".mnist.lock")] == []


def test_a_folder_that_cannot_be_made_is_named(mirror, no_data):
    no_data.write_text("a file in the place of the project")
    with pytest.raises(DatasetError, match="cannot create the folder"):
        load_dataset("mnist")


# ---------------------------------------------------------------------------------- the real MNIST

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_mnist
def test_mnist_is_whole():
    train, test = get_loaders("mnist", batch_size=1000)
    for loader, counts in ((train, TRAIN_COUNTS), (test, TEST_COUNTS)):
        labels = torch.cat([labels for _, labels in loader])
        assert len(labels) == loader.n_images == sum(counts)
        assert labels.bincount().tolist() == counts
    assert train.images.float().mean() / 255 == pytest.approx(0.1307, abs=1e-4)     # as published


# ------------------------------------------------------------------------------ folders of pictures

@pytest.fixture
def album(tmp_path):
    """A folder with 20 grey pictures of different sizes; picture i has the grey value 10 i."""
    for i in range(20):
        write_picture(tmp_path / "album" / f"{i:02d}.png", np.full((20 + 7 * i, 90 - i), 10 * i, np.uint8))
    return tmp_path / "album"


def numbers(images):
    """The numbers of pictures of the album, from their grey values."""
    return (images[:, 0, 32, 32] // 10).tolist()


def test_every_tenth_file_of_a_folder_is_for_the_test(album):
    images, labels, test_images, _ = load_dataset(f"folder:{album}")
    assert images.shape == (18, 1, 64, 64) and test_images.shape == (2, 1, 64, 64)
    assert numbers(test_images) == [0, 10] and numbers(images) == [*range(1, 10), *range(11, 20)]
    assert not labels.any() and labels.dtype == torch.int64


def test_subfolders_belong_to_a_folder_and_other_files_do_not(album):
    write_picture(album / "z" / "20.JPG", np.full((8, 8), 200, np.uint8))
    (album / "notes.txt").write_text("no picture")
    images, _, test_images, _ = load_dataset(f"folder:{album}")
    assert len(images) == 18 and numbers(test_images) == [0, 10, 20]


def test_one_picture_in_colour_makes_a_folder_rgb(album):
    red = np.zeros((50, 70, 3), np.uint8)
    red[..., 0] = 255
    write_picture(album / "01.png", red)
    images = load_dataset(f"folder:{album}")[0]
    assert images.shape == (18, 3, 64, 64)
    assert images[0, :, 5, 5].tolist() == [255, 0, 0] and images[1, :, 5, 5].tolist() == [20, 20, 20]


@pytest.mark.parametrize("mode, grey", [("1", True), ("L", True), ("LA", True), ("P", False), ("RGBA", False),
                                        ("CMYK", False), ("I;16", True)])
def test_modes_of_pictures(tmp_path, mode, grey):
    array = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (70, 1))
    picture = Image.fromarray(array.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(array)
    if mode not in ("L", "I;16"):
        colour = Image.fromarray(np.stack([array, array[:, ::-1], array], axis=2))
        picture = (picture if grey else colour).convert(mode)
    for name, width in ("a", 79), ("b", 80):
        picture.crop((0, 0, width, 70)).save(tmp_path / f"{name}.{'tif' if mode == 'CMYK' else 'png'}")
    images = load_dataset(f"folder:{tmp_path}")[0]
    assert images.shape == (1, 1 if grey else 3, 64, 64)
    assert images[0, 0, 32, 2] < 60 and images[0, 0, 32, -3] > 195


def test_the_middle_of_a_picture_is_kept(tmp_path):
    wide = np.zeros((100, 300), np.uint8)
    wide[:, 100:200] = np.linspace(100, 250, 100)
    write_picture(tmp_path / "wide.png", wide)
    write_picture(tmp_path / "high.png", wide.T.copy())
    images, _, test_images, _ = load_dataset(f"folder:{tmp_path}")
    assert (torch.cat([images, test_images]) > 98).all()


def test_a_photograph_is_turned_upright(tmp_path):
    picture = Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 40)[:, None].repeat(80, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 3        # turned by 180 degrees
    for name, width in ("a", 79), ("b", 80):
        picture.crop((0, 0, width, 80)).save(tmp_path / f"{name}.png", exif=exif)
    image = load_dataset(f"folder:{tmp_path}")[0][0, 0]
    assert image[5, 32] == 255 and image[-5, 32] == 0


@pytest.mark.parametrize("prepare, parts", [
    (lambda folder: None, ["does not exist"]),
    (lambda folder: folder.mkdir(), ["holds no pictures", 'dataset="faces"']),
    (lambda folder: (folder.mkdir(), (folder / "a.png").write_bytes(b"x")), ["0 readable", "at least two"]),
    (lambda folder: write_picture(folder / "a.png", np.zeros((9, 9), np.uint8)), ["1 readable", "at least two"]),
])
def test_a_folder_without_pictures_is_named(tmp_path, prepare, parts, capsys):
    folder = tmp_path / "empty"
    prepare(folder)
    with pytest.raises(DatasetError) as error:
        get_loaders(f"folder:{folder}")
    assert all(part in str(error.value) for part in [str(folder), *parts])


def test_limit_saves_the_reading_of_files(album, monkeypatch):
    read = []
    original = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda path: read.append(path) or original(path))
    train, test = get_loaders(f"folder:{album}", limit=9)
    assert len(read) == 11 and numbers(train.images) == list(range(1, 10)) and numbers(test.images) == [0, 10]
    read.clear()
    assert get_loaders(f"folder:{album}", limit=1)[0].n_images == 1 and len(read) == 2


def test_unreadable_files_are_counted_named_and_skipped(album, capsys):
    for name in ("03.png", "04.png", "05.png"):
        (album / name).write_bytes(b"no picture at all")
    images, _, test_images, _ = load_dataset(f"folder:{album}")
    assert len(images) + len(test_images) == 17
    assert "3 file(s) skipped" in (printed := capsys.readouterr().out) and "03.png, 04.png, 05.png" in printed


def png(shape=(20, 20)):
    return cv2.imencode(".png", np.arange(shape[0] * shape[1]).astype(np.uint8).reshape(shape))[1].tobytes()


def png_that_claims(width, height):
    """A PNG file whose header claims a size, with a correct checksum, and no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 10) + b"IDAT"


@pytest.mark.parametrize("content", [
    b"", b"no picture", png()[:len(png()) // 2], png()[:30], pickle.dumps([1]), b"GIF89a", b"BM" + bytes(60),
    *(png_that_claims(side, side) for side in (2**31 - 1, 0, 200, 20_000)),
], ids=lambda content: repr(content[:12]))
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp", ".ppm"])
def test_files_that_are_no_pictures_are_skipped_by_name(tmp_path, capsys, content, ending):
    for name, side in ("a.png", 20), ("b.png", 21):
        (tmp_path / name).write_bytes(png((side, side)))
    (tmp_path / f"bad{ending}").write_bytes(content)
    assert len(load_dataset(f"folder:{tmp_path}")[0]) == 1
    assert f"1 file(s) skipped that cannot be read as pictures: bad{ending}" in capsys.readouterr().out


def whole_pictures():
    """Undamaged pictures in several formats, by their ending."""
    found, picture = {}, Image.fromarray(np.arange(300).astype(np.uint8).reshape(10, 10, 3))
    turned = Image.Exif()
    turned[0x0112], turned[0x8298] = 6, "nobody"       # orientation, copyright
    for form in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM"):
        file = io.BytesIO()
        picture.save(file, form, exif=turned)
        found[form.lower()] = file.getvalue()
    return found


WHOLE = whole_pictures()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@settings(quick, max_examples=300)
@given(ending=st.sampled_from(sorted(WHOLE)), where=st.floats(0, 1), patch=st.binary(min_size=1, max_size=8),
       cut=st.booleans())
def test_a_picture_that_is_altered_anywhere_is_read_or_skipped(ending, where, patch, cut):
    content = WHOLE[ending]
    start = int(where * len(content))
    picture = pictures.read_picture(content[:start] if cut else content[:start] + patch + content[start + len(patch):])
    assert picture is None or (picture.pixels.ndim == 3 and picture.pixels.shape[2] == 3)


# ------------------------------------------------------------------------------------------ CelebA

def test_celeba_through_torchvision_with_its_attributes(celeba):
    images, labels, test_images, test_labels = load_dataset("celeba", celeba)
    assert images.shape == (5, 3, 64, 64) and test_images.shape == (3, 3, 64, 64)
    assert labels.shape == (5, 40) and test_labels.shape == (3, 40) and labels.dtype == torch.int64
    assert labels[:, 0].tolist() == [0, 1, 0, 1, 0] and test_labels[0, :4].tolist() == [0, 1, 0, 1]
    colours = torch.tensor([[20 * i, 100, 200] for i in range(5)])
    assert (images[:, :, 32, 32].long() - colours).abs().max() <= 6     # JPEG
    train, test = get_loaders("celeba", 2, data_dir=celeba, limit=3)
    assert [labels.shape for _, labels in train] == [(2, 40), (1, 40)] and test.n_images == 3
    assert torch.equal(load_dataset("celeba", celeba, limit=2)[1], labels[:2])


def test_a_damaged_celeba_is_named(celeba):
    (celeba / "celeba" / "img_align_celeba" / "000002.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match='damaged or not complete.*dataset="faces"'):
        load_dataset("celeba", celeba)


def test_without_celeba_and_a_network_the_bundled_faces_are_named(celeba, offline):
    with pytest.raises(DatasetError, match='no server answers.*dataset="faces"'):
        load_dataset("celeba", celeba / "celeba")


def test_celeba_is_downloaded_completely_or_not_at_all(celeba, monkeypatch):
    monkeypatch.setattr(source, "why_silent", lambda urls: "")

    def broken(self):
        shutil.copytree(celeba / "celeba", f"{self.root}/celeba")
        raise RuntimeError("the server hung up")
    monkeypatch.setattr(CelebA, "download", broken)
    target = celeba / "new"
    target.mkdir()
    with pytest.raises(DatasetError, match="hung up"):
        load_dataset("celeba", target)
    assert [path.name for path in target.iterdir()] == [".celeba.lock"]
    monkeypatch.setattr(CelebA, "download", lambda self: shutil.copytree(celeba / "celeba", f"{self.root}/celeba"))
    assert load_dataset("celeba", target)[0].shape == (5, 3, 64, 64)
