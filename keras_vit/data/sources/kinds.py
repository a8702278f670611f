"""Which files are images: those that can be decoded, whatever their names, and those whose names say so."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from keras_vit.data.dicom import is_dicom
from keras_vit.data.foreign import KINDS, name_of_other_kind
from keras_vit.data.image_set import Image
from keras_vit.errors import InputError

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "DICOM": (".dcm", ".dicom"),
    "other": (
        ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".psd", ".tga",
        ".exr",
        ".dng", ".raw", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf",
        ".rw2", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".rwl",
    ),
}  # fmt: skip
"""Kind of image, as Pillow calls it -> suffixes of its files."""

KIND_NAMES = {"WEBP": "WebP"}
IMAGE_SUFFIXES = frozenset(suffix for kind in KINDS for suffix in SUFFIXES.get(kind, ()))
UNREAD_SUFFIXES = frozenset(suffix for found in SUFFIXES.values() for suffix in found) - IMAGE_SUFFIXES
_TOLD = [KIND_NAMES.get(kind, kind) for kind in KINDS if kind in SUFFIXES]
IMAGE_KINDS = f"{', '.join(_TOLD[:-1])} and {_TOLD[-1]}"

HEAD_BYTES = 132
"""So many bytes from the beginning of a file tell its kind."""

SYSTEM_NAMES = frozenset(
    {
        "__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "@eadir",
        "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
        "system volume information", "lost+found", "picasa.ini", "zbthumbnail.info",
        "dicomdir",
    }
)  # fmt: skip
"""What systems, network drives and file managers put into folders, in lower case."""

NAMED = 3
"""So many suffixes have an example in a line."""


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a path belongs to the system or a file manager, not to the images."""
    return any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in path.parts)


def kind_of(head: bytes) -> str | None:
    """The kind of an image by its first bytes, a key of `SUFFIXES`; `None` if it is not known as an image."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    # A text may begin with BM: the size of the second header tells.
    if head.startswith(b"BM") and head[15:18] == bytes(3) and head[14:15] in b"\x0c\x28\x34\x38\x40\x6c\x7c":
        return "BMP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "AVIF"
    if is_dicom(head):
        return "DICOM"
    # Texts may begin like these two.
    other = name_of_other_kind(head)
    if other is not None and other not in ("PDF", "PNM"):
        return "other"
    return "TIFF" if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) else None


@dataclass
class SourceFiles:
    """The files of a folder or a zip, sorted into images and others as they are added.

    Args:
        source: what the user asked for, for messages.

    Attributes:
        images: path in the source -> image; it may still turn out to be damaged.
        folders: all folders but hidden ones, also those without files.
        skipped: what kind of file, such as `".txt"` -> their paths.
        unread: images of a kind that cannot be decoded here -> what gives each.
        by_content: images that have the suffix of something else, or none.
        notes: what else the user must know, one line each.
    """

    source: str
    images: dict[PurePosixPath, Image] = field(default_factory=dict)
    folders: set[PurePosixPath] = field(default_factory=set)
    skipped: dict[str, list[PurePosixPath]] = field(default_factory=lambda: defaultdict(list))
    unread: dict[PurePosixPath, Callable[[], Image]] = field(default_factory=dict)
    by_content: list[PurePosixPath] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, path: PurePosixPath, load: Callable[[], Image], head: Callable[[], bytes]) -> None:
        """Sorts in one file.

        Args:
            path: in the source.
            load: gives the image, if it is one.
            head: gives the first `HEAD_BYTES` bytes; called where the suffix is not that of an image.
        """
        suffix = path.suffix.lower()
        if is_hidden(path):
            # Not what a system writes beside a file: `._1.png` of macOS.
            if suffix in IMAGE_SUFFIXES and not path.name.startswith("._") and not is_hidden(path.parent):
                self.skipped["hidden"].append(path)
        elif suffix in IMAGE_SUFFIXES:
            self.images[path] = load()
        else:
            kind = kind_of(head())
            # The raw files of many cameras are TIFF files with a thumbnail as their first image.
            if kind in KINDS and not (kind == "TIFF" and suffix in UNREAD_SUFFIXES):
                self.images[path] = load()
                self.by_content.append(path)
            elif kind or suffix in UNREAD_SUFFIXES:
                self.unread[path] = load
            else:
                self.skipped[suffix or "without suffix"].append(path)

    def finish(self, unread_too: bool = False) -> None:
        """Checks what was found, and notes what is left out.

        Args:
            unread_too: whether images of a kind that is not read count as images, for the decoder to refuse.

        Raises:
            InputError: there are images of a kind that is not read. Leaving them out could lose half a class.
        """
        names = {path.with_suffix("") for path in self.images}
        both = [
            path for path in self.unread if path.with_suffix("") in names
        ]  # a camera's raw beside its JPEG
        alone = [path for path in self.unread if path.with_suffix("") not in names]
        if unread_too:
            self.images |= {path: self.unread[path]() for path in alone}
        elif alone:
            counted = _counted(Counter(_suffix(path) for path in alone))
            raise InputError(
                f"{self.source} holds {images_in_words(len(alone))} of a kind that is not read, the first "
                f"{min(alone)} ({counted}). {IMAGE_KINDS} are read: convert the others to PNG, or "
                "remove them."
            )
        for path in both:
            self.skipped[_suffix(path)].append(path)
        if self.by_content:
            self.notes.append(
                f"read as images by their content, not by their names: {_by_suffix(self.by_content)}"
            )
        if self.skipped:
            number = sum(map(len, self.skipped.values()))
            self.notes.append(f"skipped {number:,} file{'s' * (number > 1)}: {_examples(self.skipped)}")

    def hold_only(self, folder: PurePosixPath) -> str:
        """What a folder without images holds, in words."""
        inside = {
            kind: [path for path in paths if folder in path.parents] for kind, paths in self.skipped.items()
        }
        return _counted({kind: len(paths) for kind, paths in inside.items() if paths}) or "empty"


def images_in_words(number: int) -> str:
    """`"1 image"`, `"2,000 images"`."""
    return f"{number:,} image{'s' * (number != 1)}"


def _suffix(path: PurePosixPath) -> str:
    return path.suffix.lower() or "without suffix"


def _by_suffix(paths: Iterable[PurePosixPath]) -> str:
    found = defaultdict(list)
    for path in paths:
        found[_suffix(path)].append(path)
    return _examples(found)


def _counted(numbers: dict[str, int] | Counter) -> str:
    order = sorted(numbers, key=lambda kind: (-numbers[kind], kind))
    told = [f"{numbers[kind]:,} {kind}" for kind in order[: 2 * NAMED]]
    others = sum(numbers[kind] for kind in order[2 * NAMED :])
    return ", ".join([*told, f"{others:,} others"] if others else told)


def _examples(found: dict[str, list[PurePosixPath]]) -> str:
    """`12 .xml (such as a/1.xml), 2 .txt (b/2.txt)`, the most frequent kinds first."""
    order = sorted(found, key=lambda kind: (-len(found[kind]), kind))
    told = [
        f"{len(found[kind]):,} {kind} ({'such as ' * (len(found[kind]) > 1)}{min(found[kind])})"
        for kind in order[:NAMED]
    ]
    others = _counted({kind: len(found[kind]) for kind in order[NAMED:]})
    return ", ".join([*told, others] if others else told)
