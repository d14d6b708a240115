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
from helpers import needs_mnist

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


@pytest.mark.parametrize("piece", [1, 784 * 70, 784 * 96, 2**18])
def test_batches_do_not_depend_on_how_many_are_made_at_one_time(monkeypatch, piece):
    monkeypatch.setattr("labutils.data.PIECE", piece)
    for loader in get_loaders("digits", batch_size=32, limit=200):
        order = torch.randperm(200, generator=torch.Generator().manual_seed(0)) if loader.shuffle else torch.arange(200)
        batches = list(loader)
        assert [len(images) for images, _ in batches] == [32] * 6 + [8] and len(batches) == len(loader)
        assert torch.equal(torch.cat([images for images, _ in batches]), loader.images[order] / 255)
        assert torch.equal(torch.cat([labels for _, labels in batches]), loader.labels[order])


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
    ({"image_shape": (1, 32, 32)}, ["dataset='digits'", "(1, 28, 28)", "(1, 32, 32)"]),
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


def load_in_process(root, queue, start):
    start.wait(60)
    queue.put(len(load_dataset("mnist", root)[0]))
    queue.close()
    queue.join_thread()


@pytest.mark.parametrize("n", [2, 8])
def test_processes_prepare_one_set_at_once(mirror, n):
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


# ------------------------------------------------------------------------------------------- faces

def test_faces_are_those_of_scikit_image_split_by_seed():
    import cv2
    from skimage.data import lfw_subset
    images, labels, test_images, test_labels = load_dataset("faces")
    assert images.shape == (80, 1, 32, 32) and test_images.shape == (20, 1, 32, 32) and images.dtype == torch.uint8
    assert not labels.any() and labels.shape == (80,) and test_labels.shape == (20,)
    small = [cv2.resize(face[0], (25, 25), interpolation=cv2.INTER_AREA).ravel() for face in torch.cat([images, test_images]).numpy()]
    near = np.corrcoef(small, lfw_subset()[:100].reshape(100, -1))[:100, 100:]
    assert near.max(axis=1).min() > 0.95
    assert sorted(near.argmax(axis=1)) == list(range(100)), "each face once, none of the background"
    assert (near.argmax(axis=1) != np.arange(100)).any(), "the order is drawn"


def test_faces_are_served_like_the_other_sets():
    train, test = get_loaders("faces", 16, limit=30)
    assert [len(labels) for _, labels in train] == [16, 14] and test.n_images == 20
    images, _ = next(iter(train))
    assert images.shape == (16, 1, 32, 32) and 0 <= images.min() < images.max() <= 1


# ------------------------------------------------------------------------------ folders of pictures

def write_picture(path, array):
    from PIL import Image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def album(tmp_path):
    """A folder with 20 grey pictures of mixed sizes; picture i has the grey value 10 i."""
    for i in range(20):
        write_picture(tmp_path / "album" / f"{i:02d}.png", np.full((20 + 7 * i, 90 - i), 10 * i, np.uint8))
    return tmp_path / "album"


def values(images):
    return (images[:, 0, 32, 32] // 10).tolist()


def test_every_tenth_file_of_a_folder_is_for_the_test(album):
    images, labels, test_images, _ = load_dataset(f"folder:{album}")
    assert images.shape == (18, 1, 64, 64) and test_images.shape == (2, 1, 64, 64)
    assert values(test_images) == [0, 10] and values(images) == [*range(1, 10), *range(11, 20)]
    assert not labels.any() and labels.dtype == torch.int64


def test_subfolders_belong_to_a_folder_and_other_files_do_not(album):
    write_picture(album / "z" / "20.JPG", np.full((8, 8), 200, np.uint8))
    (album / "notes.txt").write_text("no picture")
    images, _, test_images, _ = load_dataset(f"folder:{album}")
    assert len(images) == 18 and values(test_images) == [0, 10, 20]


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
    from PIL import Image
    array = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (70, 1))
    picture = Image.fromarray(array.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(array)
    if mode not in ("L", "I;16"):
        colour = Image.fromarray(np.stack([array, array[:, ::-1], array], axis=2))
        picture = (picture if grey else colour).convert(mode)
    for name in "ab":
        picture.save(tmp_path / f"{name}.{'tif' if mode == 'CMYK' else 'png'}")
    images = load_dataset(f"folder:{tmp_path}")[0]
    assert images.shape == (1, 1 if grey else 3, 64, 64)
    assert images[0, 0, 32, 2] < 60 and images[0, 0, 32, -3] > 195


def test_the_middle_of_a_picture_is_kept(tmp_path):
    wide = np.zeros((100, 300), np.uint8)
    wide[:, 100:200] = 255
    for name in "ab":
        write_picture(tmp_path / f"{name}.png", wide)
        write_picture(tmp_path / f"{name}2.png", wide.T.copy())
    images, _, test_images, _ = load_dataset(f"folder:{tmp_path}")
    assert (torch.cat([images, test_images]) == 255).all()


def test_a_photograph_is_turned_upright(tmp_path):
    from PIL import Image
    picture = Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 40)[:, None].repeat(80, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 3        # turned by 180 degrees
    for name in "ab":
        picture.save(tmp_path / f"{name}.png", exif=exif)
    image = load_dataset(f"folder:{tmp_path}")[0][0, 0]
    assert image[5, 32] == 255 and image[-5, 32] == 0


def test_unreadable_files_are_counted_named_and_skipped(album, capsys):
    (album / "03.png").write_bytes(b"no picture at all")
    (album / "04.png").write_bytes(b"")
    whole = (album / "05.png").read_bytes()
    (album / "05.png").write_bytes(whole[:len(whole) // 2])
    images, _, test_images, _ = load_dataset(f"folder:{album}")
    assert len(images) + len(test_images) == 17
    assert "3 file(s) skipped" in (said := capsys.readouterr().out) and "03.png, 04.png, 05.png" in said


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


def test_limit_spares_the_reading_of_files(album, monkeypatch):
    read = []
    original = data.read_picture
    monkeypatch.setattr(data, "read_picture", lambda path: read.append(path) or original(path))
    train, test = get_loaders(f"folder:{album}", limit=9)
    assert len(read) == 11 and values(train.images) == list(range(1, 10)) and values(test.images) == [0, 10]
    read.clear()
    assert get_loaders(f"folder:{album}", limit=1)[0].n_images == 1 and len(read) == 2


# ------------------------------------------------------------------------------------------ CelebA

@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """Nine pictures in CelebA's layout, read by torchvision's own class with its checksums put aside."""
    from torchvision.datasets import CelebA
    monkeypatch.setattr(CelebA, "file_list", [(id_, None, name) for id_, _, name in CelebA.file_list])
    monkeypatch.setattr(data, "PROJECT_ROOT", tmp_path / "project")
    monkeypatch.delenv("LABS_DATA_DIR", raising=False)
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


def test_celeba_through_torchvision_with_its_attributes(celeba):
    images, labels, test_images, test_labels = load_dataset("celeba", celeba)
    assert images.shape == (5, 3, 64, 64) and test_images.shape == (3, 3, 64, 64)
    assert labels.shape == (5, 40) and test_labels.shape == (3, 40) and labels.dtype == torch.int64
    assert labels[:, 0].tolist() == [0, 1, 0, 1, 0] and test_labels[0, :4].tolist() == [0, 1, 0, 1]
    assert (images[:, :, 32, 32].long() - torch.tensor([[20 * i, 100, 200] for i in range(5)])).abs().max() <= 6   # JPEG
    train, test = get_loaders("celeba", 2, data_dir=celeba, limit=3)
    assert [labels.shape for _, labels in train] == [(2, 40), (1, 40)] and test.n_images == 3


def test_a_damaged_celeba_is_named(celeba):
    (celeba / "celeba" / "img_align_celeba" / "000002.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match='damaged or not complete.*dataset="faces"'):
        load_dataset("celeba", celeba)


def test_without_celeba_and_a_network_the_bundled_faces_are_named(celeba, monkeypatch):
    monkeypatch.setattr(data, "any_answers", lambda urls: False)
    with pytest.raises(DatasetError, match='no server answers.*dataset="faces"'):
        load_dataset("celeba", celeba / "elsewhere")


def test_celeba_is_downloaded_whole_or_not_at_all(celeba, monkeypatch):
    from torchvision.datasets import CelebA
    monkeypatch.setattr(data, "any_answers", lambda urls: True)

    def broken(self):
        shutil.copytree(celeba / "celeba", f"{self.root}/celeba")
        raise RuntimeError("the server hung up")
    monkeypatch.setattr(CelebA, "download", broken)
    target = celeba / "new"
    with pytest.raises(DatasetError, match="hung up"):
        load_dataset("celeba", target)
    assert [path.name for path in target.iterdir()] == [".celeba.lock"]
    monkeypatch.setattr(CelebA, "download", lambda self: shutil.copytree(celeba / "celeba", f"{self.root}/celeba"))
    assert load_dataset("celeba", target)[0].shape == (5, 3, 64, 64)
