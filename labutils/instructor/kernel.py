"""The kernel of a run: papermill's client and engine, watched from outside while they work."""

import asyncio
import logging
import platform
import re
import tempfile
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import papermill
import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from .labs import UsageError

START_TIMEOUT = 120     # seconds until the kernel must answer
SAVE_EVERY = 5          # seconds; writing a large notebook takes about 20 ms
QUIET_KERNEL = ["--IPKernelApp.log_level=CRITICAL"]     # else it would print its complaints about an interruption


class Watch:
    """A run seen from outside while it goes on: how far it is, what its kernel uses. `stop` ends it."""

    def __init__(self):
        self.notebook, self.kernel, self.started, self.stopped = None, None, None, False
        self.cell, self.cpu_seconds, self.peak_memory = 0, 0.0, 0

    def attach(self, pid):
        """Note the kernel's process."""
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

    def where_stopped(self):
        """Say in which cell the run was stopped."""
        if not self.cell:
            return "stopped before its first cell"
        return f"stopped in cell {self.cell} of {len(self.notebook.cells)}"

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


class WatchedClient(PapermillNotebookClient):
    """papermill's client, which shows its kernel to a `Watch` and calls `save` every few seconds."""

    def __init__(self, manager, watch, save, **options):
        super().__init__(manager, on_cell_start=self.begin_cell, on_cell_executed=watch.measure, **options)
        self.watch, self.save, self.timer = watch, save, None

    def begin_cell(self, **about):
        """Tell the watch, and start to save with the first cell."""
        self.watch.begin_cell(**about)
        if self.timer is None:
            self.save_later()

    def save_later(self):
        """Save in a few seconds: in the client's own thread, while it waits for the kernel."""
        self.timer = asyncio.get_running_loop().call_later(SAVE_EVERY, self.save_now)

    def save_now(self):
        """Save, and set the timer again."""
        with suppress(Exception):       # the run goes on; it saves once more at its end, and reports a fault then
            self.save()
        self.save_later()

    def create_kernel_manager(self):
        """Let the kernel listen on files: Jupyter picks ports that another process may take before the kernel does."""
        manager = super().create_kernel_manager()
        if platform.system() != "Windows":      # which has no such files for ZeroMQ
            manager.transport, manager.ip = "ipc", f"{tempfile.gettempdir()}/labs-{uuid.uuid4().hex}"
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
                if self.timer is not None:
                    self.timer.cancel()


class WatchedEngine(NBClientEngine):
    """papermill's engine with a `Watch`. It gives the kernel its folder: os.chdir would change that of all threads."""

    @classmethod
    def execute_managed_notebook(cls, manager, kernel_name, *, watch, save, folder, start_timeout, execution_timeout,
                                 **_):
        """Execute the notebook of papermill's `manager`, and call `save` now and then; time-outs in seconds."""
        watch.notebook = manager.nb
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


def describe(fault):
    """Say in one line what stopped a notebook."""
    if isinstance(fault, papermill.PapermillExecutionError):
        text = str(fault.evalue).strip().splitlines()
        return f"{fault.ename}: {text[0] if text else 'no message'} (cell {fault.exec_count})"
    if isinstance(fault, UsageError):
        return str(fault)
    return f"{type(fault).__name__}: {str(fault).strip() or 'no message'}".splitlines()[0]
