"""What breaks on Windows and can be seen elsewhere; nobody has tried the course there."""

import ast
import signal
import subprocess
import sys

import pytest

from labutils.instructor.signals import on_signals
from labutils.paths import PROJECT_ROOT

SOURCES = sorted(path for folder in ("labutils", "img", "docs") for path in (PROJECT_ROOT / folder).rglob("*.py"))
NOT_THERE = {"fcntl", "pty", "termios", "tty", "resource", "pwd", "grp", "posix"}       # modules
NO_CALLS = {"fork", "killpg", "getuid", "geteuid", "setsid", "mkfifo", "symlink", "symlink_to", "getpgid"}

each_file = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))


def calls(path):
    """Yield (name of the function, call) of the calls in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", "")), node


def opens_text(name, call):
    """Tell whether a call reads or writes text of a file, in the encoding of the system if none is named."""
    if isinstance(call.func, ast.Attribute) == (name == "open"):     # Image.open and gzip.open read bytes
        return False
    modes = [argument.value for argument in [*call.args, *(word.value for word in call.keywords)]
             if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
    return name in ("read_text", "write_text") or name == "open" and not any("b" in mode for mode in modes)


@each_file
def test_text_is_read_and_written_in_utf_8(path):
    """Windows takes another encoding where none is named."""
    unnamed = [call.lineno for name, call in calls(path) if opens_text(name, call)
               and "encoding" not in {word.arg for word in call.keywords} and "/proc/" not in ast.unparse(call)]
    assert not unnamed


@each_file
def test_nothing_is_used_that_windows_does_not_have(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not modules & NOT_THERE
    assert not {name for name, _ in calls(path)} & NO_CALLS


def test_the_command_starts_and_stops_without_the_signals_of_other_systems(monkeypatch):
    for name in ("SIGHUP", "SIGKILL", "SIGUSR1"):
        monkeypatch.delattr(signal, name)
    before = signal.getsignal(signal.SIGTERM)
    with on_signals(signal.default_int_handler):
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before
    lines = ("import signal", "del signal.SIGHUP, signal.SIGKILL", "from labutils.instructor.cli import main",
             "raise SystemExit(main(['list', '01_autoencoder']))")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0 and "dataset = " in done.stdout, done.stderr
