"""A ViT and its training at a point of a space, for any tuner of KerasTuner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner

from keras_vit.data.pipeline import ImageData
from keras_vit.distribution import current_distribution
from keras_vit.errors import InputError
from keras_vit.model.config import check_grid
from keras_vit.model.random_stream import seeded
from keras_vit.model.vit import ViT
from keras_vit.search.base_space import Space
from keras_vit.search.point import recipe_at, vit_arguments
from keras_vit.search.ranges import all_values
from keras_vit.search.space import SearchSpace
from keras_vit.training.optimizer import compile_model
from keras_vit.training.recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from keras_vit.search.published import Beginning


class ViTHyperModel(keras_tuner.HyperModel):
    """A ViT and its training at a point of a space, for any tuner of KerasTuner.

    Args:
        data: the images; batch size and augmentation are those of the point.
        space: what is searched.
        recipe: what the space does not set: optimizer, loss, precision.
        seed: of the first weights; the order of the images depends on `data.seed`.
        beginning: published weights to begin with, for a space of fine-tuning; `None` from scratch.

    Raises:
        InputError: a patch size does not divide the image, a batch size exceeds the number of images or
            cannot be divided among the devices, or the default model is over a budget.

    Example:
        >>> model = ViTHyperModel(keras_vit.load_data())
        >>> tuner = keras_tuner.RandomSearch(model, objective="val_accuracy", max_trials=10)
        >>> tuner.search()
    """

    def __init__(
        self,
        data: ImageData,
        space: Space | None = None,
        recipe: Recipe = RECIPES["default"],
        seed: int = 0,
        beginning: "Beginning | None" = None,
    ):
        super().__init__(name="vit")
        self.data = data
        self.space: Space = space or SearchSpace()
        self.beginning = beginning
        if isinstance(self.space, SearchSpace) != (beginning is None):
            raise InputError("A space of fine-tuning and published weights go together.")
        self.recipe = recipe
        self.seed = seed
        if isinstance(self.space, SearchSpace):
            for size in all_values(self.space.patch_size):
                check_grid(data.image_shape, size)
        for size in self.space.batch_sizes():
            data.with_batches(size, data.augmentation)  # refuses a batch of more images than there are
            current_distribution().check_batch_size(size)
        # KerasTuner's tuners build this point first.
        excess = self._excess(self.space.declare(keras_tuner.HyperParameters()))
        if excess:
            raise InputError(
                f"The defaults of the space make a model of {excess}: choose smaller defaults for depth and "
                "dim."
            )

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        self.space.declare(hp)

    def build(self, hp: keras_tuner.HyperParameters) -> ViT:
        values = self.space.declare(hp)
        excess = self._excess(values)
        if excess:
            raise keras_tuner.errors.FailedTrialError(f"The model of this point has {excess}.")
        # KerasTuner's clear_session has closed the scope of JAX.
        with seeded(self.seed), current_distribution().scope():
            if self.beginning is None:
                model = ViT(
                    image_shape=self.data.image_shape,
                    num_classes=self.data.num_classes,
                    dtype=self.recipe.precision,
                    **vit_arguments(values),
                )
            else:
                model = self.beginning.build(values, self.data.class_names)
            compile_model(model, recipe_at(values, self.recipe), self.data_at(values).steps_per_epoch)
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: ViT,
        *args: Any,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        epochs: int | None = None,
        initial_epoch: int = 0,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """`model.fit` on the images.

        It trains from epoch `initial_epoch` up to `epochs`, by default those of the point. The schedule
        is laid out over the epochs of the point, whatever `epochs` is.
        """
        values = self.space.declare(hp)
        data = self.data_at(values)
        averaging = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if self.recipe.ema_decay else []
        return model.fit(
            data.train_batches(initial_epoch),
            steps_per_epoch=data.steps_per_epoch,
            validation_data=data.validation,
            initial_epoch=initial_epoch,
            epochs=epochs or values["epochs"],
            shuffle=False,
            # The given callbacks see the weights that are trained, before the averages replace them.
            callbacks=[*callbacks, *averaging],
            **kwargs,
        )

    def data_at(self, values: dict[str, Any]) -> ImageData:
        """The images in the batches of a point."""
        recipe = recipe_at(values, self.recipe)
        return self.data.with_batches(recipe.batch_size, recipe.augmentation)

    def fits_budget(self, values: dict[str, Any]) -> bool:
        """Whether the model at a point is within the budgets of the space.

        Args:
            values: by the names of the fields, at least of the searched ones.
        """
        return self._excess(values) is None

    def _excess(self, values):
        return self.space.excess(values, self.data.image_shape, self.data.num_classes)
