"""What a run minimises and counts: the one place that tells one class per image from several labels.

The model returns logits either way; what becomes of them afterwards is in `keras_vit.runs.answer`.
"""

import dataclasses

import keras

from keras_vit.data.image_set import ImageSet
from keras_vit.errors import InputError
from keras_vit.training.class_metrics import BalancedAccuracy, MacroF1
from keras_vit.training.config import TrainConfig
from keras_vit.training.label_loss import AsymmetricLoss, LabelF1
from keras_vit.training.recipe import ASYMMETRIC, AVERAGE_PRECISION, BALANCED, Recipe

THRESHOLDS = 100
"""At which the average precision of an epoch is counted."""


def loss_of(recipe: Recipe, several: bool) -> keras.losses.Loss:
    """The loss of a recipe, of logits."""
    if not several:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    if recipe.loss == ASYMMETRIC:
        return AsymmetricLoss()
    return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)


def metrics_of(recipe: Recipe, num_classes: int, several: bool = False) -> list[keras.metrics.Metric]:
    """What is counted in each epoch: the figure that chooses the best one is among them."""
    if several:
        average = keras.metrics.AUC(
            num_thresholds=THRESHOLDS,
            curve="PR",
            multi_label=True,
            num_labels=num_classes,
            from_logits=True,
            name=AVERAGE_PRECISION,
        )
        right = keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")  # of single labels
        return [right, average, *([LabelF1(num_classes)] if recipe.best_by == "macro_f1" else [])]
    found = [keras.metrics.CategoricalAccuracy(name="accuracy"), BalancedAccuracy(num_classes)]
    return [*found, MacroF1(num_classes)] if recipe.best_by == "macro_f1" else found


def settle(config: TrainConfig, image_set: ImageSet) -> TrainConfig:
    """The settings of a run for its images: whether these have several labels, and what follows from it.

    Raises:
        InputError: a setting is for images of the other kind.
    """
    recipe = config.recipe
    if not image_set.several:
        for name, value in (("loss", ASYMMETRIC), ("best_by", AVERAGE_PRECISION)):
            if getattr(recipe, name) == value:
                raise InputError(
                    f"--{name.replace('_', '-')} {value} is for images with several labels, and "
                    f"{image_set.source} has one class per image: omit it."
                )
        return config
    refused = {
        "--class-weights": recipe.class_weights is not None,
        "--sampling balanced": recipe.sampling == BALANCED,
        "--best-by balanced_accuracy": recipe.best_by == "balanced_accuracy",
        "--accept-risk": config.accept_risk is not None,
        "--min-recall": config.min_recall is not None,
        "--costs": config.costs is not None,
        "--unlabeled": config.unlabeled is not None,
    }
    for option, is_given in refused.items():
        if is_given:
            fix = ", or use --loss asymmetric for rare labels" if "class-weights" in option else ""
            raise InputError(
                f"{image_set.source} has several labels per image, and {option} is for one class per image: "
                f"omit it{fix}."
            )
    by = AVERAGE_PRECISION if recipe.best_by == "accuracy" else recipe.best_by
    return dataclasses.replace(
        config, several_labels=True, recipe=dataclasses.replace(recipe, best_by=by, sampling="uniform")
    )
