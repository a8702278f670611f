"""What a run begins with: its images, split and audited, and its model."""

from keras_vit.data.audit import Audit, audit_images, drop_unreadable, require_readable
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.reading import read_images
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, split_image_set
from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.training.config import TrainConfig


def prepare_data(config: TrainConfig, keep_originals: bool = True) -> tuple[ImageData, Audit]:
    """The images of a run, each decoded once, split, and what the audit found.

    Args:
        config: all settings of the run.
        keep_originals: whether the images are also kept as they came, for the report.

    Raises:
        InputError: the source cannot be used, or there are unreadable images and the settings do not skip
            them.
    """
    image_set = load_image_set(config.data)
    split = _split(config, image_set)
    preprocessing = Preprocessing(config.image_shape, config.aspect)
    images = read_images(image_set.images, preprocessing, keep_originals)
    audit = audit_images(image_set, split, images)
    image_set = images.put_into(image_set)
    if audit.unreadable and config.skip_unreadable:
        image_set = drop_unreadable(image_set, audit)
        split = _split(config, image_set)
    else:
        require_readable(audit)
    data = ImageData(
        image_set,
        split,
        preprocessing,
        config.recipe.batch_size,
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


def build_model(config: TrainConfig, num_classes: int) -> ViT:
    """The model of a run, with its first weights.

    Raises:
        InputError: the model cannot be built for these images.
    """
    try:
        return ViT.from_variant(
            config.model,
            image_shape=config.image_shape,
            num_classes=num_classes,
            dtype=config.recipe.precision,
            **config.changes,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
