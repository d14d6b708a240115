"""Fixtures that all tests share."""

import inspect
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import RUNNING, calls

# a shell that starts the tests in the background leaves Ctrl-C and a closed terminal ignored, by children too
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def executions(request, tmp_path_factory):
    """{key: future} of the selected tests of a file; what is still running after the last of them is killed."""
    selected = [item for item in request.session.items if item.module is request.module
                and not any(mark.args[0] for mark in item.iter_markers("skipif"))]
    wanted = {key: call for item in selected for key, call in calls(item).items()}
    futures = {}

    def value(name, parameters):
        if name == "folder":
            return tmp_path_factory.mktemp("run")
        return parameters[name] if name in parameters else request.getfixturevalue(name)

    with ThreadPoolExecutor(2) as pool:
        try:
            for key, (function, parameters) in wanted.items():
                values = {name: value(name, parameters) for name in inspect.signature(function).parameters}
                futures[key] = pool.submit(function, **values)
            yield futures
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures.values()):    # one may start another process meanwhile
                for process in list(RUNNING):
                    process.kill()
                time.sleep(0.1)


@pytest.fixture
def executed(request, executions):
    """What the functions that the test has marked return, in their order."""
    return [executions[key].result() for key in calls(request.node)]
