"""Errors that say in one line what is wrong with a value, a file or a folder, where, and what to do about it."""


from numbers import Integral


class OneLine:
    """Base of an exception whose message says all: a notebook shows one line in place of the traceback.

    Outside a notebook, and for every other exception, the traceback stays.
    """

    def _render_traceback_(self):       # IPython asks for it
        trace = self.__traceback__
        while trace and trace.tb_frame.f_globals.get("__name__") != "__main__":
            trace = trace.tb_next
        place = f" (line {trace.tb_lineno} of the cell)" if trace else ""
        return [f"{type(self).__name__}: {self}{place}"]


class BadValue(OneLine, ValueError):
    """A parameter or an argument has a value that cannot be used."""


class BadFolder(OneLine, OSError):
    """A folder cannot be made."""


def require_whole(least=1, hint="", **values):
    """Raise `ValueError` for a value that is not a whole number, or is below `least`; the message ends in `hint`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise BadValue(f"{name}={value!r}: must be a whole number of at least {least}{hint}")
