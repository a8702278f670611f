"""From an `ImageSet` to batches that `model.fit` takes, on every backend: tf.data does the work."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from keras_vit.data.augmentation import Augmentation
from keras_vit.data.balanced_order import balanced_order
from keras_vit.data.corrupted import copy_of_each, corrupted_pixels, with_corrupted
from keras_vit.data.image_set import SPLIT_PARTS, Image, ImageSet
from keras_vit.data.overview import Overview
from keras_vit.data.pixel_range import PixelRange, choose_range
from keras_vit.data.preprocess import Aspect, Preprocessing, scale_pixels
from keras_vit.data.probe import whole_pixels
from keras_vit.data.source import is_prepared, make_source
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, split_image_set
from keras_vit.data.targets import targets_of
from keras_vit.data.tiff import TiffPage
from keras_vit.data.values import UnreadableImage, is_measured
from keras_vit.errors import InputError
from keras_vit.text import say

if TYPE_CHECKING:
    import tensorflow as tf

Part = Literal["train", "validation", "test"]
Reader = Callable[["tf.data.Dataset"], "tf.data.Dataset"]

# Prepared images that together have more bytes are read again in each epoch, not kept in memory.
CACHE_BYTES = 2 * 2**30
EVALUATION_BATCH_SIZE = 256
FEWEST_STEPS, SMALLEST_BATCH = 8, 8  # of an epoch, and below which a default batch is not halved


@dataclass(frozen=True)
class ImageData:
    """The three parts of an image set, as batches for training and evaluation.

    Args:
        image_set: all images.
        split: which of them are for training, validation and test.
        preprocessing: how they become arrays.
        batch_size: images per training step.
        seed: of the order of the training images and of their augmentation.
        augmentation: of the training images.
        balanced: whether the classes are drawn equally often.
        class_weights: of the training images in the loss, one per class; `None` for none.
    """

    image_set: ImageSet
    split: Split
    preprocessing: Preprocessing
    batch_size: int = 64
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    balanced: bool = False
    class_weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be 1 or more. Received: batch_size={self.batch_size}")
        if len(self.split.train) < self.batch_size:
            raise InputError(
                f"batch_size {self.batch_size} is more than the {len(self.split.train)} training images: "
                "use a smaller one."
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.image_set.class_names

    @property
    def num_classes(self) -> int:
        return len(self.image_set.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.preprocessing.image_shape

    @property
    def steps_per_epoch(self) -> int:
        """Full batches per epoch. The images that are left over are others in each epoch."""
        return len(self.split.train) // self.batch_size

    @property
    def train(self) -> "tf.data.Dataset":
        """Endless training batches from epoch 0: give `steps_per_epoch` to `fit` as well."""
        return self.train_batches(0)

    @property
    def validation(self) -> "tf.data.Dataset | None":
        """All validation images, each once, in order; `None` if there are none."""
        return self.batches("validation") if len(self.split.validation) else None

    @property
    def test(self) -> "tf.data.Dataset":
        """All test images, each once, in order."""
        return self.batches("test")

    def labels(self, part: Part) -> np.ndarray:
        """Labels of one part: int64 (n,), or uint8 (n, classes) where an image may have several."""
        return self.image_set.labels[getattr(self.split, part)]

    def targets(self, part: Part) -> np.ndarray:
        """What the model is to answer for one part: float32 (n, classes) of 0 and 1."""
        return targets_of(self.labels(part), self.num_classes)

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.image_set.several

    @property
    def image_weights(self) -> np.ndarray | None:
        """What each training image counts by its source, with the mean 1: (n,); `None` for all alike."""
        if self.image_set.weights is None:
            return None
        found = self.image_set.weights[self.split.train]
        if not found.sum() > 0:
            raise InputError("All training images have the weight 0: give some a weight above 0.")
        return found / found.mean()

    def train_weights(self, drawn: bool = True) -> np.ndarray | None:
        """What each training image counts when all are seen at once: (n,); `None` if all count the same.

        Args:
            drawn: whether classes that are drawn equally often get the same total weight.
        """
        labels = self.labels("train")
        weights = self.image_weights
        if self.class_weights is not None:
            of_class = self.class_weights[labels]
            weights = of_class if weights is None else of_class * weights
        if self.balanced and drawn:
            counts = np.bincount(labels, minlength=self.num_classes)
            equal = len(labels) / (np.count_nonzero(counts) * counts[labels])
            weights = equal if weights is None else equal * weights
        return weights

    def names(self, part: Part) -> tuple[str, ...]:
        """Names of the images of one part."""
        return tuple(self.image_set.names[i] for i in getattr(self.split, part))

    def pixels(self, part: Part) -> np.ndarray:
        """Prepared images of one part, before augmentation and scaling: float32 (n, h, w, c) in 0..255."""
        return read_pixels(self.image_set.take(getattr(self.split, part)).images, self.preprocessing)

    def train_batches(
        self, first_epoch: int, process_id: int = 0, num_processes: int = 1
    ) -> "tf.data.Dataset":
        """Endless training batches from an epoch on.

        The order and the augmentation of epoch e depend only on the seed and e: a run that continues at
        epoch e gets the images that an uninterrupted run gets there. If several processes share a batch, each
        reads its own images of it and augments them with its own seed.

        Args:
            first_epoch: from 0.
            process_id: of this process, from 0.
            num_processes: processes that share each batch; the batch size must be a multiple of it.

        Returns:
            tf.data.Dataset of scaled images (batch / num_processes, h, w, c) and labels of 0 and 1
            (batch / num_processes, classes); with weights of classes or images, also that of each image.

        Raises:
            InputError: the batch size is not a multiple of the number of processes.
        """
        import tensorflow as tf

        from keras_vit.data.random_transforms import make_augment  # imports Keras

        if self.batch_size % num_processes:
            raise InputError(
                f"{num_processes} processes cannot share a batch of {self.batch_size} equally: choose a "
                f"batch size that is a multiple of {num_processes}."
            )

        augment, copies = (
            make_augment(self.augmentation, self.image_shape),
            self.augmentation.corrupted_copies,
        )
        labels = tf.constant(self.targets("train"))
        weights = None if self.class_weights is None else tf.constant(self.class_weights, tf.float32)
        of_image = None if self.image_weights is None else tf.constant(self.image_weights, tf.float32)
        count, batch_size, steps = len(self.split.train), self.batch_size, self.steps_per_epoch
        share = batch_size // num_processes
        own = slice(share * process_id, share * (process_id + 1))

        def epoch_of(epoch):
            seed = tf.random.experimental.stateless_fold_in(
                tf.constant([self.seed % 2**31, 0], tf.int32), tf.cast(epoch, tf.int32)
            )
            if self.balanced:
                order = balanced_order(self.labels("train"), steps * batch_size, seed)
            else:
                order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
            batches = tf.reshape(order[: steps * batch_size], (steps, batch_size))
            if copies:
                batches += count * copy_of_each(tf.shape(batches), copies, seed)
            seeds = tf.map_fn(
                lambda step: tf.random.experimental.stateless_fold_in(seed, step + 1), tf.range(steps)
            )
            return tf.data.Dataset.from_tensor_slices((batches[:, own], seeds))

        def finish(images, step):
            indices, seed = step
            if num_processes > 1:
                seed = tf.random.experimental.stateless_fold_in(seed, process_id)
            images, targets = augment(images, tf.gather(labels, indices % count), seed)
            images = scale_pixels(images, self.preprocessing)
            if weights is None and of_image is None:
                return images, targets
            weight = 1.0 if weights is None else tf.linalg.matvec(targets, weights)  # mixed, as the targets
            return (
                images,
                targets,
                weight if of_image is None else weight * tf.gather(of_image, indices % count),
            )

        steps_of_run = tf.data.Dataset.counter(first_epoch).flat_map(epoch_of)
        images = self._read_train(steps_of_run.map(lambda indices, seed: indices))
        batches = tf.data.Dataset.zip(images, steps_of_run)
        batches = batches.map(finish, num_parallel_calls=2, deterministic=True).prefetch(4)
        return without_autotuning(batches)

    def with_batches(self, batch_size: int, augmentation: Augmentation) -> "ImageData":
        """The same images in other batches; the pixels in memory are shared."""
        other = dataclasses.replace(self, batch_size=batch_size, augmentation=augmentation)
        same = ("corrupted_copies", "corruptions")
        if all(getattr(augmentation, name) == getattr(self.augmentation, name) for name in same):
            other.__dict__["_read_train"] = self._read_train
        return other

    def batches(self, part: Part) -> "tf.data.Dataset":
        """All images of one part, each once, in order, with labels of 0 and 1."""
        import tensorflow as tf

        images = self.image_set.take(getattr(self.split, part)).images
        labels = tf.constant(self.targets(part))
        pixels = pixel_dataset(images, self.preprocessing)
        pixels = pixels.map(lambda image: scale_pixels(image, self.preprocessing))
        dataset = tf.data.Dataset.zip(pixels, tf.data.Dataset.from_tensor_slices(labels))
        dataset = dataset.batch(EVALUATION_BATCH_SIZE)
        if not is_prepared(images[0], self.preprocessing) and fits_in_memory(len(images), self.preprocessing):
            dataset = dataset.cache()
        return without_autotuning(dataset.prefetch(2))

    def images_in_equal_batches(self, *parts: Part | np.ndarray) -> "tf.data.Dataset":
        """The scaled images of some parts, one part after the other; the last image fills the last batch.

        A compiled model compiles each number of rows anew: 1.3 CPU seconds for `defect-conv/4`.

        Args:
            *parts: of the split, or positions in the image set.
        """
        positions = [getattr(self.split, part) if isinstance(part, str) else part for part in parts]
        images = list(self.image_set.take(np.concatenate(positions)).images)
        rows = -(-len(images) // -(-len(images) // EVALUATION_BATCH_SIZE))
        images += [images[-1]] * (-len(images) % rows)
        pixels = pixel_dataset(images, self.preprocessing)
        batches = pixels.map(lambda image: scale_pixels(image, self.preprocessing)).batch(rows)
        return without_autotuning(batches.prefetch(2))

    @cached_property
    def corrupted(self) -> np.ndarray:
        """The corrupted copies of the training images, prepared: uint8 (copies * n, h, w, c)."""
        return corrupted_pixels(
            self.image_set.take(self.split.train), self.preprocessing, self.augmentation, self.seed
        )

    @cached_property
    def _read_train(self) -> "Reader":
        """From indices; those from n on are of the corrupted copies, the first copy of each image first."""
        images = self.image_set.take(self.split.train).images
        read = make_reader(images, self.preprocessing)
        return (
            with_corrupted(read, self.corrupted, len(images)) if self.augmentation.corrupted_copies else read
        )


def load_data(
    data: str | Path | ImageSet | None = None,
    image_shape: tuple[int, int, int] | None = None,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    aspect: Aspect = "stretch",
    background: Sequence[int] = (255,),
    pixel_range: PixelRange = "auto",
    tiff_page: int | Literal["channels"] | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    crop_boxes: bool = False,
    allow_outside: bool = False,
    fixes: str | None = None,
) -> ImageData:
    """Images from anywhere, split and ready for `model.fit`.

    Args:
        data: what `load_image_set` takes, or an `ImageSet`.
        image_shape: (height, width, channels) that the images are converted to; 1 channel is gray, 3 is RGB,
            other numbers are channels of measurement. By default (28, 28, 1) for the drawn defects; your own
            images decide it, and one line says how: they keep their colour, and up to 128 pixels per side.
        batch_size: images per training step; by default 64, and fewer for few images, see
            `batch_for`.
        seed: of the split, the order and the augmentation.
        augmentation: an `Augmentation`; `None` for none.
        aspect: see `Preprocessing`.
        background: see `Preprocessing`.
        pixel_range: see `keras_vit.data.pixel_range.choose_range`; one line says what is
            chosen.
        tiff_page: see `Preprocessing`.
        test_fraction: share of each class that is kept for the test.
        validation_fraction: share of the rest of each class that is kept for validation.
        crop_boxes, allow_outside: of a table, see `load_image_set`.
        fixes: a file of what a person has decided on the images, see `load_image_set`.

    Raises:
        InputError: the images cannot be used; the message says which, and what to do.

    Example:
        >>> data = keras_vit.load_data("images", (28, 28, 1))
        >>> model.fit(
        ...     data.train,
        ...     steps_per_epoch=data.steps_per_epoch,
        ...     validation_data=data.validation,
        ...     shuffle=False,  # they are shuffled already
        ... )
    """
    from keras_vit.distribution.accelerators import keep_tensorflow_off_gpus  # Keras, which not all need

    keep_tensorflow_off_gpus()
    if isinstance(data, ImageSet):
        if fixes is not None:
            raise InputError("An ImageSet has its labels already: give fixes to load_image_set.")
        image_set = data
    else:
        image_set = load_image_set(data, crop_boxes=crop_boxes, allow_outside=allow_outside, fixes=fixes)
    split = split_image_set(
        image_set, seed=seed, test_fraction=test_fraction, validation_fraction=validation_fraction
    )
    if image_shape is None:
        image_shape = (28, 28, 1) if data is None else _shape_of_images(image_set, background, tiff_page)
    preprocessing = Preprocessing(image_shape, aspect, background=tuple(background), tiff_page=tiff_page)
    _check_channels(image_set, preprocessing)
    chosen, told = choose_range(pixel_range, image_set, split, preprocessing)
    if told:
        say(f"pixels: {told}")
    if batch_size is None:
        batch_size = batch_for(len(split.train), 64)
        if batch_size < 64:
            say(f"batch_size={batch_size} instead of 64, for the {len(split.train)} training images")
    return ImageData(
        image_set,
        split,
        dataclasses.replace(preprocessing, pixel_range=chosen),
        batch_size,
        seed,
        augmentation or Augmentation(),
    )


def _check_channels(image_set: ImageSet, preprocessing: Preprocessing) -> None:
    """Raises `InputError` if the first image of a class has not the channels of measurement of the model."""
    if not is_measured(preprocessing.image_shape[2]):
        return
    _, first = np.unique(image_set.labels, axis=0, return_index=True)
    for i in first:
        try:
            whole_pixels(image_set.images[i], preprocessing.decoding)
        except UnreadableImage as reason:
            raise InputError(
                f"{image_set.names[i]}: {reason}. Give another image_shape, or convert it."
            ) from None


def batch_for(images: int, wanted: int, replicas: int = 1) -> int:
    """The batch size for so many training images: halved until an epoch has `FEWEST_STEPS` steps.

    Few steps per epoch cost accuracy: docs/decisions.md has the figures.

    Args:
        images: for training.
        wanted: for many images; the result is not larger.
        replicas: copies of the model that share each batch equally.
    """
    batch_size = wanted
    while images < FEWEST_STEPS * batch_size and batch_size >= 2 * SMALLEST_BATCH:
        batch_size //= 2
    batch_size = min(batch_size, images)
    return batch_size // replicas * replicas or wanted


def _shape_of_images(
    image_set: ImageSet, background: Sequence[int], tiff_page: TiffPage
) -> tuple[int, int, int]:
    overview = Overview(image_set.images, tuple(background), tiff_page)
    shape = overview.image_shape
    size = "x".join(map(str, overview.size or ("?", "?")))
    color = "are all gray" if shape[2] == 1 else "have colour" if shape[2] == 3 else f"{shape[2]} channels"
    say(
        f"image_shape={shape}: chosen by the images, which have {size} pixels (the median) and {color}; "
        "load_data(image_shape=...) chooses another"
    )
    return shape


def fits_in_memory(count: int, preprocessing: Preprocessing) -> bool:
    """Whether so many prepared images are kept in memory, rather than read again in each epoch."""
    return count * int(np.prod(preprocessing.image_shape)) * 4 <= CACHE_BYTES


def pixel_dataset(images: Sequence[Image], preprocessing: Preprocessing) -> "tf.data.Dataset":
    """A tf.data.Dataset of prepared images, float32 `image_shape` in 0..255, in order."""
    import tensorflow as tf

    source, prepare = make_source(images, preprocessing)
    return tf.data.Dataset.from_tensor_slices(source).map(prepare, num_parallel_calls=tf.data.AUTOTUNE)


def read_pixels(images: Sequence[Image], preprocessing: Preprocessing) -> np.ndarray:
    """Prepared images in memory: float32 (n, height, width, channels) in 0..255."""
    if not len(images):
        return np.zeros((0, *preprocessing.image_shape), "float32")
    if all(is_prepared(image, preprocessing) for image in images):
        return np.stack(list(images))  # type: ignore[arg-type]
    batches = without_autotuning(pixel_dataset(images, preprocessing).batch(256).prefetch(2))
    return np.concatenate(list(batches.as_numpy_iterator()))


def without_autotuning(dataset: "tf.data.Dataset") -> "tf.data.Dataset":
    """The dataset without the thread that tunes its parallelism, so that its iterators end at once.

    That thread sleeps for up to a minute between its measurements, and deleting an iterator sometimes waits
    for it: `fit` returned up to 50 seconds after its last epoch. Without it, parallel steps keep their first
    number of threads, one per processor.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def make_reader(images: Sequence[Image], preprocessing: Preprocessing) -> "Reader":
    """A function from a dataset of indices (b,) to one of prepared images (b, h, w, c).

    The images come from memory if they fit, or else from their files, decoded on all cores.
    """
    import tensorflow as tf

    if fits_in_memory(len(images), preprocessing):
        with tf.device("CPU"):
            pixels = tf.convert_to_tensor(read_pixels(images, preprocessing))
        return lambda batches: batches.map(lambda indices: tf.gather(pixels, indices))

    source, prepare = make_source(images, preprocessing)

    def read(batches):
        size = batches.element_spec.shape[0]
        prepared = batches.unbatch().map(
            lambda index: prepare(source[index]), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return prepared.batch(size, drop_remainder=True)

    return read


def counts_by_part(split: Split) -> dict[str, int]:
    """Part -> number of images."""
    return {part: len(getattr(split, part)) for part in SPLIT_PARTS}
