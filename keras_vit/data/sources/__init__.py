"""Where images come from. One file per kind of source; each has a reader that returns an `ImageSet`.

To add a kind, write its reader in a new file and add one line to `BY_SUFFIX`, for a kind of file, or to
`BY_PREFIX`, for a name.
"""

from collections.abc import Callable
from pathlib import Path

from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.archive import read_zip
from keras_vit.data.sources.arrays import read_npz
from keras_vit.data.sources.folder import read_folder
from keras_vit.data.sources.layout import IMAGE_SUFFIXES
from keras_vit.data.sources.steel import draw_steel_defects
from keras_vit.data.sources.tfds import read_tfds
from keras_vit.errors import InputError

BY_SUFFIX: dict[str, Callable[[Path], ImageSet]] = {".zip": read_zip, ".npz": read_npz}
"""The suffix of a file, in lower case -> its reader. A folder has `read_folder`."""

BY_PREFIX: dict[str, Callable[[str], ImageSet]] = {"tfds:": read_tfds}
"""The beginning of a name that is not a path -> the reader, which gets the rest of the name."""


def load_image_set(data: str | Path | None = None) -> ImageSet:
    """The labelled images of any source that this package reads.

    | `data` | images |
    |---|---|
    | nothing | the drawn steel defects of `keras_vit.data.sources.steel`, always the same ones |
    | a folder of class folders | the folder's name is the class: `scratches/7.jpg` |
    | a folder of train, validation (val, valid) and test folders of class folders | `parts` follows them |
    | a folder of files whose names give the class | `scratches_7.jpg`, or NEU's short names: `Sc_7.bmp` |
    | a `.zip` of any of these | read into memory: at most 2 GiB |
    | an `.npz` file | arrays x and y, images and labels, or x_train, y_train, ...: `arrays.read_npz` |
    | `tfds:NAME` or `tfds:NAME/CONFIG` | a data set of TensorFlow Datasets, downloaded at first use |

    Image files are JPEG, PNG, BMP, GIF or WebP by their suffix; other files and hidden ones are skipped. No
    image is decoded: `keras_vit.data.audit.audit_images` says whether each can be.

    Args:
        data: a path or a `tfds:` name.

    Raises:
        InputError: the source is missing, of an unknown kind, damaged, unsafe, empty, or of one class only.
    """
    if data is None:
        return draw_steel_defects(seed=0)
    for prefix, read_name in BY_PREFIX.items():
        if isinstance(data, str) and data.startswith(prefix):
            return read_name(data.removeprefix(prefix))
    path = Path(data).expanduser()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"{data!r} cannot be opened: {error}.") from error
    if not exists:
        raise InputError(
            f"No such file or folder: {data}. Check the path, or give none for the drawn defects."
        )
    suffix = path.suffix.lower()
    if is_folder:
        return read_folder(path)
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix](path)
    if suffix in IMAGE_SUFFIXES:
        raise InputError(f"{data} is one image. Give the folder that holds the folders of the classes.")
    raise InputError(
        f"{data} is not a folder, nor a file of a kind that is read ({', '.join(BY_SUFFIX)}). Give one of "
        "these, or tfds:NAME."
    )
