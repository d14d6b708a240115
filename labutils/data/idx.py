"""MNIST and the data sets in its file format, IDX (http://yann.lecun.com/exdb/mnist)."""

import gzip
import hashlib
import math
import zlib

import numpy as np
import torch

from .source import DatasetError, DownloadedSource, simple

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
         "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class IdxSource(DownloadedSource):
    """A data set of four IDX files, raw or gzipped; its images are (N, 1, 28, 28).

    md5  sums of the unpacked files, in the order of `FILES`. torchvision has those of the gzipped files, which
         serve where the others are not published.
    """

    files, md5 = FILES, ()

    @property
    def subfolder(self):
        return f"{self.torchvision_name}/raw"

    def has_all(self, folder):
        return all(self.path(folder, file) for file in FILES)

    def places(self, root):
        """Return `NAME/raw`, then where the files land by mistake: one folder higher, lower or of another spelling."""
        folders = sorted(root.iterdir()) if root.is_dir() else []
        named = [path for path in folders if simple(path.name) == simple(self.torchvision_name) and path.is_dir()]
        places = [base / below for base in (*named, root)
                  for below in ("raw", "", self.subfolder, f"raw/{self.subfolder}")]
        return list(dict.fromkeys([root / self.subfolder, *places]))

    def owns(self, folder):
        """Tell whether a folder has the set's name, or else its smallest file the set's checksum."""
        if simple((folder.parent if folder.name == "raw" else folder).name) == simple(self.torchvision_name):
            return True
        file = next((file for file in reversed(FILES) if self.path(folder, file)), None)
        if not file or not self.md5 and self.path(folder, file).suffix != ".gz":
            return False        # only header and length could be verified, which another set may have as well
        try:
            return bool(len(self.read_file(folder, file)))
        except DatasetError:
            return False

    def names(self):
        return f"{super().names()} (packed, with .gz, or not)"

    def path(self, folder, file):
        """Return the path of an IDX file in `folder`, raw or gzipped, spelled with - or . before idx; or None.

        Kaggle's archive has some of them in a folder of the same name.
        """
        spellings = (file, file.replace("-idx", ".idx"))
        paths = [folder / path for name in spellings for path in (name, f"{name}.gz", f"{name}/{name}")]
        return next((path for path in paths if path.is_file()), None)

    def contents(self, folder):
        paths = {file: self.path(folder, file) for file in FILES}
        return {f"{file}.gz" if path.suffix == ".gz" else file: path for file, path in paths.items()}

    def read(self, folder, limit=None):
        arrays = [self.read_file(folder, file) for file in FILES]
        for images, labels, file in zip(arrays[::2], arrays[1::2], FILES[::2]):
            if len(images) != len(labels):
                raise DatasetError(f"{folder / file} holds {len(images)} images, but its label file "
                                   f"{len(labels)} labels; delete the folder to download the set again")
        images, labels, test_images, test_labels = map(torch.from_numpy, arrays)
        return images[:, None], labels.long(), test_images[:, None], test_labels.long()

    def verify(self, folder=None):
        self.read(folder)
        if not self.md5 and any(self.path(folder, file).suffix != ".gz" for file in FILES):
            return "(headers and lengths only: no checksums of the unpacked files are published)"
        return ""

    def read_file(self, folder, file):
        """Read one IDX file as a uint8 array of shape (N,) or (N, rows, columns); raises `DatasetError`.

        The checksum is verified, of the unpacked or of the gzipped content. Where no sum is published, as for an
        unpacked file of KMNIST, header and length are verified.
        """
        path = self.path(folder, file)
        way_out = 'delete it and run again to download a new copy; without a network take dataset="digits"'
        try:
            packed = path.read_bytes()
            content = gzip.decompress(packed) if path.suffix == ".gz" else packed
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"{path} cannot be read ({error}); {way_out}") from error
        if not self.is_genuine(file, content, packed if path.suffix == ".gz" else None):
            raise DatasetError(f"{path} is truncated or altered (its MD5 sum is not that of the "
                               f"published {self.torchvision_name} file); {way_out}")
        start = 4 + 4 * content[3]      # the fourth byte is the number of dimensions
        shape = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").tolist()
        if len(content) != start + math.prod(shape):
            raise DatasetError(f"{path} is truncated: {len(content)} bytes; {way_out}")
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()

    def is_genuine(self, file, content, packed=None):
        """Tell whether a file is the published one, by the MD5 sum of its content or of the gzipped file."""
        if self.md5:
            return hashlib.md5(content).hexdigest() == self.md5[FILES.index(file)]
        if packed is not None:
            return hashlib.md5(packed).hexdigest() == dict(self.torchvision_class.resources)[f"{file}.gz"]
        return content[:4] == bytes((0, 0, 8, 3 if "images" in file else 1))


class Mnist(IdxSource):
    """Handwritten digits (Y. LeCun and others, Gradient-Based Learning Applied to Document Recognition, 1998)."""
    name, torchvision_name = "mnist", "MNIST"
    md5 = ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
           "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637")


class FashionMnist(IdxSource):
    """Clothes (H. Xiao and others, 2017, arXiv:1708.07747)."""
    name, torchvision_name = "fashion", "FashionMNIST"
    md5 = ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
           "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965")


class Kmnist(IdxSource):
    """Handwritten Japanese characters (T. Clanuwat and others, 2018, arXiv:1812.01718)."""
    name, torchvision_name = "kmnist", "KMNIST"
