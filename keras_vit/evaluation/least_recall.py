"""The words of `--min-recall`: CLASS=RECALL."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from keras_vit.errors import InputError
from keras_vit.text import shown


def read_recalls(words: Sequence[str]) -> dict[str, float]:
    """Class name -> least recall.

    Args:
        words: such as `"scratches=0.98"`; the class may have `=` in its name.

    Raises:
        InputError: a word is of another form, a recall is out of range, or a class comes twice.
    """
    found: dict[str, float] = {}
    for word in words:
        name, sign, number = word.rpartition("=")
        try:
            recall = float(number)
        except ValueError:
            sign = ""
        if not sign or not name:
            raise InputError(
                f"--min-recall takes CLASS=RECALL, such as scratches=0.98. Received: {shown(word)}"
            )
        if not 0 < recall <= 1:
            hint = f": write {recall / 100:g} for {recall:g} %" if 1 < recall <= 100 else ""
            raise InputError(f"A least recall is above 0, and 1 at most{hint}. Received: {shown(word)}")
        if name in found:
            raise InputError(f"--min-recall names the class {shown(name)} twice: give it once.")
        found[name] = recall
    return found


def _as_words(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(f"{name}={recall}" for name, recall in value.items())
    return value


def _checked(words: tuple[str, ...]) -> tuple[str, ...]:
    read_recalls(words)
    return words


LeastRecalls = Annotated[
    tuple[str, ...],
    Field(min_length=1, strict=False),
    AfterValidator(_checked),
    BeforeValidator(_as_words),
]
"""Words of `read_recalls`; a dict of class name to recall is accepted too."""
