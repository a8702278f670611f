"""What the images decide of a run from scratch where its settings do not: model, image size and channels.

The choice depends on the images and on the kind of device alone. Nothing is timed, so the same command trains
the same model on every machine of a kind. docs/decisions.md has the figures behind the table.
"""

import dataclasses
from typing import Any

from keras_vit.data.image_set import ImageSet
from keras_vit.data.overview import Overview
from keras_vit.data.pipeline import ImageData, batch_for
from keras_vit.data.values import MOST_CHANNELS, is_measured
from keras_vit.errors import InputError
from keras_vit.model.config import default_image_size, variant_arguments
from keras_vit.training.config import AUTO, OF_THE_IMAGES, TrainConfig
from keras_vit.training.recipe import RECIPES

FAMILY = "defect-conv"
"""The size of which the patch size is chosen."""

PATCHES = ((700, 16), (1_100, 14), (1_500, 12), (2_400, 10), (4_000, 8))
"""Up to so many images for training and validation, so many patches per side: 30 epochs take about five
minutes on two cores."""

FEWEST_PATCHES = 7
"""Per side, for more images: the 28 pixels of the reference study."""

ON_ACCELERATOR = 20
"""How many times as many images a GPU or a TPU trains on in that time, at least."""

SMALL_PATCH, PATCH = 4, 8
PATCH_SIZES = (4, 8, 16, 2)
"""Those that are tried for a given image size, in this order: convolutions halve the image."""


def choose_by_images(
    config: TrainConfig, image_set: ImageSet, overview: Overview, accelerator: bool
) -> dict[str, Any]:
    """Plain values of the settings that a config leaves to the images.

    Args:
        config: the settings.
        image_set: what `config.data` names.
        overview: of its images.
        accelerator: whether the run is trained on a GPU or a TPU.

    Returns:
        Values by name of those of `TrainConfig.follows_images`; `None` for other settings that are `AUTO`,
        which the drawn defects or published weights decide.

    Raises:
        InputError: no patch size divides the given image size.
    """
    chosen: dict[str, Any] = {name: None for name in OF_THE_IMAGES if getattr(config, name) == AUTO}
    follow = config.follows_images
    if not follow:
        return chosen
    most = most_patches(_images_of_training(config, image_set), accelerator)
    side = overview.side  # if no image can be read, the audit says so
    if "channels" in follow:
        chosen["channels"] = _channels(image_set, overview)
    if "model" not in follow:
        if "image_size" in follow:
            chosen["image_size"] = _size_for(config.size, side, most)
        return chosen
    if "image_size" in follow:
        patch, size = model_for(side, most)
        chosen["image_size"] = size
    else:
        patch = _patch_for(config.image_size, most)
    chosen["model"] = f"{FAMILY}/{patch}"
    return chosen


def _channels(image_set: ImageSet, overview: Overview) -> int:
    """1 for gray, 3 for colour, or the number of channels of measurement that all images have."""
    found = overview.channels
    if found.keys() <= {3}:
        return 1 if overview.is_gray else 3
    if len(found) > 1:
        told = "; ".join(
            f"{'1 or 3' if count == 3 else count} channels, the first {image_set.names[i]}"
            for count, i in sorted(found.items())
        )
        raise InputError(
            f"{image_set.source} holds images of several numbers of channels: {told}. A model takes one "
            "number: remove or convert the others."
        )
    (count,) = found
    if count > MOST_CHANNELS:
        raise InputError(
            f"{image_set.names[found[count]]} has {count} channels, and at most {MOST_CHANNELS} are read: "
            "save those that count."
        )
    return count


def most_patches(images: int, accelerator: bool) -> int:
    """Patches per side that so many images for training and validation leave time for."""
    for limit, patches in PATCHES:
        if images <= limit * (ON_ACCELERATOR if accelerator else 1):
            return patches
    return FEWEST_PATCHES


def model_for(side: int, most: int) -> tuple[int, int]:
    """Patch size and image size for images of a side: as many of their pixels as the patches take in."""
    large = min(side, most * PATCH) // PATCH * PATCH
    if large >= 8 * PATCH and most >= 8:
        return PATCH, large
    small = min(side, most * SMALL_PATCH) // SMALL_PATCH * SMALL_PATCH
    return SMALL_PATCH, max(small, FEWEST_PATCHES * SMALL_PATCH)


def _patch_for(size: Any, most: int) -> int:
    """The smallest patch that makes no more patches of a given image size, or else the largest that fits."""
    height, width = (size, size) if isinstance(size, int) else size
    fitting = [patch for patch in PATCH_SIZES if height % patch == 0 == width % patch]
    if not fitting:
        raise InputError(
            f"No model is chosen for images of {height}x{width} pixels, which must be even: choose another "
            "--image-size, such as a multiple of 8, or give --model."
        )
    few = [patch for patch in fitting if (height // patch) * (width // patch) <= most**2]
    return few[0] if few else max(fitting)


def _size_for(model: str, side: int, most: int) -> int:
    """The image size for a model that is named: that of the size or of the table, the larger one."""
    patch = variant_arguments(model)["patch_size"]
    largest = max(default_image_size(model), most * patch)
    return max(min(side, largest) // patch, 1) * patch


def _images_of_training(config: TrainConfig, image_set: ImageSet) -> int:
    """The number of images that are not for the test."""
    if image_set.parts is not None and "test" in image_set.parts:
        return sum(part != "test" for part in image_set.parts)
    return round(len(image_set) * (1 - config.test_share))


def cut_batch(config: TrainConfig, images: int, replicas: int = 1) -> int:
    """The batch size of a run with so many training images: one that was not given is cut, see `batch_for`.

    Args:
        config: the settings.
        images: number of training images.
        replicas: copies of the model that share each batch equally.
    """
    wanted = config.recipe.batch_size
    is_default = not config.fixed_batch and wanted in {recipe.batch_size for recipe in RECIPES.values()}
    return batch_for(images, wanted, replicas) if is_default else wanted


def with_batch_of(config: TrainConfig, data: ImageData) -> tuple[TrainConfig, list[str]]:
    """The settings with the batch size of the images, and a line if it was cut."""
    before, batch_size = config.recipe.batch_size, data.batch_size
    if config.recipe.tune == "head" or batch_size == before:
        return config, []
    recipe = dataclasses.replace(config.recipe, batch_size=batch_size)
    why = f"for the {len(data.split.train)} training images"
    if data.balanced:
        why += ", which are few in most classes"
    line = f"batch size: {batch_size} instead of {before}, {why}; --batch-size chooses another"
    return dataclasses.replace(config, recipe=recipe), [line]


def line_of_images(
    config: TrainConfig, chosen: dict[str, Any], overview: Overview, image_shape: tuple[int, int, int]
) -> str | None:
    """One line: what the images decided, what the model does not see of them, and how to choose otherwise.

    Args:
        config: the settings of the run.
        chosen: what `choose_by_images` returned.
        overview: of the images.
        image_shape: (height, width, channels) of what the model gets.

    Returns:
        `None` for the drawn defects, and where nothing was decided and nothing is lost.
    """
    if config.data is None or overview.size is None:
        return None
    options = {name: chosen[name] for name in OF_THE_IMAGES if chosen.get(name) is not None}
    size, wanted = ("x".join(map(str, sides)) for sides in (overview.size, image_shape[:2]))
    resized = f"{_resized(overview.size, image_shape[:2])} from {size} pixels (the median) to {wanted}"
    measured = is_measured(image_shape[2])
    dropped = image_shape[2] == 1 and not overview.is_gray
    if options:
        words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
        facts = [f"they keep their {size} pixels (the median)" if size == wanted else f"they are {resized}"]
        if dropped:
            facts.append("their colour is dropped")
        elif "channels" in options:
            facts.append(f"they have {image_shape[2]} channels of measurement") if measured else facts.append(
                "all are gray" if overview.is_gray else "their colour is kept"
            )
        return f"chosen by the images: {words}; {', '.join(facts)}. These options choose otherwise."
    facts = [f"are {resized}"] if size != wanted else []
    remedies = ["--image-size"] if size != wanted else []
    if dropped:
        facts.append("lose their colour")
        remedies.append("--channels 3")
    if not facts:
        return None
    return f"The images {' and '.join(facts)}: {' and '.join(remedies)} would keep more of them."


def _resized(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    if all(new <= old for old, new in zip(before, after, strict=True)):
        return "shrunk"
    return "enlarged" if all(new >= old for old, new in zip(before, after, strict=True)) else "resized"
