"""The exceptions of the package."""


class InputError(ValueError):
    """Something given from outside cannot be used: a path, a file, an argument.

    The message is one sentence or two that name the thing and the mend. The command line prints it
    without a traceback and leaves with exit code 2.
    """


class DistributionError(RuntimeError):
    """Another process of a run on several has ended or cannot be reached.

    Not a mistake in what was given: the command line leaves with exit code 1.
    """


class ServerError(RuntimeError):
    """A server cannot be reached, refuses a request, or gives an answer that makes no sense.

    Not surely a mistake in what was given: the command line leaves with exit code 1.

    Args:
        message: one sentence.
        may_pass: whether the same request may get its answer a little later.

    Attributes:
        answers: where several requests were made, the answers to those before this one.
    """

    def __init__(self, message: str, may_pass: bool = False):
        super().__init__(message)
        self.may_pass = may_pass
        self.answers: list = []


class ProcessFailed(RuntimeError):
    """A process that this one started ended without a result, or failed again and again.

    Not a mistake in what was given: the command line ends with exit code 1. The message names the log.
    """


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_range(name, value, low, high, open_low=False):
    """Raises InputError where a number is outside low..high; `None` as value is fine."""
    if value is None:
        return
    too_low = value <= low if open_low else value < low
    if too_low or not value < float("inf") or (high is not None and value > high):
        above = f"above {low}" if open_low else f"{low} or more"
        upto = "" if high is None else f" and {high} at most"
        raise InputError(f"{name} must be {above}{upto}. Received: {name}={value}")


def check_choice(name, value, choices):
    """Raises InputError where a word is none of the choices."""
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise InputError(f"{name} must be one of {allowed}. Received: {name}={value!r}")
