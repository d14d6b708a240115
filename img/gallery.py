"""Put together img/results.png from what the last `labs run` or `labs refresh` left in runs/."""

import cv2
import numpy as np

from labutils import collage, get_loaders, save_image
from labutils.paths import PROJECT_ROOT

ROWS, COLUMNS, SIDE, SCALE = 5, 6, 28, 2
SHEETS = (("02_vae/samples_epoch_010.png", 1), ("04_gan/dcgan_samples.png", 2), ("05_wgan/penalty_samples.png", 2))


def corner(path, scale):
    """Return the upper left digits of a sheet that a lab has saved at the given scale."""
    sheet = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if sheet is None:
        raise SystemExit(f"{path} is not there: run the labs at the lesson's values first (make full)")
    sheet = sheet[::scale, ::scale]
    digits = sheet.reshape(sheet.shape[0] // SIDE, SIDE, -1, SIDE).transpose(0, 2, 1, 3).reshape(-1, SIDE, SIDE)
    return collage(digits[:ROWS * COLUMNS], COLUMNS, scale=SCALE)


def last_change(folder):
    """Return when the last of a folder's sheets was written; 0 if one is missing."""
    paths = [folder / name for name, _ in SHEETS]
    return max(path.stat().st_mtime for path in paths) if all(path.is_file() for path in paths) else 0


def main():
    """Write the four blocks side by side: real digits, VAE, DCGAN, WGAN with gradient penalty."""
    _, test = get_loaders("mnist")
    runs = max((PROJECT_ROOT / "runs/full", PROJECT_ROOT / "runs/refresh"), key=last_change)
    blocks = [collage(test.images[:ROWS * COLUMNS], COLUMNS, scale=SCALE)]
    blocks += [corner(runs / name, scale) for name, scale in SHEETS]
    gap = np.full((blocks[0].shape[0], 16), 255, np.uint8)
    save_image("img/results.png", np.hstack([part for block in blocks for part in (gap, block)][1:]))


if __name__ == "__main__":
    main()
