"""The exceptions of the package, whose messages can be printed: see `keras_vit.text`."""

from keras_vit.text import shown_lines


class _Told(Exception):
    """An exception whose message is escaped: it may hold names that others have chosen."""

    def __init__(self, message: object = ""):
        super().__init__(shown_lines(message))


class InputError(_Told, ValueError):
    """An input cannot be used: a path, a file, an argument.

    The message is one sentence or two that name the input and the fix. The command line prints it without a
    traceback and ends with exit code 2.
    """


class DistributionError(_Told, RuntimeError):
    """Another process of a run on several processes has ended or cannot be reached.

    The input is not wrong: the command line ends with exit code 1.
    """


class ServerError(_Told, RuntimeError):
    """A server cannot be reached, refuses a request, or gives an invalid answer.

    The input may be right: the command line ends with exit code 1.

    Args:
        message: one sentence.
        may_pass: whether the same request may succeed a little later.

    Attributes:
        answers: of the requests before the one that failed, if there were several.
    """

    def __init__(self, message: str, may_pass: bool = False):
        super().__init__(message)
        self.may_pass = may_pass
        self.answers: list = []


class ProcessFailed(_Told, RuntimeError):
    """A process that this one started ended without a result, or failed again and again.

    Not a mistake in what was given: the command line ends with exit code 1. The message names the log.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
