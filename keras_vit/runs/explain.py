"""What a finished run looks at in image files."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.data.probe import shown_pixels
from keras_vit.data.reading import read_images
from keras_vit.errors import InputError
from keras_vit.explain.explanation import Explanation
from keras_vit.explain.inside import Inside
from keras_vit.explain.maps import check_block, maps_of
from keras_vit.explain.placement import place
from keras_vit.runs.answer import NOT_FINITE, answer_images
from keras_vit.runs.image_notes import say_notes

if TYPE_CHECKING:
    import keras

    from keras_vit.model.vit import ViT

TOGETHER = 32
"""Images that are read and explained at once."""


def explanations(
    vit: "ViT",
    answers: "keras.Model",
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    images: Sequence[str | Path],
    class_name: str | None = None,
    block: int | None = None,
    removal: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> Iterator[Explanation]:
    """See `keras_vit.Run.explain`; the images are read while the iterator advances.

    Args:
        vit: the model of a run.
        answers: its `answer_model`.
        preprocessing: of the run.
        class_names: of the run.
        images: paths of image files.
        class_name: see `Run.explain`.
        block: see `Run.explain`.
        removal: from a prepared image and a class to the map of the search; `None` searches for none.

    Raises:
        InputError: there is no such class or block.
    """
    inside = Inside(vit)
    check_block(inside, block)
    if class_name is not None and class_name not in class_names:
        raise InputError(
            f"The run has no such class: give one of {', '.join(class_names)}. Received: {class_name}"
        )
    paths = [Path(image) for image in images]
    wanted = None if class_name is None else list(class_names).index(class_name)
    return _explanations(inside, answers, preprocessing, class_names, paths, wanted, block, removal)


def _explanations(
    inside: Inside,
    answers: "keras.Model",
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    paths: Sequence[Path],
    wanted: int | None,
    block: int | None,
    removal: Callable[[np.ndarray, int], np.ndarray] | None,
) -> Iterator[Explanation]:
    height, width, _ = preprocessing.image_shape
    for start in range(0, len(paths), TOGETHER):
        part = paths[start : start + TOGETHER]
        read = read_images(part, preprocessing, fingerprints=False)
        say_notes(part, read, preprocessing)
        inputs = [read.inputs[i] for i in read.readable]
        found = answer_images(answers, inputs, preprocessing)
        finite = np.flatnonzero(np.isfinite(found["probabilities"]).all(axis=1))
        classes = found["label"] if wanted is None else np.full(len(inputs), wanted)
        prepared = read_pixels([inputs[i] for i in finite], preprocessing)
        maps = maps_of(inside, scale_pixels(prepared, preprocessing), classes[finite], block)
        row_of = {read.readable[i]: i for i in finite}
        for i, (path, reason) in enumerate(zip(part, read.reasons, strict=True)):
            if i not in row_of:
                yield Explanation(str(path), None, None, reject=True, error=reason or NOT_FINITE)
                continue
            row = row_of[i]
            at = int(np.searchsorted(finite, row))
            pixels = shown_pixels(path, preprocessing.decoding)
            yield Explanation(
                image=str(path),
                label=class_names[found["label"][row]],
                confidence=float(found["confidence"][row]),
                reject=bool(found["reject"][row]),
                class_name=class_names[classes[row]],
                block=inside.default_block if block is None else block,
                heads=maps.heads[at],
                rollout=maps.rollout[at],
                gradient_weighted=maps.gradient_weighted[at],
                removal=None if removal is None else removal(prepared[at], int(classes[row])),
                pixels=pixels,
                box=place(pixels.shape[0], pixels.shape[1], height, width, preprocessing.aspect),
            )
