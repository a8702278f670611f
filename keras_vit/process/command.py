"""The shell command that repeats a run or a search, made from its settings."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from keras_vit.text import shown

LATIN = {code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), 0xAD)}
"""Characters that `shown` writes as `\\x80`, which a shell takes for bytes."""


def repeat_command(program: Iterable[str], options: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The shell command that sets these options.

    Args:
        program: the first words, such as `("keras-vit", "train")`.
        options: value by field name, in the order in which the command gives them.
        defaults: of the same fields. An option that has its default is left out; one that is not here is
            always given.

    Returns:
        The command, quoted for a shell.

    Example:
        >>> repeat_command(["keras-vit", "train"], {"epochs": 8, "seed": 0}, {"epochs": 30, "seed": 0})
        'keras-vit train --epochs 8'
    """
    words = list(program)
    for name, value in options.items():
        if name in defaults and value == defaults[name]:
            continue
        words += _option(name, value, is_flag=isinstance(defaults.get(name, value), bool))
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """A word as a shell reads it; what is not printable becomes an escape that bash and zsh read back.

    Example:
        >>> quoted("a b\\x1b")
        "$'a b\\\\x1b'"
    """
    if shown(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'").translate(LATIN)
    return f"$'{shown(escaped)}'"


def _option(name: str, value: Any, is_flag: bool) -> list[str]:
    option = name.replace("_", "-")
    if is_flag:  # one that may also be None, such as xla, takes a word
        return [f"--{option}" if value else f"--no-{option}"]
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{option}", *map(str, values)]
