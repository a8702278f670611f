"""A ViT and its training at a point of a space, for any tuner of KerasTuner."""

import keras
import keras_tuner

from keras_vit.data.pipeline import ImageData
from keras_vit.distribution import current_distribution
from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.search.point import recipe_at, vit_arguments
from keras_vit.search.space import SearchSpace
from keras_vit.training.optimizer import compile_model
from keras_vit.training.recipe import RECIPES, Recipe


class ViTHyperModel(keras_tuner.HyperModel):
    """A ViT and its training at a point of a space, for any tuner of KerasTuner.

    Args:
        data: images; batch size and augmentation are those of the point.
        space: what is searched.
        recipe: what the space does not know: optimizer, loss, precision.
        seed: of the first weights; the order of the images follows `data.seed`.

    Raises:
        InputError: a patch size does not divide the image, a batch size is of more images than there are or
            cannot be shared by the devices, or the default model is over a budget.

    Example:
        >>> model = ViTHyperModel(keras_vit.load_data())
        >>> tuner = keras_tuner.RandomSearch(model, objective="val_accuracy", max_trials=10)
        >>> tuner.search()
    """

    def __init__(
        self,
        data: ImageData,
        space: SearchSpace | None = None,
        recipe: Recipe = RECIPES["default"],
        seed: int = 0,
    ):
        super().__init__(name="vit")
        self.data = data
        self.space = space or SearchSpace()
        self.recipe = recipe
        self.seed = seed
        sizes = getattr(self.space.patch_size, "values", (self.space.patch_size,))
        for size in sizes:
            if data.image_shape[0] % size or data.image_shape[1] % size:
                raise InputError(f"patch_size {size} does not divide images of {data.image_shape[:2]}.")
        for size in self.space.batch_sizes():
            data.with_batches(size, data.augmentation)  # it refuses one of more images than there are
            current_distribution().check_batch_size(size)
        # KerasTuner's tuners begin with building it.
        excess = self._excess(self.space.declare(keras_tuner.HyperParameters()))
        if excess:
            raise InputError(
                f"The defaults of the space make a model of {excess}: choose smaller defaults for depth and "
                "dim."
            )

    def declare_hyperparameters(self, hp):
        self.space.declare(hp)

    def build(self, hp):
        values = self.space.declare(hp)
        excess = self._excess(values)
        if excess:
            raise keras_tuner.errors.FailedTrialError(f"The model of this point has {excess}.")
        keras.utils.set_random_seed(self.seed)
        with current_distribution().scope():  # KerasTuner's clear_session has closed JAX's
            model = ViT(
                image_shape=self.data.image_shape,
                num_classes=self.data.num_classes,
                dtype=self.recipe.precision,
                **vit_arguments(values),
            )
            compile_model(model, recipe_at(values, self.recipe), self.data_at(values).steps_per_epoch)
            # So that KerasTuner's own Hyperband can load the optimizer that it saved with the weights.
            model.optimizer.build(model.trainable_variables)
        return model

    def fit(self, hp, model, *args, callbacks=(), epochs=None, initial_epoch=0, **kwargs):
        """`model.fit` on the images, from epoch `initial_epoch` up to `epochs`, by default the point's.

        The schedule is laid out over the point's epochs, whatever `epochs` is.
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
            # Those given first see the weights that are trained; averaging then puts others in their place.
            callbacks=[*callbacks, *averaging],
            **kwargs,
        )

    def data_at(self, values) -> ImageData:
        """The images in the batches of a point."""
        recipe = recipe_at(values, self.recipe)
        return self.data.with_batches(recipe.batch_size, recipe.augmentation)

    def fits_budget(self, values) -> bool:
        """Whether the model at a point is within the space's budgets.

        Args:
            values: by the names of the fields, at least those that are searched.
        """
        return self._excess(values) is None

    def _excess(self, values):
        return self.space.excess(values, self.data.image_shape, self.data.num_classes)
