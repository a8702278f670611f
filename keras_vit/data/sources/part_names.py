"""Names of the parts of a data set: `train`, `validation_set`, `seg_test`, `valData`, `test2017`."""

import re
from typing import NamedTuple

EVALUATION, PREDICTION = "evaluation", "prediction"
"""Parts that become the test or validation part, whichever is free, if they have labels."""

WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "develop", "development"),
    "test": ("test", "testing", "tst", "holdout"),
    EVALUATION: ("eval", "evaluation", "evaluate"),
    PREDICTION: (
        "pred",
        "predict",
        "prediction",
        "predictions",
        "inference",
        "infer",
        "unlabeled",
        "unlabelled",
    ),
}  # fmt: skip
_ROLES = {word: role for role, words in WORDS.items() for word in words}

# Words that say nothing of what is in a part.
_SETS = (
    "set", "sets", "data", "dataset", "datasets", "split", "splits", "part", "folder", "dir",
    "image", "images", "img", "imgs", "sample", "samples", "files", "the", "all",
)  # fmt: skip


class PartName(NamedTuple):
    """What a name says.

    Args:
        role: a key of `WORDS`.
        is_sure: whether it says nothing else: `seg_train` could be a class, `train_set` not.
        rest: the name without the word of the part.
    """

    role: str
    is_sure: bool
    rest: str


def part_name(name: str) -> PartName | None:
    """The part that a name is of, or `None` if it names none, or two."""
    words = [word for word in _tokens(name) if word not in _SETS and not word.isdigit()]
    roles = {_ROLES[word] for word in words if word in _ROLES}
    # Inside a name the word means something else: "crash_test_dummy".
    if len(roles) != 1 or not {words[0], words[-1]} & _ROLES.keys():
        return None
    rest = [word for word in words if word not in _ROLES]
    return PartName(roles.pop(), not rest, "_".join(rest))


def _tokens(name: str) -> list[str]:
    """The words of a name in lower case: `trainingSet_2` is training, set, 2."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    words = re.findall(r"[^\W\d_]+|\d+", parted)
    return [piece for word in words for piece in _split_glued(word.lower())]


def _split_glued(word: str) -> list[str]:
    """`trainset` is train, set."""
    for ending in ("sets", "set", "data", "dataset", "images", "imgs", "split"):
        stem = word.removesuffix(ending)
        if stem != word and stem in _ROLES:
            return [stem, ending]
    return [word]
