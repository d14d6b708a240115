"""The kernel of a run: papermill's client and engine, watched from outside while they work."""

import asyncio
import logging
import os
import platform
import re
import signal
import socket
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import papermill
import psutil
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from ..limits import memory_limit, out_of_memory_kills
from ..paths import PROJECT_ROOT
from .labs import UsageError

START_TIMEOUT = 120     # seconds until the kernel must answer
SAVE_EVERY = 5          # seconds; writing a large notebook takes about 20 ms
MEASURE_EVERY = 0.5     # seconds; a kernel that is killed cannot be asked afterwards
EXAMINE = "'labs doctor' examines the installation"
SOCKETS = "labs-"       # the start of the names of the files that a kernel listens on
QUIET_KERNEL = ["--IPKernelApp.log_level=CRITICAL"]     # else it would print its complaints about an interruption


class Watch:
    """A run seen from outside while it goes on: how far it is, what its kernel uses. `stop` ends it."""

    def __init__(self):
        self.notebook, self.kernel, self.started, self.stopped = None, None, None, False
        self.cell, self.cpu_seconds, self.peak_memory = 0, 0.0, 0
        self.exit_code, self.kills_before, self.timeout = None, 0, None

    def attach(self, pid):
        """Note the kernel's process."""
        self.kills_before = out_of_memory_kills()
        with suppress(psutil.NoSuchProcess):
            self.kernel = psutil.Process(pid)
        if self.stopped:        # the signal came before there was a kernel to kill
            self.stop()

    def begin_cell(self, cell_index, **_):
        """Note the cell in progress, counted from 1."""
        self.cell = cell_index + 1

    def measure(self, **_):
        """Note the kernel's CPU time and memory; if the kernel is dead, the last values stay."""
        with suppress(psutil.Error, OSError):
            self.cpu_seconds = sum(self.kernel.cpu_times()[:4])     # user and system, its own and its ended children's
            self.peak_memory = max(self.peak_memory, peak_memory(self.kernel))

    def where(self):
        """Say in which cell the run is."""
        return f"in cell {self.cell} of {len(self.notebook.cells)}" if self.cell else "before its first cell"

    def cause_of_death(self):
        """Say in one line where and how the kernel has ended, and what to do; of memory only if the figures say so."""
        if self.exit_code is None or self.exit_code >= 0:
            code = "" if self.exit_code is None else f" with exit code {self.exit_code}"
            return f"the kernel ended {self.where()}{code}; {EXAMINE}"
        limit = memory_limit(psutil.virtual_memory().total)
        held = f"it held {self.peak_memory / 1e9:.1f} of {limit / 1e9:.1f} GB"
        killed = self.exit_code == -getattr(signal, "SIGKILL", 0)
        if killed and (self.peak_memory > 0.8 * limit or out_of_memory_kills() > self.kills_before):
            return (f"killed {self.where()}, probably for want of memory: {held}; "
                    "a smaller batch_size or limit needs less")
        name = {number.value: number.name for number in signal.Signals}.get(-self.exit_code, "a signal")
        way_out = "run it again" if killed else EXAMINE
        return f"killed {self.where()} by {name}, while {held} of memory; {way_out}"

    def stop(self):
        """Kill the kernel and all processes that it has started, now or as soon as it exists."""
        self.stopped = True
        with suppress(psutil.Error, AttributeError):
            for process in [*self.kernel.children(recursive=True), self.kernel]:
                with suppress(psutil.Error):
                    process.kill()


def peak_memory(process):
    """Return the most bytes that a process has held, or, if the system does not count that, those of this moment."""
    if platform.system() == "Linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        return 1024 * int(found[1]) if found else 0     # a zombie has none
    memory = process.memory_info()
    return getattr(memory, "peak_wset", memory.rss)


class OwnKernel(KernelSpecManager):
    """The kernel of every lab: the Python of this command, with its labutils, whatever kernels a user has installed."""

    def get_kernel_spec(self, kernel_name):
        """Return how the kernel is started; the notebooks' folder, where it starts, does not lead to labutils."""
        folders = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return KernelSpec(**get_kernel_dict(), env={"PYTHONPATH": os.pathsep.join(folders)})


class WatchedClient(PapermillNotebookClient):
    """papermill's client, which shows its kernel to a `Watch` and calls `save` every few seconds."""

    def __init__(self, manager, watch, save, **options):
        super().__init__(manager, on_cell_start=self.begin_cell, on_cell_executed=watch.measure, **options)
        self.watch, self.save, self.timers = watch, save, {}

    def begin_cell(self, **about):
        """Tell the watch, and start to save and to measure with the first cell."""
        self.watch.begin_cell(**about)
        if not self.timers:
            self.repeat(self.save, SAVE_EVERY)
            self.repeat(self.watch.measure, MEASURE_EVERY)

    def repeat(self, step, seconds):
        """Call `step` every few seconds: in the client's own thread, while it waits for the kernel."""
        def call():
            with suppress(Exception):       # the run goes on; it saves once more at its end, and reports a fault then
                step()
            self.repeat(step, seconds)
        self.timers[step] = asyncio.get_running_loop().call_later(seconds, call)

    def create_kernel_manager(self):
        """Let the kernel listen on files: Jupyter picks ports that another process may take before the kernel does.

        A system allows only some 100 bytes for the path of such a file, and Windows has none: then it is ports.
        """
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = OwnKernel(parent=manager)
        path = f"{tempfile.gettempdir()}/{SOCKETS}{uuid.uuid4().hex}"
        if len(os.fsencode(path)) + len("-99999") <= zmq.IPC_PATH_MAX_LEN:
            manager.transport, manager.ip = "ipc", path
        return manager

    def start_new_kernel(self, **options):
        """Start the kernel and show it."""
        super().start_new_kernel(**options)
        self.watch.attach(self.km.provisioner.pid)

    @contextmanager
    def setup_kernel(self, **options):
        """Have a kernel as long as the block lasts; at the end measure it and stop the timer."""
        with super().setup_kernel(**options):
            try:
                yield
            finally:
                self.watch.measure()
                with suppress(AttributeError):      # the process is gone, or was never there
                    self.watch.exit_code = self.km.provisioner.process.poll()
                for timer in self.timers.values():
                    timer.cancel()


class WatchedEngine(NBClientEngine):
    """papermill's engine with a `Watch`. It gives the kernel its folder: os.chdir would change that of all threads."""

    @classmethod
    def execute_managed_notebook(cls, manager, kernel_name, *, watch, save, folder, start_timeout, execution_timeout,
                                 **_):
        """Execute the notebook of papermill's `manager`, and call `save` now and then; time-outs in seconds."""
        watch.notebook, watch.timeout = manager.nb, execution_timeout
        quiet = logging.getLogger("labs.quiet")     # what it would print is in the error that we report
        for logger in (quiet, logging.getLogger("tornado.general")):    # the second: of a kernel that was just killed
            logger.setLevel(logging.CRITICAL)
        WatchedClient(manager, watch, save, kernel_name=kernel_name, startup_timeout=start_timeout,
                      timeout=execution_timeout, extra_arguments=list(QUIET_KERNEL),
                      resources={"metadata": {"path": folder}}, log=quiet).execute()


papermill_engines.register("labs", WatchedEngine)


def execute(path, parameters, watch, save, timeout):
    """Execute a notebook in its own folder; raises what stopped it.

    watch       shows the progress; `watch.notebook` has the outputs so far, also after an error
    save        called without arguments every few seconds
    timeout     seconds for one cell
    """
    template = str(path).translate(str.maketrans({"{": "{{", "}": "}}"}))      # papermill formats the path
    papermill.execute_notebook(template, None, parameters, engine_name="labs", kernel_name="python3",
                               progress_bar=False, autosave_cell_every=0, start_timeout=START_TIMEOUT,
                               execution_timeout=timeout, watch=watch, save=save, folder=str(path.parent))


def remove_dead_sockets():
    """Remove the files of sockets that kernels of killed runners have left in the temporary folder."""
    for path in Path(tempfile.gettempdir()).glob(f"{SOCKETS}*-*"):
        with suppress(OSError):
            old = time.time() - path.stat().st_mtime > 60       # seconds; on a new one nobody may listen yet
            if old and path.is_socket() and nobody_listens(path):
                path.unlink()


def nobody_listens(path):
    """Tell whether the process that listened on a socket is gone; raises `OSError` if that cannot be told."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def describe(fault, watch=None):
    """Say in one line what stopped a notebook; `watch` knows where it was, and how its kernel ended."""
    if isinstance(fault, papermill.PapermillExecutionError):
        text = str(fault.evalue).strip().splitlines()
        return f"{fault.ename}: {text[0] if text else 'no message'} (cell {fault.exec_count})"
    if isinstance(fault, UsageError):
        return str(fault)
    if watch and isinstance(fault, DeadKernelError):
        return watch.cause_of_death()
    if watch and isinstance(fault, CellTimeoutError) and "Cell execution timed out" in str(fault):
        return f"stopped {watch.where()}, which took longer than {watch.timeout} s; --timeout SECONDS allows more"
    line = f"{type(fault).__name__}: {str(fault).strip() or 'no message'}".splitlines()[0]
    return f"{line} ({watch.where()}); {EXAMINE}" if watch and watch.notebook and not watch.cell else line
