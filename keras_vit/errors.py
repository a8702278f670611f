"""The one exception for a mistake of the person who uses the package."""


class InputError(ValueError):
    """Something given from outside cannot be used: a path, a file, an argument.

    The message is one sentence or two that name the thing and the mend. The command line prints it
    without a traceback and leaves with exit code 2.
    """
