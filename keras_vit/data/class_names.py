"""Names of classes: one line of printable text, compared in Unicode's form NFC, in natural order."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from keras_vit.errors import InputError
from keras_vit.text import shown


def class_name(text: str, where: str) -> str:
    """The name of a class as this package writes it.

    Spaces around it are removed, and what is not printable is escaped: names are lines of `labels.txt`.

    Args:
        text: the name of a folder, or a label.
        where: what gives it, for the error message.

    Raises:
        InputError: nothing is left.
    """
    name = _written(text)
    if not name:
        raise InputError(f"{where} gives a class without a name: give it a name with letters or digits.")
    return name


def _written(text: str) -> str:
    return shown(unicodedata.normalize("NFC", text).strip())


def same_names(names: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """For each of these names, the known one that is the same class; names of unknown classes are left out.

    A run of an earlier version may know a name that `class_name` would write in another way.
    """
    known_as = {_written(name): name for name in reversed(known)} | {name: name for name in known}
    return {name: found for name in names if (found := known_as.get(name) or known_as.get(_written(name)))}


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in natural order."""
    return tuple(sorted(set(names), key=natural_key))


def natural_key(text: str) -> tuple:
    """A sort key that puts `a_2` before `a_10`."""
    pieces = re.split(r"([0-9]+)", text)
    # By length and digits, not as an int: Python converts no more than 4,300 digits.
    return [(len(p.lstrip("0")), p.lstrip("0")) if i % 2 else p for i, p in enumerate(pieces)], text


def notes_on(raw: Mapping[str, str]) -> list[str]:
    """What the user must know of the names, one line each.

    Args:
        raw: the name as its source writes it -> the name of the class.
    """
    spellings, foldings = defaultdict(list), defaultdict(set)
    for text, name in raw.items():
        spellings[name].append(text)
        foldings[name.casefold()].add(name)
    notes = []
    for name, texts in spellings.items():
        if len(texts) > 1:
            told = " and ".join(ascii(text) for text in sorted(texts))
            notes.append(f'{told} are the same name, written in several ways: read as one class "{name}"')
        elif unicodedata.normalize("NFC", texts[0]).strip() != name:
            notes.append(f'a class has a name that is not one line of printable text: it is called "{name}"')
    for names in foldings.values():
        if len(names) > 1:
            told = " and ".join(f'"{name}"' for name in sorted(names))
            notes.append(f"{told} differ only in capital letters: read as {len(names)} classes")
    return notes
