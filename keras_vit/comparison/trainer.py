"""Training one model of a comparison again and again: compiled once, begun anew with each cell."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_vit.comparison.convolutional import count_mult_adds_of
from keras_vit.comparison.images import Stage, batches_of
from keras_vit.data.image_set import Image, ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.model.cost import count_mult_adds
from keras_vit.model.random_stream import seeded
from keras_vit.model.vit import ViT
from keras_vit.runs.features import FeatureReader
from keras_vit.training.head import Head
from keras_vit.training.optimizer import compile_model
from keras_vit.training.probe import feature_reader, fit_probe, set_head
from keras_vit.training.recipe import Recipe
from keras_vit.training.start import Start

MOST_STEPS = 1_500
"""A training on few images takes as many steps as one on all of them, but no more than these."""

TIMED_STEPS = 5
LATENCY_BATCH = 32


def steps_of(epochs: int, steps_per_epoch: int, steps_per_epoch_of_all: int) -> int:
    """The optimizer steps of a training: the same rule for every model and number of images.

    As many passes over its own images as asked for, but at least as many steps as the training on all images
    takes, up to `MOST_STEPS`: 30 passes over 30 images would be 90 steps, which teach nothing.
    """
    return max(epochs * steps_per_epoch, min(epochs * steps_per_epoch_of_all, MOST_STEPS))


@dataclass(frozen=True)
class Trained:
    """What became of one training.

    Args:
        predicted: kind of the test images (`""`, `"shift"`, `"rotate"`) -> int (n,), the classes named.
        steps: of the optimizer; 0 for a probe.
        seconds: that training took, without building and compiling.
        diverged: whether the loss became NaN.
    """

    predicted: Mapping[str, np.ndarray]
    steps: int
    seconds: float
    diverged: bool = False


@dataclass
class Probe:
    """The head on frozen published weights, in the place of a `Trainer`.

    Args:
        make: builds the model with the published weights.
        recipe: whose augmentation and class weights count.
        start: of the published weights.
        image_set: the images as they came.
    """

    make: Callable[[], ViT]
    recipe: Recipe
    start: Start
    image_set: ImageSet

    def __post_init__(self):
        self.model: ViT | None = None
        self._reader: FeatureReader | None = None
        self._seconds_per_image = 0.0

    def reader(self, data: ImageData) -> FeatureReader:
        """Gives features of images; it is made once for each preprocessing."""
        if self.model is None:
            self.model = self.make()
        if self._reader is None or self._reader.preprocessing != data.preprocessing:
            self._reader = feature_reader(self.start, self.model, data)
        return self._reader

    def fit(self, data: ImageData) -> tuple[Head, np.ndarray]:
        """The head for the training images, and its inputs, see `fit_probe`."""
        return fit_probe(self.reader(data), data, self.image_set)

    def train(self, stage: Stage, data: ImageData, steps: int, seed: int) -> Trained:
        """Fits the head to the features of the training images. What it computes is kept in the cache."""
        head, inputs = self.fit(data)
        named = {kind: self._name(head, images, data) for kind, images in stage.tested.items()}
        # As long as it takes for images that are not in the cache.
        return Trained(named, 0, head.seconds + self._seconds_per_image * len(inputs))

    def measure(self, data: ImageData, steps: int) -> dict[str, float]:
        """As `Trainer.measure`."""
        begin = time.perf_counter()
        reader = self.reader(data)
        assert self.model is not None
        self.model.compile(jit_compile=keras.backend.backend() == "tensorflow")
        found = latencies(self.model, data)
        self._seconds_per_image = found["each_of_32"]
        del reader
        return {"begin": time.perf_counter() - begin, "image": found["each_of_32"], **found}

    def cost(self, data: ImageData) -> dict[str, int]:
        """Parameters, and mult-adds per image."""
        return cost_of(self.model or self.make())

    def expect(self, timing: Mapping[str, float]) -> None:
        """Takes over what was measured before a comparison was cut off."""
        self._seconds_per_image = timing["each_of_32"]

    def _name(self, head: Head, images: Sequence[Image], data: ImageData) -> np.ndarray:
        reader = self.reader(data)
        if isinstance(images[0], np.ndarray) and images[0].dtype == np.uint8:
            images = [image.astype("float32") for image in images]  # type: ignore[union-attr]
        return head.logits(reader.of_head(reader(images))).argmax(axis=1)


@dataclass
class Trainer:
    """A model that is trained by optimizer steps.

    Args:
        make: builds the model with new first weights, which draw from the seeded streams.
        recipe: of its training; `epochs` are passes over all images.
        probe: of the same published weights, whose head a new head begins with; `None` from scratch.
    """

    make: Callable[[], keras.Model]
    recipe: Recipe
    probe: Probe | None = None
    model: Any = field(default=None, init=False)

    def __post_init__(self):
        self._steps, self._seen, self._first = 0, set[int](), list[np.ndarray]()

    def train(self, stage: Stage, data: ImageData, steps: int, seed: int) -> Trained:
        """Trains the model anew and lets it name the test images."""
        self._begin(data, steps, seed)
        if data.batch_size not in self._seen:
            self._fit(data, 1)  # compiles for this size of batches
            self._seen.add(data.batch_size)
            self._begin(data, steps, seed)
        begin = time.perf_counter()
        loss = self._fit(data, steps)
        seconds = time.perf_counter() - begin
        return Trained(self._name(stage), steps, seconds, not np.isfinite(loss))

    def measure(self, data: ImageData, steps: int) -> dict[str, float]:
        """How long parts of a training take here, in seconds: see `folder.OfModel`."""
        begin = time.perf_counter()
        self._begin(data, steps, 0)
        self._fit(data, 1)
        self._seen.add(data.batch_size)
        begun = time.perf_counter()
        # The difference is without what each call of fit takes; the least of two is without other work.
        one, more = (min(self._seconds(data, count) for _ in range(2)) for count in (1, 1 + TIMED_STEPS))
        step = max(more - one, 1e-6) / TIMED_STEPS
        return {"begin": begun - begin, "image": step / data.batch_size, **latencies(self.model, data)}

    def cost(self, data: ImageData) -> dict[str, int]:
        """Parameters, and mult-adds per image."""
        return cost_of(self.model or self.make())

    def _begin(self, data: ImageData, steps: int, seed: int) -> None:
        with seeded(seed):
            fresh = self.make()
        if self.model is None or steps != self._steps:
            self.model, self._steps, self._seen = fresh, steps, set()
            self._begin_with_probe(data)
            # The schedule of a run of one epoch with all the steps: its warm-up is the same share of it.
            recipe = replace(
                self.recipe, epochs=1, warmup_epochs=self.recipe.warmup_epochs / self.recipe.epochs
            )
            compile_model(self.model, recipe, steps)
            self._first = [keras.ops.convert_to_numpy(value) for value in self.model.optimizer.variables]
            return
        self.model.set_weights(fresh.get_weights())
        for mine, new in zip(_random_states(self.model), _random_states(fresh), strict=True):
            mine.assign(keras.ops.convert_to_numpy(new))
        for variable, value in zip(self.model.optimizer.variables, self._first, strict=True):
            variable.assign(value)
        self._begin_with_probe(data)

    def _begin_with_probe(self, data: ImageData) -> None:
        # Not `begin_with_probe`, which would compile the features of each new model again.
        if self.probe is not None and self.probe.start.has_new_head(self.model):
            set_head(self.model, self.probe.fit(data)[0])

    def _fit(self, data: ImageData, steps: int) -> float:
        history = self.model.fit(
            data.train_batches(0),
            steps_per_epoch=steps,
            epochs=1,
            shuffle=False,  # tf.data does it
            verbose=0,
            callbacks=[keras.callbacks.TerminateOnNaN()],
        )
        return float(history.history["loss"][-1])

    def _seconds(self, data: ImageData, steps: int) -> float:
        begin = time.perf_counter()
        self._fit(data, steps)
        return time.perf_counter() - begin

    def _name(self, stage: Stage) -> dict[str, np.ndarray]:
        def named(images: Sequence[Image]) -> np.ndarray:
            logits = self.model.predict(batches_of(images, stage.data), verbose=0)
            return logits[: len(images)].argmax(axis=1)

        return {kind: named(images) for kind, images in stage.tested.items()}


def latencies(model: Any, data: ImageData) -> dict[str, float]:
    """Seconds per image of the forward pass, compiled: one image at a time, and in batches of 32."""
    found = {}
    for name, rows, times in (("one", 1, 15), ("each_of_32", LATENCY_BATCH, 5)):
        images = np.zeros((rows, *data.image_shape), "float32")
        model.predict_on_batch(images)
        seconds = []
        for _ in range(times):
            begin = time.perf_counter()
            model.predict_on_batch(images)
            seconds.append(time.perf_counter() - begin)
        found[name] = float(np.median(seconds)) / rows
    return found


def cost_of(model: Any) -> dict[str, int]:
    """Parameters, and mult-adds per image."""
    adds = count_mult_adds(model.config) if isinstance(model, ViT) else count_mult_adds_of(model)
    return {"parameters": model.count_params(), "mult_adds": adds}


def _random_states(model: keras.Model) -> list[Any]:
    return [variable for variable in model.variables if "seed_generator_state" in variable.path]
