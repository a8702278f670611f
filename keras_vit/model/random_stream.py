"""Making a layer or a model leaves Python's random stream as it was."""

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_is_kept = False  # a stream of ours is in the place of Python's
_is_ours = False  # nobody else draws from Python's stream


@contextmanager
def python_random_kept(seed: int | None = None) -> Iterator[None]:
    """Within it, Keras's initializers and dropout draw their seeds from a stream of its own.

    Keras draws them from Python's stream. A user who shuffles files with `random` would get another order
    with each model that is made before.

    Args:
        seed: where the stream begins, of `next_seed`; by default a new one.
    """
    global _is_kept
    if not (_is_kept or _is_ours) and seed is None:
        seed = next_seed()
    if _is_kept or _is_ours or seed is None:
        yield
        return
    state, _is_kept = random.getstate(), True
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        _is_kept = False


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds everything as `keras.utils.set_random_seed` does.

    Models that are made within it draw from Python's stream, so a run begins with the same weights as by the
    versions before models left Python's stream alone.

    Args:
        seed: 0 or more.
    """
    global _is_ours
    import keras

    keras.utils.set_random_seed(seed)
    was_ours, _is_ours = _is_ours, True
    try:
        yield
    finally:
        _is_ours = was_ours


def next_seed() -> int | None:
    """A seed for `python_random_kept`: from Keras's stream, which `keras.utils.set_random_seed` resets too.

    Returns:
        `None` within `seeded`, which needs none, and while a backend traces a function: there are no values
        then.
    """
    if _is_kept:
        return random.randrange(2**31)
    if _is_ours:
        return None
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
