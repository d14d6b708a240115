"""Checks of the exercises: each says what is probably wrong with an answer, never what is right.

The checks of a lab are in the module of its name: `from labutils.checks import vae as checks`. A check takes the
student's function, calls it on known values, on other seeds and on other shapes, and either prints that the
exercise is done or raises `WrongAnswer`. The first message names the likely misconception; from the second wrong
answer on, a stronger hint follows. What is right comes from a second source (torch.distributions, SciPy, autograd,
a case that can be done in the head), so that these files give no solution away. A check is named `check_` and the
name of the function that the exercise asks for.

A stub that is still there is told in one line, and an error of the student's own code keeps only its own frames.

Most checks are comparisons: the function gives the right value, and a list of misconceptions follows, each a
function of the same arguments with its two hints. Other checks watch what an answer does.
"""

from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from types import TracebackType

import torch

HERE = Path(__file__).parent


class WrongAnswer(AssertionError):
    """An answer that does not pass. JupyterLab shows the message alone, without the traceback."""

    def __init__(self, hint, stronger=""):
        super().__init__(hint)
        self.stronger = stronger

    def _render_traceback_(self):
        return [f"Not yet. {self}"]


class NotDone(NotImplementedError):
    """An exercise that still has its stub. JupyterLab shows the message alone, as of a `WrongAnswer`."""

    def _render_traceback_(self):
        return [f"Not done yet: {self}"]


class Check:
    """Decorator of a function that refuses wrong answers: calling the check prints that an answer is right, or raises.

    The check has random numbers of its own. It counts the wrong answers in a row, for the stronger hints.
    """

    misconceptions, also = (), None     # see `Comparison`

    def __init__(self, function):
        self.__name__, self.__doc__, self.__module__ = function.__name__, function.__doc__, function.__module__
        self.name, self.function, self.misses = function.__name__.removeprefix("check_"), function, 0

    def __call__(self, answer):
        __tracebackhide__ = True        # IPython leaves this frame out, and `without_ours` the others
        with torch.random.fork_rng(devices=[]):     # the lab draws on as if nobody had checked
            try:
                self.judge(answer)
            except NotImplementedError:
                raise NotDone(f"put your answer into {self.name}, in the cell above.") from None
            except Exception as error:
                own = without_ours(error.__traceback__)
                if own and not isinstance(error, WrongAnswer):
                    raise error.with_traceback(own)
                refusal = error if isinstance(error, WrongAnswer) else unusable(error)
                self.misses += 1
                if self.misses > 1:
                    refusal.args = (f"{refusal} {refusal.stronger}",)
                raise refusal from None
        self.misses = 0
        print(f"{self.name}: right.")

    def judge(self, answer):
        """Raise `WrongAnswer` unless the answer is right."""
        self.function(answer)


class Comparison(Check):
    """The check of an exercise whose answer is a value, compared with that of a function that gives the right one.

    Its attribute `misconceptions` is a list of (wrong, hint, stronger hint), where `wrong` is a function of the
    exercise's arguments that gives a wrong answer. The first one with the value of the student's answer is named.

    cases       function that returns the lists of arguments to try; every call gets a copy of its own
    tolerance   relative and absolute
    call        call(function, *arguments) -> value, where the value takes more than a plain call
    errors      (kind of error, hint, stronger hint): refuse an answer that raises it; {} in the hint is its first line
    before, after   conditions (holds, hint, stronger hint) to require before the values of a case are compared, and
                after those of all; holds(given, arguments after the call, arguments before the call)
    also        another check, for answers that this one does not refuse
    """

    def __init__(self, right, cases, tolerance=1e-4, call=lambda function, *arguments: function(*arguments),
                 errors=((), "", ""), before=(), after=(), also=None):
        super().__init__(right)
        self.right, self.cases, self.tolerance, self.call = right, cases, tolerance, call
        self.errors, self.before, self.after, self.also = errors, before, after, also

    def judge(self, answer):
        tried = [(self.value(answer, used := deepcopy(arguments), arguments), used, arguments)
                 for arguments in self.cases()]
        for condition, *hints in self.after:
            require(all(condition(*values) for values in tried), *hints)
        if self.also:
            self.also.judge(answer)

    def value(self, answer, used, arguments):
        """Return the value of an answer for the arguments, of which it gets the copy `used`, if it is right."""
        kind, hint, stronger = self.errors
        try:
            given = self.call(answer, *used)
        except NotImplementedError:     # of an exercise that is not solved yet
            raise
        except kind as error:
            refuse(hint.format(str(error).splitlines()[0]), stronger)
        for condition, *hints in self.before:
            require(condition(given, used, arguments), *hints)
        right = self.call(self.right, *deepcopy(arguments))
        require_close(given, right, self.mistakes(arguments), tolerance=self.tolerance)
        return given

    def mistakes(self, arguments):
        """Yield the value of each misconception that has one for these arguments, and its hints."""
        for wrong, *hints in self.misconceptions:
            with suppress(RuntimeError):        # of shapes that do not fit together
                yield self.call(wrong, *deepcopy(arguments)), *hints


def comparison(**options):
    """Decorate a function that gives the right value of an exercise, to make it a `Comparison` with these options."""
    return lambda right: Comparison(right, **options)


def unchanged(*positions):
    """Return the condition that an answer leaves the arguments at these positions, tensors, as they were."""
    return lambda given, used, kept: all(torch.equal(used[i], kept[i]) for i in positions)


has_graph = (lambda given, *_: getattr(given, "requires_grad", False),
             "The value is right, but it carries no graph: nothing can be trained with it.",
             "Where does the tensor become a plain number, or lose what it was computed from?")


def unusable(error):
    """Return the refusal of an answer with which the check itself failed."""
    return WrongAnswer(f"The check cannot use this answer. {type(error).__name__}: {error}",
                       "Does the function take the arguments and return the kind of value that its docstring names?")


def without_ours(trace):
    """Return a traceback without the frames of the checks, whose source would show all hints and what is right."""
    steps = []
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).parent != HERE:
            steps.append(trace)
        trace = trace.tb_next
    for step in reversed(steps):
        trace = TracebackType(trace, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return trace


def refuse(hint, stronger):
    """Raise `WrongAnswer`; the check adds the stronger hint from the second time on."""
    raise WrongAnswer(hint, stronger)


def require(condition, hint, stronger):
    """Refuse the answer unless the condition holds."""
    if not condition:
        raise WrongAnswer(hint, stronger)


def require_close(given, right, mistakes=(), *, tolerance=1e-4):
    """Refuse a tensor, array or number that is not `right`, naming the first mistake that fits.

    mistakes    (wrong value, hint, stronger hint)
    """
    try:
        given = torch.as_tensor(given).detach().double().cpu()
    except (TypeError, ValueError, RuntimeError):
        refuse(f"The function returns {type(given).__name__}, a tensor is asked for.",
               "Does it end in a return statement?")
    right = torch.as_tensor(right).double()
    if close(given, right, tolerance):
        return
    for value, *hints in mistakes:
        if close(given, torch.as_tensor(value).double(), tolerance):
            refuse(*hints)
    if given.shape != right.shape:
        refuse(f"The result has the shape {tuple(given.shape)}, and {tuple(right.shape)} is asked for.",
               "Over which dimension does the formula sum, and which one must be left?")
    refuse(f"The shape is right, the values are not: the largest difference is {(given - right).abs().max():.3g}.",
           "Try the case that you can do in your head, and print each term of the formula.")


def close(a, b, tolerance):
    """Tell whether two tensors have one shape and nearly the same values."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def per_image(values):
    """The sum over all but the batch, mean over the batch (B, ...): a scalar."""
    return values.sum() / len(values)


def draws(seed, *shapes):
    """Tensors of standard normal values from a generator of their own, one for each shape."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]
