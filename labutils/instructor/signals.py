"""What Ctrl-C, SIGTERM and a closed terminal do. Imports nothing large: a signal may come while that is imported."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def on_signals(handler):
    """Have Ctrl-C, SIGTERM and a closed terminal call `handler` as long as the block lasts."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")     # the last: a closed terminal of Windows
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()    # the only one that may
    before = {number: signal.signal(number, handler) for number in numbers
              if main and signal.getsignal(number) != signal.SIG_IGN}       # nohup, or in the background
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
