"""Put together img/results.png and img/training.webp from what the last `labs run` or `labs refresh` left in runs/."""

import cv2
import numpy as np

from labutils import collage, get_loaders, save_image
from labutils.images import save_animation
from labutils.paths import PROJECT_ROOT

ROWS, COLUMNS, SIDE, SCALE = 5, 6, 28, 2
SHEETS = (("02_vae/samples_epoch_010.png", 1), ("04_gan/dcgan_samples.png", 2), ("05_wgan/penalty_samples.png", 2))
# what the same networks drew during their trainings, always from the same codes
TRAININGS = ("02_vae/samples_epoch_*.png", "04_gan/dcgan_epoch_*.png", "05_wgan/samples_05_wgan_penalty_*.png")
FRAMES, FILM_ROWS = 10, 4       # a sheet of the DCGAN has 24 digits


def corner(path, scale, rows=ROWS):
    """Return the first digits of a sheet that a lab has saved at the given scale."""
    sheet = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if sheet is None:
        raise SystemExit(f"{path} is not there: run the labs at the lesson's values first (make full)")
    sheet = sheet[::scale, ::scale]
    digits = sheet.reshape(sheet.shape[0] // SIDE, SIDE, -1, SIDE).transpose(0, 2, 1, 3).reshape(-1, SIDE, SIDE)
    return collage(digits[:rows * COLUMNS], COLUMNS, scale=SCALE)


def last_change(folder):
    """Return when the last of a folder's sheets was written; 0 if one is missing."""
    paths = [folder / name for name, _ in SHEETS]
    return max(path.stat().st_mtime for path in paths) if all(path.is_file() for path in paths) else 0


def side_by_side(blocks):
    """Return blocks of the same height in a row, with white strips between them."""
    gap = np.full((len(blocks[0]), 16), 255, np.uint8)
    return np.hstack([part for block in blocks for part in (gap, block)][1:])


def film(runs, pattern):
    """Return blocks of a training from its first sheet to its last, at first in quick succession: much happens then."""
    sheets = sorted(runs.glob(pattern))
    taken = np.geomspace(1, len(sheets), FRAMES).round().astype(int) - 1
    return [corner(sheets[i], 1, FILM_ROWS) for i in taken]


def main():
    """Write the four blocks side by side: real digits, VAE, DCGAN, WGAN with gradient penalty."""
    _, test = get_loaders("mnist")
    runs = max((PROJECT_ROOT / "runs/full", PROJECT_ROOT / "runs/refresh"), key=last_change)
    real, few = (collage(test.images[:rows * COLUMNS], COLUMNS, scale=SCALE) for rows in (ROWS, FILM_ROWS))
    save_image("img/results.png", side_by_side([real, *(corner(runs / name, scale) for name, scale in SHEETS)]))
    films = [film(runs, pattern) for pattern in TRAININGS]
    save_animation("img/training.webp", [side_by_side([few, *blocks]) for blocks in zip(*films)],
                   per_second=2, hold=3)


if __name__ == "__main__":
    main()
