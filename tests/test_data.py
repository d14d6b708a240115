import gzip
import hashlib
import http.server
import multiprocessing
import shutil
import struct
import threading
import time

import numpy as np
import pytest
import torch
from conftest import needs_mnist

from labutils import DatasetError, data, get_loaders
from labutils.data import FILES, IdxSource, any_answers, find_idx, load_dataset, read_idx

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


def test_labels_stay_with_their_images():
    train, _ = get_loaders("digits", batch_size=50, limit=200)
    known = {image.numpy().tobytes(): label for image, label in zip(train.images, train.labels.tolist())}
    for images, labels in train:
        for image, label in zip(images, labels.tolist()):
            assert known[(image * 255).round().to(torch.uint8).numpy().tobytes()] == label


def test_the_order_depends_on_the_seed_alone():
    def labels(seed):
        torch.rand(17)      # what else is drawn must not matter
        return torch.cat([labels for _, labels in get_loaders("digits", 64, limit=300, seed=seed)[0]])
    assert torch.equal(labels(1), labels(1))
    assert not torch.equal(labels(1), labels(2))


def test_limit_takes_the_first_images_of_both_sets():
    whole, small = get_loaders("digits"), get_loaders("digits", limit=20)
    for all_images, some in zip(whole, small):
        assert some.n_images == 20 and torch.equal(all_images.images[:20], some.images)
    assert get_loaders("digits", limit=10**6)[1].n_images == 297


@pytest.mark.parametrize("arguments, parts", [
    ({"name": "mnits"}, ["'mnits'", "mnist", "digits"]),
    ({"name": None}, ["None", "digits"]),
    ({"batch_size": 0}, ["batch_size=0"]),
    ({"batch_size": 2.0}, ["batch_size=2.0"]),
    ({"batch_size": None}, ["batch_size=None"]),
    ({"limit": 0}, ["limit=0", "None"]),
    ({"limit": -5}, ["limit=-5", "None"]),
    ({"limit": True}, ["limit=True"]),
    ({"image_range": (1, 0)}, ["image_range=(1, 0)", "low < high"]),
    ({"image_range": (0, 1, 2)}, ["image_range=(0, 1, 2)"]),
])
def test_a_bad_argument_is_named(arguments, parts):
    with pytest.raises(ValueError) as error:
        get_loaders(**{"name": "digits", **arguments})
    assert all(part in str(error.value) for part in parts), str(error.value)


# -------------------------------------------------------------------------------- bundled digits

def test_digits_are_those_of_scikit_learn_in_the_format_of_mnist():
    import cv2
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


# ------------------------------------------------------------------------- files like those of MNIST

def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A data set of 6 and 4 pictures that passes for MNIST: (root, its folder, contents by file)."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (6, 28, 28), np.uint8), np.arange(6, dtype=np.uint8),
              rng.integers(0, 256, (4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8)]
    contents = {file: idx_bytes(array) for file, array in zip(FILES, arrays)}
    sums = tuple(hashlib.md5(content).hexdigest() for content in contents.values())
    monkeypatch.setitem(data.IDX_SOURCES, "mnist", IdxSource("MNIST", sums))
    monkeypatch.setattr(data, "PROJECT_ROOT", tmp_path / "project")
    monkeypatch.delenv("LABS_DATA_DIR", raising=False)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return tmp_path, folder, contents


def pack(path):
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def test_raw_and_gzipped_files_give_the_same(tiny):
    root, folder, contents = tiny
    raw = load_dataset("mnist", root)
    pack(folder / FILES[0])
    pack(folder / FILES[3])
    for a, b in zip(raw, load_dataset("mnist", root)):
        assert torch.equal(a, b)
    assert raw[0].shape == (6, 1, 28, 28) and raw[1].tolist() == list(range(6))
    assert raw[0].numpy().tobytes() == contents[FILES[0]][16:]


def test_search_order(tiny, tmp_path, monkeypatch):
    root, folder, _ = tiny
    assert find_idx("mnist", root) == folder
    monkeypatch.setenv("LABS_DATA_DIR", str(root))
    assert find_idx("mnist", tmp_path / "empty") == folder
    monkeypatch.setenv("LABS_DATA_DIR", "")
    assert find_idx("mnist") is None
    shutil.copytree(root / "MNIST", data.PROJECT_ROOT / "data" / "MNIST")
    assert find_idx("mnist") == data.PROJECT_ROOT / "data" / "MNIST" / "raw"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", ["truncated", "altered", "empty", "header"])
def test_a_damaged_file_is_named_with_the_way_out(tiny, packed, how):
    root, folder, contents = tiny
    path, content = folder / FILES[2], bytearray(contents[FILES[2]])
    if how == "altered":
        content[500] ^= 1
    path.write_bytes({"truncated": content[:-1], "empty": b"", "header": content[:6]}.get(how, content))
    if packed:
        pack(path)
        path = path.with_name(f"{path.name}.gz")
    with pytest.raises(DatasetError) as error:
        get_loaders("mnist", data_dir=root)
    assert str(path) in str(error.value) and 'dataset="digits"' in str(error.value)


def test_a_truncated_archive_is_named(tiny):
    root, folder, _ = tiny
    pack(folder / FILES[0])
    path = folder / f"{FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DatasetError, match="cannot be read"):
        load_dataset("mnist", root)


def test_kmnist_is_verified_packed_and_by_its_length_unpacked(tiny, monkeypatch):
    root, folder, _ = tiny
    from torchvision.datasets import KMNIST
    shutil.move(root / "MNIST", root / "KMNIST")
    folder = root / "KMNIST" / "raw"
    assert load_dataset("kmnist", root)[0].shape == (6, 1, 28, 28)
    (folder / FILES[1]).write_bytes((folder / FILES[1]).read_bytes()[:-1])
    with pytest.raises(DatasetError, match="truncated"):
        load_dataset("kmnist", root)
    pack(folder / FILES[0])
    with pytest.raises(DatasetError, match=f"{FILES[0]}.gz is truncated or altered"):
        read_idx(folder, "kmnist", FILES[0])
    packed = hashlib.md5((folder / f"{FILES[0]}.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(KMNIST, "resources", [(f"{FILES[0]}.gz", packed)])
    assert read_idx(folder, "kmnist", FILES[0]).shape == (6, 28, 28)


# --------------------------------------------------------------------------------------- download

def test_without_a_network_the_answer_comes_soon_and_names_the_bundled_set(tiny, monkeypatch):
    root, folder, _ = tiny
    (folder / FILES[0]).unlink()
    from torchvision.datasets import MNIST
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])      # nothing listens there
    start = time.monotonic()
    with pytest.raises(DatasetError) as error:
        get_loaders("mnist", data_dir=root)
    assert time.monotonic() - start < 30
    for part in ("'mnist'", str(root), 'dataset="digits"', "no server answers"):
        assert part in str(error.value)


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(data, "knock", lambda url, answers: time.sleep(60))
    start = time.monotonic()
    assert not any_answers(["http://a/", "http://b/"], seconds=0.5)
    assert time.monotonic() - start < 5


@pytest.fixture
def mirror(tiny, tmp_path, monkeypatch):
    """A server on loopback with the tiny set; torchvision's MNIST asks it. Returns its log of paths."""
    root, folder, contents = tiny
    site = tmp_path / "site"
    site.mkdir()
    resources, log = [], []
    for file, content in contents.items():
        packed = gzip.compress(content, mtime=0)
        (site / f"{file}.gz").write_bytes(packed)
        resources.append((f"{file}.gz", hashlib.md5(packed).hexdigest()))
    shutil.rmtree(root / "MNIST")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(site))

        def log_message(self, *_):
            pass

        def do_GET(self):
            log.append(self.path)
            super().do_GET()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from torchvision.datasets import MNIST
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(MNIST, "resources", resources)
    yield root, site, log
    server.shutdown()


def test_torchvision_downloads_and_verifies(mirror):
    root, _, log = mirror
    images = load_dataset("mnist", root)[0]
    assert images.shape == (6, 1, 28, 28) and len(set(log)) == 4
    asked = len(log)
    load_dataset("mnist", root)
    assert len(log) == asked, "a set that lies there is not fetched again"


def load_in_process(root, queue):
    queue.put(len(load_dataset("mnist", root)[0]))
    queue.close()
    queue.join_thread()


def test_two_processes_prepare_one_set_at_once(mirror):
    root, _, log = mirror
    context = multiprocessing.get_context("fork")       # the children see the patched classes
    queue = context.Queue()
    processes = [context.Process(target=load_in_process, args=(root, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [6, 6]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert {log.count(path) for path in log} == {2}, "torchvision asks twice for a file; only one process does"
    assert sorted(p.name for p in root.iterdir() if p.name.startswith(".down")) == []


def test_a_download_that_breaks_off_leaves_nothing_half_written(mirror):
    root, site, _ = mirror
    path = site / f"{FILES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetError, match='dataset="digits"'):
        load_dataset("mnist", root)
    assert find_idx("mnist", root) is None
    assert [p.name for p in root.iterdir() if p.name not in ("site", ".MNIST.lock")] == []


def test_a_folder_that_cannot_be_made_is_named(mirror):
    _, site, _ = mirror
    with pytest.raises(DatasetError, match="cannot create the folder"):
        load_dataset("mnist", site / f"{FILES[0]}.gz" / "data")


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


@needs_mnist
@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_damaged_copy_of_mnist_is_noticed(tmp_path, monkeypatch, how):
    source, folder = find_idx("mnist"), tmp_path / "MNIST" / "raw"
    shutil.copytree(source, folder)
    for file in FILES[2:3]:
        path = data.idx_path(folder, file)
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        path.unlink()
        content = content[:-100] if how == "truncated" else content[:-1] + bytes([content[-1] ^ 255])
        (folder / file).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{FILES[2]} is truncated or altered"):
        get_loaders("mnist", data_dir=tmp_path)
