"""Making a layer or a model leaves Python's random stream as it was."""

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_is_kept = False


@contextmanager
def python_random_kept() -> Iterator[None]:
    """Within it, seeds of Keras come from its own random stream and not from Python's.

    Keras draws the seeds of initializers and of dropout from Python's stream. A user who shuffles files with
    `random` would get another order with each model that is made before. `keras.utils.set_random_seed` resets
    Keras's own stream too, so weights are reproducible as before.
    """
    global _is_kept
    seed = None if _is_kept else _drawn()
    if seed is None:
        yield
        return
    state, _is_kept = random.getstate(), True
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        _is_kept = False


def _drawn() -> int | None:
    """A seed from Keras's stream; `None` while a backend traces a function, where there are no values."""
    import keras  # slow: the arguments of a model are read without it

    state = random.getstate()  # from which the stream of Keras begins if nothing has been seeded
    try:
        return int(keras.random.randint((), 0, 2**31 - 1, dtype="int32"))
    except Exception:  # each backend has another error for it
        return None
    finally:
        random.setstate(state)


def keeps_python_random(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function within `python_random_kept`."""

    @functools.wraps(function)
    def keep(*args: Any, **kwargs: Any) -> Any:
        with python_random_kept():
            return function(*args, **kwargs)

    return keep
