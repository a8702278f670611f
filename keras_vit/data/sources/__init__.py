"""Where images come from: one door for everything that `--data` takes."""

from pathlib import Path

from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.layout import IMAGE_SUFFIXES
from keras_vit.errors import InputError

TFDS_PREFIX = "tfds:"


def load_image_set(data: str | Path | None = None) -> ImageSet:
    """The labelled images of any source that this package knows.

    | `data` | images |
    |---|---|
    | nothing | the drawn steel defects of `keras_vit.data.sources.steel`, always the same ones |
    | a folder of class folders | the folder's name is the class: `scratches/7.jpg` |
    | a folder of train, validation (val, valid) and test folders of class folders | `parts` follows them |
    | a folder of files whose names tell the class | `scratches_7.jpg`, or NEU's short names: `Sc_7.bmp` |
    | a `.zip` of any of these | read into memory: at most 2 GiB |
    | an `.npz` file | arrays x and y, images and labels, or x_train, y_train, ...: `arrays.read_npz` |
    | `tfds:NAME` or `tfds:NAME/CONFIG` | a data set of TensorFlow Datasets, downloaded at first use |

    Files are JPEG, PNG, BMP, GIF or WebP by their suffix; other files and hidden ones are passed over. No
    image is
    decoded: whether each can be, says `keras_vit.data.audit.audit_images`.

    Args:
        data: a path or a `tfds:` name.

    Raises:
        InputError: the source is missing, of an unknown kind, damaged, unsafe, empty, or of one class only.
    """
    if data is None:
        from keras_vit.data.sources.steel import draw_steel_defects

        return draw_steel_defects(seed=0)
    if isinstance(data, str) and data.startswith(TFDS_PREFIX):
        from keras_vit.data.sources.tfds import read_tfds

        return read_tfds(data.removeprefix(TFDS_PREFIX))
    path = Path(data).expanduser()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"{data!r} cannot be opened: {error}.") from error
    if not exists:
        raise InputError(
            f"No such file or folder: {data}. Check the path, or give none for the drawn defects."
        )
    if is_folder:
        from keras_vit.data.sources.folder import read_folder

        return read_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        from keras_vit.data.sources.archive import read_zip

        return read_zip(path)
    if suffix == ".npz":
        from keras_vit.data.sources.arrays import read_npz

        return read_npz(path)
    if suffix in IMAGE_SUFFIXES:
        raise InputError(f"{data} is one image. Give the folder that holds the folders of the classes.")
    raise InputError(f"{data} is no folder, no .zip and no .npz file. Give one of these, or tfds:NAME.")
