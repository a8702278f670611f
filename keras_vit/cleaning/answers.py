"""What models say of the label of an image that they did not learn from."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.data.pixel_range import choose_range
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.split import Split
from keras_vit.errors import InputError
from keras_vit.evaluation.ood_fit import Pieces
from keras_vit.evaluation.wrong_labels import FOLDS, out_of_fold
from keras_vit.model.vit import ViT
from keras_vit.runs.ensemble import Ensemble, load_ensemble, open_runs
from keras_vit.runs.features import FeatureReader
from keras_vit.runs.folder import Run
from keras_vit.runs.images import images_in_words
from keras_vit.runs.ood import GAUSSIANS, pieces_of
from keras_vit.runs.ood_features import ood_columns
from keras_vit.runs.out_of_fold import OUT_OF_FOLD, read_answers
from keras_vit.text import say
from keras_vit.training.config import NONE, TrainConfig
from keras_vit.training.folds import train_several
from keras_vit.training.start import begin, choose_weights

DEPTHS = ("half", "three quarters", "head")
"""Which of `ood_columns` the classifiers see. With the head's alone, the ranking of swaps between two like
classes was a little worse: 96.7 instead of 97.2 % of them in the first 1.5 x their number, on X-SDD."""

FROM_SCRATCH = "defect-conv/4"


@dataclass(frozen=True)
class Seen:
    """What a model saw in the images of a set. Arrays have a row per image of `positions`.

    Args:
        positions: of the images in the set.
        probabilities: (n, classes), out of fold; `None` if they cannot be had.
        features: (n, width) that do not depend on the labels, or `None`.
        columns: of the features, those of the Gaussians that find outliers.
        how: where the answers come from, in words.
        skipped: why there are no probabilities, or for which images there are none; or `None`.
    """

    positions: np.ndarray
    probabilities: np.ndarray | None = None
    features: np.ndarray | None = None
    columns: tuple[Pieces, ...] = ()
    how: str = ""
    skipped: str | None = None


def seen_by_weights(
    image_set: ImageSet, groups: np.ndarray, readable: Sequence[int], config: TrainConfig
) -> Seen:
    """What published weights see.

    Args:
        image_set: all images.
        groups: int (n,), equal for images that show the same thing.
        readable: positions of the images that can be read.
        config: with `init`.

    Raises:
        InputError: the weights cannot be used.
    """
    config = choose_weights(config)
    positions = np.asarray(readable, np.int64)
    if config.init == NONE:
        return Seen(positions, skipped="no published weights can be had")
    start = begin(config)
    images = image_set.take(readable)
    preprocessing = _with_range(start.preprocessing, images, config)
    model = start.build(config, image_set.class_names)
    new = model.pretrained.new if model.pretrained else ()
    assert start.weights is not None
    reader = FeatureReader(model, preprocessing, None if new else start.weights.origin.sha256)
    return _of_features(reader, model, image_set, positions, groups, f"{start.name} of {config.init}")


def seen_by_run(image_set: ImageSet, groups: np.ndarray, readable: Sequence[int], path: str | Path) -> Seen:
    """What a run has seen in its images: the folds' answers, or the features of weights that were frozen.

    Args:
        image_set: all images.
        groups, readable: as of `seen_by_weights`.
        path: the folder of a run, or of several.

    Raises:
        InputError: the run cannot be opened, or has other classes.
    """
    run = open_runs(path)
    if tuple(sorted(run.class_names)) != tuple(sorted(image_set.class_names)):
        raise InputError(
            f"{path} has the classes {', '.join(run.class_names)}, and {image_set.source} has "
            f"{', '.join(image_set.class_names)}: give the run of these images."
        )
    if isinstance(run, Ensemble):
        return _of_folds(run, image_set, readable)
    return _of_one_run(run, image_set, groups, np.asarray(readable, np.int64))


def seen_from_scratch(image_set: ImageSet, readable: Sequence[int], config: TrainConfig) -> Seen:
    """What small models see that are trained now, one per fold, in a folder that is removed afterwards.

    They name far more right labels than published weights do: see `benchmarks/accuracy.md`.

    Args:
        image_set: all images.
        readable: positions of the images that can be read.
        config: which images, and the seed.
    """
    with tempfile.TemporaryDirectory(prefix="keras-vit-audit-") as folder:
        config = replace(config, model=config.model or FROM_SCRATCH, folds=FOLDS, out=Path(folder) / "folds")
        train_several(config)
        seen = _of_folds(load_ensemble(Path(folder) / "folds"), image_set, readable)
    how = f"{FOLDS} folds of {config.model}, trained from scratch, which name many right labels too"
    return replace(seen, how=how)


def _with_range(preprocessing: Preprocessing, images: ImageSet, config: TrainConfig) -> Preprocessing:
    nothing = np.zeros(0, np.int64)
    everything = Split(np.arange(len(images)), nothing, nothing)
    pixel_range, told = choose_range(config.pixel_range, images, everything, preprocessing)
    if told:
        say(f"pixels: {told}")
    return replace(preprocessing, pixel_range=pixel_range)


def _of_features(
    reader: FeatureReader,
    model: ViT,
    image_set: ImageSet,
    positions: np.ndarray,
    groups: np.ndarray,
    how: str,
) -> Seen:
    features = reader([image_set.images[i] for i in positions])
    say(f"features: {how}, {reader.computed} images computed, {reader.found} from the cache")
    probabilities, skipped, columns = None, None, ood_columns(model)
    if not image_set.several and sum(classes_to_judge(image_set, groups, positions)) < 2:
        skipped = f"fewer than two classes have {FOLDS} different images"
    elif not image_set.several:
        depths = sorted({columns[name] for name in DEPTHS})
        probabilities = out_of_fold(
            np.concatenate([features[:, start:stop] for start, stop in depths], axis=1).astype(np.float64),
            image_set.labels[positions],
            groups[positions],
            len(image_set.class_names),
        )
    pieces = pieces_of(GAUSSIANS[0], columns)
    how = f"out-of-fold classifiers of {how}"
    return Seen(positions, probabilities, features, tuple(pieces), how, skipped)


def classes_to_judge(image_set: ImageSet, groups: np.ndarray, positions: np.ndarray) -> list[bool]:
    """Of each class, whether it has enough different images to be learned without those that are judged."""
    labels, of_image = image_set.labels[positions], groups[positions]
    return [len(np.unique(of_image[labels == k])) >= FOLDS for k in range(len(image_set.class_names))]


def _of_one_run(run: Run, image_set: ImageSet, groups: np.ndarray, positions: np.ndarray) -> Seen:
    recipe: dict[str, Any] = run.config["train"].get("recipe") or {}
    is_frozen = recipe.get("tune") == "head" and isinstance(run.model, ViT)
    if not is_frozen:
        why = (
            f"{run.path} was trained on these labels, wrong ones too: give the folder of train --folds "
            f"{FOLDS}, or --init"
        )
        return Seen(positions, skipped=why)
    assert isinstance(run.model, ViT)
    reader = FeatureReader(run.model, run.preprocessing, None)
    return _of_features(reader, run.model, image_set, positions, groups, f"the frozen weights of {run.path}")


def _of_folds(runs: Ensemble, image_set: ImageSet, readable: Sequence[int]) -> Seen:
    """The answers of each fold to its test images, which are found by their content."""
    if runs.config["kind"] != "folds":
        why = f"the runs in {runs.path} are seeds, which learned from the same images: give folds"
        return Seen(np.asarray(readable, np.int64), skipped=why)
    place_of = {name: i for i, name in enumerate(image_set.class_names)}
    order = [runs.class_names.index(name) for name in place_of]
    found: dict[int, np.ndarray] = {}
    for run in runs.runs:
        rows, _, probabilities = read_answers(run.path / OUT_OF_FOLD, run.class_names, run.several)
        if run.images is None:
            continue
        now = run.images.find(image_set)
        positions = {run.images.rows[place]["path"]: i for place, i in now.places.items()}
        for row, answer in zip(rows, probabilities, strict=True):
            if row["path"] in positions:
                found[positions[row["path"]]] = answer[order]
    known = np.array(sorted(set(found) & set(readable)), np.int64)
    missing = len(readable) - len(known)
    return Seen(
        known,
        np.stack([found[i] for i in known.tolist()]) if len(known) else None,
        how=f"the answers of {len(runs.runs)} folds in {runs.path}",
        skipped=f"the run does not know {images_in_words(missing)}" if missing else None,
    )
