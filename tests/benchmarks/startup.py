"""How long a student waits before anything trains: imports, and the first training step of each lab.

    python tests/benchmarks/startup.py --device cpu         with MNIST: LABS_DATA_DIR, or data/

Each number is the median of several fresh processes; the files are in the system's cache from the second one on.
A lab's time goes from the start of its first cell to the first step of its first training, with all cells before it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

IMPORTS = {"torch": "import torch", "torch and labutils": "import torch, labutils",
           "torch and all of labutils": "import torch, labutils\nfor name in labutils.__all__: getattr(labutils, name)"}


class FirstStep(Exception):
    """Ends a lab where its training begins."""


def until_the_first_step(path, device):
    """Execute a lab's code cells up to the first step of a `Training`; return the seconds and the name of the cell."""
    start = time.perf_counter()
    from helpers import code_cells
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from labutils import Training
    space, trainings, epochs = {"display": lambda *_, **__: None}, [], Training.epochs

    def noted_epochs(training, *arguments, **parts):
        trainings.append(training)
        return epochs(training, *arguments, **parts)

    def step_done(*_):
        if trainings:
            raise FirstStep
    Training.epochs = noted_epochs
    register_optimizer_step_post_hook(step_done)
    for cell in code_cells(path):
        try:
            exec(cell.source, space)
        except FirstStep:
            return time.perf_counter() - start, cell.id
        if "parameters" in cell.metadata.get("tags", []):
            space["device"] = device
    raise SystemExit(f"{path}: nothing was trained")


def last_line(*arguments):
    """Run Python with these arguments; return the words of the last line that it prints."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--times", type=int, default=5, help="processes for each number")
    parser.add_argument("--lab", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lab:
        return print(*until_the_first_step(options.lab, options.device))
    from helpers import NOTEBOOKS
    timed = "import time; start = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"
    runs = {f"import {name}": ("-c", timed.format(code)) for name, code in IMPORTS.items()}
    runs |= {f"first step of {path.stem}": (__file__, "--lab", path, "--device", options.device) for path in NOTEBOOKS}
    for name, arguments in runs.items():
        found = [last_line(*arguments) for _ in range(options.times)]
        where = "".join(f", in the cell {cell}" for cell in found[0][1:])
        print(f"{name:<39}{statistics.median(float(words[0]) for words in found):6.2f} s{where}", flush=True)


if __name__ == "__main__":
    main()
