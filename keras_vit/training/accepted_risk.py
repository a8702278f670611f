"""Whether a run will have enough calibration images for the risk that is to be accepted."""

from keras_vit.data.pipeline import ImageData
from keras_vit.errors import InputError
from keras_vit.evaluation.ood import least_images
from keras_vit.evaluation.prediction_sets import LEVEL
from keras_vit.training.config import TrainConfig
from keras_vit.training.probe import has_folds


def check_accepted_risk(config: TrainConfig, data: ImageData) -> None:
    """Refuses a risk before the training that no model could keep to with so few calibration images.

    Raises:
        InputError: the images are too few, even if the model makes no mistake among them.
    """
    if config.accept_risk is None:
        return
    images = len(data.split.validation) + (len(data.split.train) if has_folds(config, data) else 0)
    needed = max(least_images(config.accept_risk), least_images(1 - LEVEL))
    if images >= needed:
        return
    least = f"; the least that they support is {1 / (images + 1):.2%}" if images >= least_images(0.05) else ""
    raise InputError(
        f"An accepted risk of {100 * config.accept_risk:g} % takes {needed:,} calibration images without a "
        f"mistake, and the validation part has {images:,}{least}: accept more, raise "
        "--validation-fraction, or omit --accept-risk."
    )
