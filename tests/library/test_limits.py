"""What a process may use: the files of Linux are small ones of the test, and the affinity is a real one."""

import os
import shutil
import subprocess

import pytest
import torch
from helpers import BIN

from labutils import limits, training

QUOTAS = [
    ({"cpu.max": "200000 100000"}, "0::/", 2),
    ({"cpu.max": "150000 100000"}, "0::/", 2),
    ({"cpu.max": "1000 100000"}, "0::/", 1),
    ({"cpu.max": "max 100000"}, "0::/", 64),
    ({"a/cpu.max": "max 100000", "cpu.max": "800000 100000"}, "0::/a/b", 8),
    ({"a/b/cpu.max": "900000 100000", "a/cpu.max": "300000 100000"}, "0::/a/b", 3),
    ({"cpu.max": "400000 100000"}, "0::/docker/of the host", 4),
    ({"cpu.max": "400000 100000"}, "0::/../../up", 4),
    ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", 2),
    ({"cpu,cpuacct/d/cpu.cfs_quota_us": "500000", "cpu,cpuacct/d/cpu.cfs_period_us": "100000"},
     "9:name=systemd:/x\n4:cpu,cpuacct:/d/e\n0::/", 5),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", 64),
    ({"cpu/cpu.cfs_quota_us": "200000"}, "1:cpu:/", 64),
    ({"memory/cpu.max": "100000 100000"}, "3:memory:/", 64),
    ({"unified/cpu.max": "200000 100000"}, "0::/", 2),
    *[({"cpu.max": damaged}, "0::/", 64) for damaged in ("", "many", "1", "1 0", "-5 100000", "nan 1")],
    ({"cpu.max": "200000 100000"}, "", 64),
]


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """Return a function that writes the files of control groups, and the lines that say in which we are."""
    def write(files, own):
        for name, content in files.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(f"{content}\n")
        (tmp_path / "own").write_text(f"{own}\n" if own else "")
    monkeypatch.setattr(limits, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(limits, "usable_cores", lambda: 64)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    return write


@pytest.mark.parametrize("files, own, expected", QUOTAS)
def test_the_quota_of_a_container_counts(control_groups, files, own, expected):
    control_groups(files, own)
    assert limits.cores() == expected


@pytest.mark.parametrize("text, expected", [("4", 4), ("128", 64), ("0", 1), ("", 64), ("all", 64)])
def test_the_cores_of_a_slurm_task_count(control_groups, monkeypatch, text, expected):
    control_groups({}, "")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", text)
    assert limits.cores() == expected


def test_elsewhere_than_on_linux_the_cores_of_the_machine_count(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "OWN_CGROUP", tmp_path / "nothing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    for found, expected in ((10, 10), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda: found)
        assert limits.cores() == expected and limits.memory_limit(16e9) == 16e9
    assert limits.out_of_memory_kills() == 0


@pytest.mark.skipif(not shutil.which("taskset"), reason="taskset is not installed")
def test_the_cores_that_a_process_may_run_on_count():
    done = subprocess.run(["taskset", "-c", str(min(os.sched_getaffinity(0))), BIN / "python", "-c",
                           "from labutils.limits import cores; print(cores())"], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


def test_a_notebook_takes_no_more_threads_than_cores(tmp_path, monkeypatch):
    before = torch.get_num_threads()
    try:
        for threads, n_cores, expected in ((4, 2, 2), (2, 4, 2)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(training, "cores", lambda: n_cores)
            training.set_up(0, "cpu", tmp_path)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("files, own, limit, kills", [
    ({"memory.max": "8000000000", "memory.events": "low 0\noom 3\noom_kill 2"}, "0::/", 8e9, 2),
    ({"memory.max": "max", "a/memory.max": "5000000000"}, "0::/a/b", 5e9, 0),
    ({"memory/memory.limit_in_bytes": "4000000000", "memory/memory.oom_control": "under_oom 0\noom_kill 1"},
     "4:memory:/docker/x", 4e9, 1),
    ({"memory/memory.limit_in_bytes": "9223372036854771712"}, "4:memory:/", 16e9, 0),
    ({"memory.max": "0"}, "0::/", 16e9, 0)])
def test_the_memory_of_a_container_counts(control_groups, files, own, limit, kills):
    control_groups(files, own)
    assert limits.memory_limit(16e9) == limit and limits.out_of_memory_kills() == kills
