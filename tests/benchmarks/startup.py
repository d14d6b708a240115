"""How long a student waits before anything trains: imports, and the first training step of each lab.

    python tests/benchmarks/startup.py --device cpu         with MNIST: LABS_DATA_DIR, or data/

Each figure is the median of some fresh processes; the files lie in the system's cache from the second on. A lab's time
goes from the start of its first cell to the first step of its first long training, with all cells before it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

IMPORTS = {"torch": "import torch", "torch and labutils": "import torch, labutils",
           "torch and what lab 02 imports": "import torch; from importlib import import_module; import labutils\n"
                                            "for name in labutils.__all__: getattr(labutils, name)"}


class FirstStep(Exception):
    """Ends a lab where its training begins."""


def until_the_first_step(path, device):
    """Execute a lab's code cells up to the first step of a training loop; return the seconds and the name of the cell."""
    start = time.perf_counter()
    from helpers import code_cells
    from torch.optim.optimizer import register_optimizer_step_post_hook

    import labutils
    space, in_training = {"display": lambda *_, **__: None}, []

    def progress(iterable, description):
        in_training.append(description)
        return iterable

    def step_done(*_):
        if in_training:
            raise FirstStep
    labutils.progress = progress
    register_optimizer_step_post_hook(step_done)
    for cell in code_cells(path):
        try:
            exec(cell.source, space)
        except FirstStep:
            return time.perf_counter() - start, cell.id
        if "parameters" in cell.metadata.get("tags", []):
            space["device"] = device
    raise SystemExit(f"{path}: nothing was trained")


def seconds(code, n):
    """Median seconds that code takes in fresh processes, without the start of Python."""
    command = [sys.executable, "-c", f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"]
    return statistics.median(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(n))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--times", type=int, default=5, help="processes for each figure")
    parser.add_argument("--lab", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lab:
        import contextlib
        with contextlib.redirect_stdout(sys.stderr):        # what the cells print
            found = until_the_first_step(options.lab, options.device)
        print(*found)
        return
    for name, code in IMPORTS.items():
        print(f"import {name:<32}{seconds(code, options.times):6.2f} s", flush=True)
    from helpers import NOTEBOOKS
    for path in NOTEBOOKS:
        found = []
        for _ in range(options.times):
            done = subprocess.run([sys.executable, __file__, "--lab", str(path), "--device", options.device],
                                  capture_output=True, text=True, check=True)
            took, cell = done.stdout.split()[-2:]
            found.append(float(took))
        print(f"first step of {path.stem:<25}{statistics.median(found):6.2f} s, in the cell {cell!r}", flush=True)


if __name__ == "__main__":
    main()
