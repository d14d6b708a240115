"""Ship trained weights with the course: as float16 in checkpoints/, each described by card.json."""

import json
from importlib.metadata import version

from ..checkpoints import PRETRAINED_DIR, read_card, read_checkpoint, sha256, write_checkpoint
from ..paths import replacing

ABOUT = """# Trained weights

For `pretrained = True`. `labs refresh LAB` trains them again at the lesson's values, in the run whose outputs the
notebook then shows; `labs refresh classifier` does the same for the classifier that judges samples. They are stored as
float16. The header of each file holds its settings and its history, which `labutils.load_checkpoint` returns. The
seconds are those of the training, where they are known. The facts below are also in `card.json`, whose SHA-256 sums are
verified whenever weights are loaded.

| File (.safetensors) | Lab | Data | Epochs | Seconds | Seed | Versions | Metrics | MB | SHA-256 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def ship(path, lab):
    """Copy the checkpoint at `path`, which a run of `lab` has written, into checkpoints/, and describe it."""
    config, tensors = read_checkpoint(path)
    tensors = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    shipped = write_checkpoint(PRETRAINED_DIR / path.name, config, tensors)
    card = read_card()
    card[path.stem] = {"lab": lab, **{key: config[key] for key in ("dataset", "epochs", "seed", "metrics")},
                       "seconds": round(config.get("seconds", 0)) or None,
                       "versions": {package: version(package) for package in ("labutils", "torch")},
                       "bytes": shipped.stat().st_size, "sha256": sha256(shipped)}
    write_card(dict(sorted(card.items())))


def write_card(card):
    """Write the card for machines, card.json, and the same facts for readers, README.md."""
    for name, text in (("card.json", json.dumps(card, indent=2) + "\n"), ("README.md", ABOUT + table(card))):
        with replacing(PRETRAINED_DIR / name) as part:
            part.write_text(text, encoding="utf-8")


def table(card):
    """Return the card as the rows of a table in Markdown."""
    rows = []
    for name, about in card.items():
        cells = (f"`{name}`", about["lab"], about["dataset"], about["epochs"], about.get("seconds") or "",
                 about["seed"], listed(about["versions"]),
                 listed(about["metrics"]), f"{about['bytes'] / 1e6:.2f}", f"`{about['sha256']}`")
        rows.append(f"| {' | '.join(map(str, cells))} |\n")
    return "".join(rows)


def listed(pairs):
    """Return names and values in one line; numbers with four digits."""
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in pairs.items())
