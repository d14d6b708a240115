"""`labs doctor`: examine the installation; say what is there, what is wrong, and what to do about it.

It has to work when nothing else does: packages are imported inside the probes, a probe that fails does not stop the
others, and the large packages are tried in a separate process.
"""

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from ..limits import cores, memory_limit
from ..paths import PROJECT_ROOT, project_path

FAULT = "fault"
MODULES = ("torch", "torchvision", "cv2", "numpy", "matplotlib", "sklearn", "skimage", "scipy", "safetensors",
           "papermill", "jupyterlab")
INSTALL = "pip install -c constraints.txt -e ."
PAIR = "pip install -c constraints.txt torch torchvision"
MIN_MEMORY, MIN_DISK = 2e9, 1e9     # bytes: for a lab at the lesson's values with MNIST, and for what runs write


def doctor():
    """Print what the probes find, faults last; return 1 if there are any, else 0."""
    faults = []
    for probe in (system, packages, imports, memory, writing, data_sets, kernels, notebooks):
        try:
            for label, text in probe():
                if label == FAULT:
                    faults.append(text)
                else:
                    print(f"{label:<24}  {text}", flush=True)
        except Exception as error:      # whatever is broken, the other probes still have something to say
            faults.append(f"{probe.__name__}: could not be examined ({one_line(error)}); {INSTALL}")
    print("\n".join(["", *(f"fault: {fault}" for fault in faults)]) if faults else "\nno fault found")
    return int(bool(faults))


def one_line(error):
    """Return an exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


# -------------------------------------------------------------- probes: each yields (label, text) or (FAULT, text)

def system():
    """Say where the project and its Python are."""
    yield "project", f"{PROJECT_ROOT}, version {installed_version('labutils') or 'unknown'}"
    if not (PROJECT_ROOT / "pyproject.toml").is_file():
        yield FAULT, f"labutils is in {PROJECT_ROOT}, without the project around it; in the project's folder: {INSTALL}"
    yield "python", f"{platform.python_version()} ({sys.executable}) on {platform.platform()}"
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        yield FAULT, ("this Python is for Macs with an Intel processor, for which there is no torch above 2.2, too old "
                      "for the labs: use another computer, or Colab; a Mac with an M processor needs Python for arm64")


def packages():
    """Compare the installed versions with those of constraints.txt."""
    from packaging.requirements import Requirement
    from packaging.version import Version
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (PROJECT_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {pin.name: str(pin.specifier).removeprefix("==") for pin in pinned
            if pin.marker is None or pin.marker.evaluate()}     # those of this system
    needed = map(Requirement, project["dependencies"])
    fits = {need.name: need.specifier for need in needed if need.marker is None or need.marker.evaluate()}
    found = {name: installed_version(name) for name in {*fits, *pins}}
    for name in fits:
        yield name, found[name] or "missing"
    old = [name for name in fits if found[name] and not fits[name].contains(found[name], prereleases=True)]
    # a local label (2.15.0+cpu) says how a version was built, not which one it is
    other = [name for name, pin in pins.items()
             if found[name] and name not in old and Version(found[name]).public != pin]
    for what, names in (("missing", [name for name in fits if not found[name]]),
                        ("too old for the labs", [f"{name} {found[name]} (not {fits[name]})" for name in old]),
                        ("of another version", [f"{name} {found[name]} (not {pins[name]})" for name in other])):
        if names:
            yield FAULT, f"packages {what}: {listed(names)}; {INSTALL}"


def installed_version(name):
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def listed(names, n=8):
    """Return at most `n` names in one line, and how many more there are."""
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more


def imports():
    """Import the large packages, and ask torch for its devices."""
    child = python("-c", "from labutils.instructor.doctor import try_imports; try_imports()")
    found = dict(json.loads(line) for line in child.stdout.splitlines() if line.startswith('["'))
    killer = next((name for name in MODULES if name not in found), None)
    if killer:
        yield FAULT, f"importing {killer} ends Python ({child.returncode}: {last_line(child.stderr)}); {INSTALL}"
    for name in MODULES:
        if found.get(name):
            yield FAULT, import_fault(name, found)
    if not found.get("torch", "unknown"):
        yield "devices", ", ".join(found["devices"]["names"])
        yield from gpu_faults(**found["devices"])


def try_imports():
    """Print a line [module, error or ""] for each module, and one on torch's devices; runs in a separate process."""
    for name in MODULES:
        try:
            importlib.import_module(name)
            error = ""
        except Exception as fault:
            error = one_line(fault)
        print(json.dumps([name, error]), flush=True)
    if torch := sys.modules.get("torch"):
        has_cuda = torch.cuda.is_available()
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if has_cuda else []
        names += ["mps"] if torch.backends.mps.is_available() else []
        names += [f"cpu ({torch.get_num_threads()} threads)"]
        print(json.dumps(["devices", {"names": names, "build": torch.version.cuda, "has_cuda": has_cuda}]), flush=True)


def import_fault(name, found):
    """Say why a module does not import, and what to do."""
    if name == "torchvision" and not found["torch"]:
        return (f"torchvision {installed_version('torchvision')} does not fit torch {installed_version('torch')} "
                f"({found[name]}); install a pair that fits: {PAIR}")
    return f"{name} cannot be imported ({found[name]}); {INSTALL}"


def gpu_faults(names, build, has_cuda):
    """Say why torch does not see a GPU that nvidia-smi sees."""
    if has_cuda or not shutil.which("nvidia-smi"):
        return
    smi = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                         capture_output=True, text=True, timeout=60)
    if smi.returncode:
        said = last_line(smi.stdout + smi.stderr)
        yield FAULT, f"nvidia-smi fails ({said}): restart the machine, or reinstall NVIDIA's driver"
    elif (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        yield FAULT, f"torch sees no GPU, since CUDA_VISIBLE_DEVICES={hidden!r}: unset it"
    else:
        way_out = (f"its CUDA {build} may need a newer driver: install NVIDIA's newest" if build else
                   f"it is built for the CPU only: pip uninstall torch torchvision, then {PAIR}")
        yield FAULT, f"torch does not see the GPU that nvidia-smi does ({last_line(smi.stdout)}); {way_out}"


def python(*arguments):
    """Run this Python from the project's root; return the finished process."""
    return subprocess.run([sys.executable, *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300)


def last_line(text):
    """Return the last line of a text that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")


def memory():
    """Look at cores, memory and disk space: what this process may use of them."""
    import psutil
    found, disk = psutil.virtual_memory(), shutil.disk_usage(PROJECT_ROOT)
    total = memory_limit(found.total)       # a container's may be less
    free = min(found.available, total)
    yield "cores", f"{cores()} of {os.cpu_count()} may be used"
    yield "memory", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free"
    yield "disk", f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB are free in {PROJECT_ROOT}"
    if free < MIN_MEMORY:
        yield FAULT, (f"only {free / 1e9:.1f} GB of memory are free; a lab may use {MIN_MEMORY / 1e9:.0f}; "
                      "end other programs and kernels, or set 'limit' in the notebook")
    if disk.free < MIN_DISK:
        yield FAULT, (f"only {disk.free / 1e9:.1f} GB are free on the disk of {PROJECT_ROOT}; "
                      "make room there (old runs are in runs/), or name another folder with --out")


def writing():
    """Try to write where runs go."""
    folder = PROJECT_ROOT / "runs"
    try:
        with tempfile.TemporaryFile(dir=folder if folder.exists() else PROJECT_ROOT):
            yield "runs go to", folder
    except OSError as error:
        yield FAULT, (f"nothing can be written to {folder} ({error.strerror}): run labs with --out DIR, "
                      "and set out_dir in a notebook, or ask for the right to write there")


def data_sets():
    """Look for the data sets, and verify those found."""
    folder = os.environ.get("LABS_DATA_DIR")
    if folder and not project_path(folder).is_dir():
        yield FAULT, f"LABS_DATA_DIR={folder}: there is no such folder; name the one with MNIST/raw, or unset it"
        return
    child = python("-m", "labutils.instructor.cli", "data")
    for line in child.stdout.splitlines():
        name, _, rest = line.partition(" ")
        if rest.strip().startswith("damaged"):
            yield FAULT, f"the data set {name} is {rest.strip()}"
        elif name == "downloads":
            yield "proxy of downloads", rest.partition("the proxy ")[2]
        elif name != "looked":
            yield f"data set {name}", rest.strip()
    if not child.stdout:
        yield FAULT, f"'labs data' fails ({last_line(child.stderr)}); the faults named before this one may be why"


def kernels():
    """Check that each kernel's Python exists, and that `python3` is the Python of this environment."""
    from jupyter_client.kernelspec import KernelSpecManager
    bin_folder = Path(sys.executable).parent
    for name, about in KernelSpecManager().get_all_specs().items():
        program, folder = Path(about["spec"]["argv"][0]), about["resource_dir"]
        yield f"kernel {name}", program
        if not program.is_absolute():
            continue        # found on the path; "python" is the Python that starts it
        way_out = f"jupyter kernelspec remove {name}"
        if not program.exists():
            yield FAULT, f"the kernel {name} ({folder}) is stale: its program {program} does not exist; {way_out}"
        elif name == "python3" and program.parent.resolve() != bin_folder.resolve():
            yield FAULT, (f"the kernel python3 ({folder}) runs {program}, not the Python of this environment in "
                          f"{bin_folder}, so with other packages; {way_out}")


def notebooks():
    """Check that every lab is JSON with a list of cells."""
    folder = PROJECT_ROOT / "notebooks"
    paths = sorted(folder.glob("*.ipynb"))
    yield "notebooks", f"{len(paths)} in {folder}"
    for path in paths:
        try:
            [cell["cell_type"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield FAULT, f"{path} is not a notebook ({one_line(error)}): git checkout notebooks/{path.name}"
