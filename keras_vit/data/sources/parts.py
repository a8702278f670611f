"""Which folders are parts of a data set, such as train and test, and which are classes."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import NoReturn

from keras_vit.data.sources.kinds import SourceFiles, images_in_words
from keras_vit.data.sources.part_names import EVALUATION, PREDICTION, PartName, part_name
from keras_vit.errors import InputError

Paths = dict[PurePosixPath, PurePosixPath]
"""The path in the source -> the part of it that the rules see."""

# A folder with such a name between a part and its classes has no meaning: train/images/scratches/1.jpg.
NEUTRAL_FOLDERS = frozenset({"images", "image", "imgs", "img", "data", "jpegimages", "pictures", "photos"})

LAYOUTS = (
    "Layouts that work: CLASS/image.png; or train/CLASS/image.png with test/CLASS/image.png and, if you "
    "like, validation/CLASS/image.png"
)
CLASS_WORDS = ("train", "val", "valid", "dev", "test", "eval", "holdout")
"""Names of parts that may also be a class, where the folders beside them are classes: train, car, bus."""

PLAIN = ("train", "training", "val", "valid", "validation", "test", "testing")
"""Names of parts that need no line to say what they became."""


@dataclass(frozen=True)
class Top:
    """One of the outermost folders.

    Args:
        name: of the folder.
        below: path in the source -> path below the folder.
    """

    name: str
    below: Paths

    @cached_property
    def part(self) -> PartName | None:
        """What its name says of a part."""
        return part_name(self.name)

    @property
    def role(self) -> str:
        """The part that its name says; empty if it says none."""
        return self.part.role if self.part else ""

    @property
    def is_sure(self) -> bool:
        """Whether its name says a part and nothing else."""
        return self.part is not None and self.part.is_sure

    @cached_property
    def inside(self) -> Paths:
        """Its images by their class folders: below folders that hold everything and say nothing."""
        inner = self.below
        while True:
            firsts = {short.parts[0].lower() if len(short.parts) > 1 else "" for short in inner.values()}
            if "" in firsts or not (
                firsts <= NEUTRAL_FOLDERS or (len(firsts) == 1 and self._repeats(*firsts))
            ):
                return inner
            inner = {path: below(short) for path, short in inner.items()}

    def _repeats(self, folder: str) -> bool:
        """Whether a folder in it says the same: seg_train/seg_train."""
        inner = part_name(folder)
        return folder == self.name.lower() or (
            inner is not None and inner.is_sure and inner.role == self.role
        )

    @cached_property
    def folders(self) -> frozenset[str]:
        """The folders in it that may be classes."""
        return frozenset(short.parts[0] for short in self.inside.values() if len(short.parts) > 1)


def tops_of(paths: Paths) -> tuple[list[Top], list[PurePosixPath]]:
    """The outermost folders, and the images outside them."""
    groups: dict[str, Paths] = defaultdict(dict)
    loose = []
    for path, short in paths.items():
        if len(short.parts) > 1:
            groups[short.parts[0]][path] = below(short)
        else:
            loose.append(path)
    return [Top(name, groups[name]) for name in sorted(groups)], loose


def below(path: PurePosixPath) -> PurePosixPath:
    """The path below its first folder."""
    return PurePosixPath(*path.parts[1:])


def find_parts(files: SourceFiles, paths: Paths, judging: bool) -> dict[str, Paths]:
    """Tells the parts from the classes.

    Args:
        files: gets notes of what the user must know.
        paths: images, below the folders that hold all of them.
        judging: whether the images only judge a run, which needs no train part.

    Returns:
        Part or `EVALUATION` or `PREDICTION` -> its images, whose first folder is their class. One key, `""`,
        if the folders are classes.

    Raises:
        InputError: the folders can be read in two ways, or there is no train part.
    """
    tops, loose = tops_of(paths)
    sure, named = [top for top in tops if top.is_sure], [top for top in tops if top.part]
    only_parts = bool(tops) and not loose and len(named) == len(tops)
    has_train = any(top.role == "train" for top in named)
    if only_parts and (has_train or judging) and (len(sure) == len(tops) or _belong_together(named)):
        return _parts(files, tops, [(top, top.role, top.inside) for top in tops])
    if only_parts and len(sure) == len(tops):
        raise InputError(
            f'{files.source} has the folders {_list(tops)} and no folder "train". Add it, or, if these are '
            f"classes, give them other names. {LAYOUTS}."
        )
    nested = [top for top in sure if top.folders]
    if nested:
        others = [top.name for top in tops if top not in nested] + ["loose images"] * bool(loose)
        raise InputError(
            f"{files.source} has the folders {_list(nested)}, and also {_list(others)}. Keep only train, "
            f"validation and test folders, or only class folders. {LAYOUTS}."
        )
    tops = _without_predictions(files, tops)
    paths = {path: paths[path] for path in [*(path for top in tops for path in top.below), *loose]}
    for top in tops:
        if top.is_sure and top.name.lower() not in CLASS_WORDS:
            _ambiguous(files, f'the folder "{top.name}" is named after a part and holds no class folders')
        if top.is_sure:
            files.notes.append(
                f'"{top.name}" is read as a class, like the folders beside it. If it is a part, it needs '
                "class folders, and a folder train beside it"
            )
    if any(top.folders for top in tops):
        return _deeper(files, tops, loose, paths)
    return _flat(files, tops, paths)


def _without_predictions(files: SourceFiles, tops: list[Top]) -> list[Top]:
    """The folders without those whose images have no labels and no other meaning: `predict/1.png`."""
    unused = [top for top in tops if top.is_sure and top.role == PREDICTION and not top.folders]
    for top in unused:
        files.notes.append(_not_used(top.name, len(top.below)))
    return [top for top in tops if top not in unused]


def _belong_together(named: list[Top]) -> bool:
    """Whether folders such as seg_train and seg_test are parts: other parts, and the same classes in them."""
    classes = frozenset().union(*(top.folders for top in named if top.role == "train"))
    others = [top for top in named if top.role != "train"]
    return bool(classes and others) and all(not top.folders or top.folders & classes for top in others)


def _parts(files: SourceFiles, tops: list[Top], found: Iterable[tuple[Top, str, Paths]]) -> dict[str, Paths]:
    parts: dict[str, Paths] = defaultdict(dict)
    told: dict[str, str] = {}
    for top, role, inside in found:
        parts[role] |= inside
        told[top.name] = role
    if any(name.lower() not in PLAIN for name in told):
        said = ", ".join(f"{name} ({role})" for name, role in told.items())
        files.notes.append(f"these folders are parts, not classes: {said}")
    return dict(parts)


def _flat(files: SourceFiles, tops: list[Top], paths: Paths) -> dict[str, Paths]:
    """No folder holds folders: all are classes, unless `cats_train` is beside `cats_test`."""
    roles: dict[str, set[str]] = defaultdict(set)
    for top in tops:
        if top.part and not top.is_sure:
            roles[top.part.rest].add(top.role)
    if any(len(found) > 1 for found in roles.values()):
        _ambiguous(files, f"the folders {_list(tops)} are named after parts and hold no class folders")
    return {"": paths}


def _deeper(
    files: SourceFiles, tops: list[Top], loose: list[PurePosixPath], paths: Paths
) -> dict[str, Paths]:
    """Folders in folders, none of them named after a part alone: classes, if that is the only way."""
    inner = Counter(
        name for top in tops for name in {s.parts[0] for s in top.below.values() if len(s.parts) > 1}
    )
    named = {name: part for name in inner if (part := part_name(name)) and part.is_sure}
    if named:
        only_parts = all(
            len(s.parts) == 2 and s.parts[0] in named for top in tops for s in top.below.values()
        )
        if loose or not only_parts or "train" not in {part.role for part in named.values()}:
            _ambiguous(files, f"there are parts ({_list(named)}) inside some of the folders {_list(tops)}")
        # scratches/train/1.png
        parts: dict[str, Paths] = defaultdict(dict)
        for top in tops:
            for path, short in top.below.items():
                parts[named[short.parts[0]].role][path] = PurePosixPath(top.name, short.name)
        files.notes.append(f"the folders {_list(named)} in the class folders are parts")
        return dict(parts)
    repeated = sorted(
        name for name, number in inner.items() if number > 1 and name.lower() not in NEUTRAL_FOLDERS
    )
    if len(repeated) > 1:
        _ambiguous(
            files,
            f"the same folders ({_list(repeated)}) are in several of the folders {_list(tops)}: either may "
            "be the classes; if those inside are groups, such as parts or strips, add --group-by parent",
        )
    return {"": paths}


def settle_roles(files: SourceFiles, parts: dict[str, Paths]) -> dict[str, Paths]:
    """The parts, with evaluation and prediction images as test or validation images where there are none."""
    settled = {role: found for role, found in parts.items() if role not in (EVALUATION, PREDICTION)}
    for role in (EVALUATION, PREDICTION):
        if role not in parts:
            continue
        free = next((part for part in ("test", "validation") if part not in settled), None)
        if role == PREDICTION and free != "test":
            files.notes.append(_not_used(role, len(parts[role])))
        elif free is None:
            _ambiguous(files, "there are a test, a validation and an evaluation part")
        else:
            settled[free] = parts[role]
            files.notes.append(f"the {role} part is used as the {free} part")
    return settled


def without_unlabeled(
    files: SourceFiles, parts: dict[str, Paths], named_like: frozenset[str]
) -> dict[str, Paths]:
    """The parts without those that hold images and no classes: `test/1.png` beside `train/scratches/1.png`.

    Args:
        files: gets a note for each.
        parts: as `find_parts` returns them.
        named_like: classes whose images may be told by their file names.
    """
    if not any(len(short.parts) > 1 for found in parts.values() for short in found.values()):
        return parts
    kept = {}
    for role, found in parts.items():
        folders = {short.parts[0] if len(short.parts) > 1 else "" for short in found.values()}
        prefixes = {name_prefix(short) for short in found.values()}
        is_flat = folders == {""} and not prefixes <= named_like
        has_no_classes = len(folders) == 1 and _says_nothing(*folders) and not folders <= named_like
        if role != "train" and (is_flat or has_no_classes):
            files.notes.append(_not_used(role, len(found)))
        else:
            kept[role] = found
    return kept


def name_prefix(path: PurePosixPath) -> str | None:
    """`scratches` of `scratches_7.jpg`; `None` of `7.jpg`, and of names that cameras and programs give."""
    head, line, number = path.stem.rpartition("_")
    is_told = line and head and number.isascii() and number.isdigit() and head.lower() not in CAMERA_PREFIXES
    return head if is_told else None


CAMERA_PREFIXES = frozenset(
    {
        "img", "image", "dsc", "dscn", "dscf", "dcim", "pxl", "mvimg", "vid", "p", "pict", "pic", "picture",
        "photo", "frame", "screenshot", "scan", "file", "sam", "mg",
    }
)  # fmt: skip


def _says_nothing(folder: str) -> bool:
    found = part_name(folder)
    return (found is not None and found.is_sure) or folder.lower() in (
        "unknown",
        "none",
        "nolabel",
        "no_label",
    )


def _not_used(name: str, number: int) -> str:
    return f"{name}: {images_in_words(number)} without labels, not used"


def _ambiguous(files: SourceFiles, why: str) -> NoReturn:
    raise InputError(f"{files.source} can be read in two ways: {why}. {LAYOUTS}.")


def _list(names: Iterable[str | Top]) -> str:
    found = [name.name if isinstance(name, Top) else name for name in names]
    shown = [name if name == "loose images" else f'"{name}"' for name in sorted(found, key=_loose_last)]
    return ", ".join(shown[:10] + [f"and {len(shown) - 10} more"] * (len(shown) > 10))


def _loose_last(name: str) -> tuple[bool, str]:
    return name == "loose images", name
