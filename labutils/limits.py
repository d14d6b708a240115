"""What a process may use of its machine: cores and memory, which a container or a batch system limits."""

import math
import os
from pathlib import Path

CGROUP, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")      # Linux alone has them


def cores():
    """Return how many cores this process may use, at least 1.

    The fewest of: those that it may run on (`taskset`), the quota of its control group or of one around it
    (`docker run --cpus`), and those of its Slurm task.
    """
    found = [usable_cores()]
    for folder in cgroup_folders("cpu"):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):      # version 2, and 1
            numbers = [number for name in names for number in numbers_in(folder / name)]
            if len(numbers) == 2 and 0 < numbers[0] < math.inf and numbers[1] > 0:
                found.append(math.ceil(numbers[0] / numbers[1]))
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min([*found, int(slurm)] if slurm.isdecimal() else found))


def usable_cores():
    """Return how many cores the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):        # neither on macOS nor on Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limit(machine):
    """Return how many bytes this process may hold: what its control groups allow, of the `machine`'s bytes."""
    limits = [numbers_in(folder / name) for folder in cgroup_folders("memory")
              for name in ("memory.max", "memory.limit_in_bytes")]
    return min([machine, *(limit[0] for limit in limits if limit and limit[0] > 0)])


def out_of_memory_kills():
    """Return a number that grows when the system kills a process of this control group for want of memory."""
    lines = [line.split() for folder in cgroup_folders("memory") for name in ("memory.events", "memory.oom_control")
             for line in text_of(folder / name).splitlines()]
    return sum(int(words[1]) for words in lines if words[:1] == ["oom_kill"])


def cgroup_folders(controller):
    """Return the folders of this process's control group and of those around it, for version 2 and for version 1.

    Within a container the path may be that of the host, of which the container sees the end alone: folders that do
    not exist are among them.
    """
    folders = []
    for line in text_of(OWN_CGROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        below = Path(path.lstrip("/"))
        for root in (controllers, controller) if controllers else ("", "unified"):
            folders += [CGROUP / root / part for part in (below, *below.parents)]
    return list(dict.fromkeys(folders))


def numbers_in(path):
    """Return the numbers in a file, of which "max" is infinite; [] for a file that cannot be read."""
    try:
        return [math.inf if word == "max" else int(word) for word in text_of(path).split()]
    except ValueError:
        return []


def text_of(path):
    """Return what a file holds, or "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
