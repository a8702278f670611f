"""The images of a run, split and audited."""

from keras_vit.data.audit import Audit, audit_images, drop_unreadable, require_readable
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.reading import read_images
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, split_image_set
from keras_vit.training.config import TrainConfig


def prepare_data(
    config: TrainConfig,
    keep_originals: bool = True,
    *,
    preprocessing: Preprocessing | None = None,
    image_set: ImageSet | None = None,
    keep_prepared: bool = True,
) -> tuple[ImageData, Audit]:
    """The images of a run, each decoded once, split, and what the audit found.

    Args:
        config: all settings of the run.
        keep_originals: whether the images are also kept as they came, for the report.
        preprocessing: of the images; `None` for that of a run from scratch.
        image_set: what `config.data` names, if it is loaded already.
        keep_prepared: whether the images are prepared for the model now. Otherwise that is done where they
            are needed.

    Raises:
        InputError: the source cannot be used, or there are unreadable images and the settings do not skip
            them.
    """
    if image_set is None:
        image_set = load_image_set(config.data)
    if preprocessing is None:
        preprocessing = config.preprocessing
    split = _split(config, image_set)
    images = read_images(image_set.images, preprocessing if keep_prepared else None, keep_originals)
    audit = audit_images(image_set, split, images)
    image_set = images.put_into(image_set)
    if audit.unreadable and config.skip_unreadable:
        image_set = drop_unreadable(image_set, audit)
        split = _split(config, image_set)
    else:
        require_readable(audit)
    batch_size = config.recipe.batch_size
    if config.recipe.tune == "head":  # it is fitted to all images at once: fewer than a batch are enough
        batch_size = min(batch_size, len(split.train))
    data = ImageData(
        image_set,
        split,
        preprocessing,
        batch_size,
        config.seed,
        config.recipe.augmentation,
    )
    return data, audit


def _split(config: TrainConfig, image_set: ImageSet) -> Split:
    return split_image_set(
        image_set,
        seed=config.seed,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        merge_validation=config.merge_validation,
    )
