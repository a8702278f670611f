"""The command `python -m tuning`."""

import signal
import sys

from keras_vit.cli.shell import parse_words
from keras_vit.errors import InputError
from keras_vit.process.children import ProcessFailed
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from keras_vit.search.config import SearchConfig
from keras_vit.search.run import SearchFailed, search

DESCRIPTION = """Search depth, heads, dim and the training of a ViT with Hyperband.

It goes on where it was cut, with the same command. In the end it trains the best point on train and
validation images, judges it once on the test images, and leaves a report.

Examples:
  python -m tuning
  python -m tuning --space defect28 --data images --max-epochs 27 --out searches/steel
  python -m tuning --data images --freeze depth=6 stem=conv --max-minutes 480 --workers 4
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: the words after `python -m tuning`; `None` takes them from the command line.

    Returns:
        The exit code: 0 fine, 1 failed, 2 wrong usage.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # the processes are ended in order
    try:
        config = _parse(arguments)
        search(config)
        return FINE
    except (SearchFailed, ProcessFailed) as error:
        return _complain(str(error), FAILED)
    except InputError as error:
        return _complain(str(error), WRONG_USAGE)
    except KeyboardInterrupt:
        return _complain("Stopped: the same command goes on.", FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}.", FAILED)


def _parse(arguments) -> SearchConfig:
    return parse_words(SearchConfig, arguments, prog="python -m tuning", description=DESCRIPTION)


def _complain(sentence, code) -> int:
    print(f"tuning: {sentence}", file=sys.stderr)
    return code
