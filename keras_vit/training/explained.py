"""What a run looks at and has learned, for its report."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vit.data.image_set import evenly
from keras_vit.data.pipeline import ImageData, read_pixels
from keras_vit.data.preprocess import scale_pixels
from keras_vit.data.probe import shown_pixels, to_show
from keras_vit.evaluation.labels import thresholds_in
from keras_vit.explain.inside import Inside
from keras_vit.explain.learned import attention_distance, filters, position_similarity
from keras_vit.explain.maps import maps_of
from keras_vit.explain.overlay import strip
from keras_vit.explain.placement import place
from keras_vit.explain.trust import RANDOM_ORDERS, mean_pixel, probabilities_of, trust
from keras_vit.model.vit import ViT

CLASSES = 12
"""At most so many classes have a right image: a page of a hundred would be large."""

TRIED = 4  # test images per class, of which the first right one is shown
DISTANCE_IMAGES = 8
TRUST_IMAGES = 8
TRUST_STEPS = 6

TRUST_WORK = 3e11
"""Mult-adds of the curves above which a report has none: about five seconds of two cores."""


def explained(vit: ViT, data: ImageData, metrics: Mapping[str, Any], mult_adds: int | None) -> dict[str, Any]:
    """What the report shows of the maps and of what the model has learned: see `render_report`.

    Args:
        vit: the model on one device.
        data: the images.
        metrics: of `judge`.
        mult_adds: of one image through the model; `None` if it is not known.
    """
    inside = Inside(vit)
    probabilities = probabilities_of(
        vit, data.preprocessing, metrics["calibration"]["temperature"], data.several
    )
    test = data.split.test
    sample = evenly(len(test), DISTANCE_IMAGES)
    scaled = scale_pixels(_pixels(data, test[sample]), data.preprocessing)
    kind, found = filters(vit)
    return {
        **_looks(inside, data, metrics, probabilities),
        "several": data.several,
        "positions": position_similarity(vit),
        "filters_kind": kind,
        "filters": to_show(found, data.preprocessing.decoding),
        "distances": attention_distance(inside, scaled).tolist(),
        "distance_images": len(sample),
        "longest": float(np.hypot(*data.image_shape[:2])),
        "trust": _trust(vit, data, probabilities, mult_adds),
    }


def _pixels(data: ImageData, positions: np.ndarray) -> np.ndarray:
    return read_pixels(data.image_set.take(positions).images, data.preprocessing)


def _looks(inside, data, metrics, probabilities):
    """Strips of the mistakes and of one right image per class."""
    targets, test = data.targets("test"), data.split.test
    shown = [c for c in range(data.num_classes) if targets[:, c].any()]
    tried = {c: np.flatnonzero(targets[:, c])[:TRIED] for c in shown[:CLASSES]}
    positions = np.unique(np.concatenate([np.zeros(0, np.int64), *tried.values()]))
    predicted = dict(zip(positions.tolist(), probabilities(_pixels(data, test[positions])), strict=True))
    thresholds = thresholds_in(metrics)
    right = {}
    for c, places in tried.items():
        for i in places.tolist():
            row = predicted[i]
            is_right = row.argmax() == c if thresholds is None else row[c] >= thresholds[c]
            if is_right and c not in right:
                right[c] = (i, c, float(row[c]))
    wrong = _wrong(metrics)
    chosen = [*wrong, *(right[c] for c in sorted(right))]
    rows = [
        {
            "name": data.names("test")[i],
            "true": np.flatnonzero(targets[i]).tolist() if data.several else int(targets[i].argmax()),
            "predicted": label,
            "confidence": confidence,
        }
        for i, label, confidence in chosen
    ]
    if chosen:
        positions = np.array([i for i, _, _ in chosen])
        scaled = scale_pixels(_pixels(data, test[positions]), data.preprocessing)
        maps = maps_of(inside, scaled, [label for _, label, _ in chosen])
        height, width = data.image_shape[:2]
        for row, position, *both in zip(
            rows, test[positions], maps.rollout, maps.gradient_weighted, strict=True
        ):
            pixels = shown_pixels(data.image_set.original(position), data.preprocessing.decoding)
            box = place(pixels.shape[0], pixels.shape[1], height, width, data.preprocessing.aspect)
            row["strip"] = strip(pixels, both, box)
    return {
        "wrong": rows[: len(wrong)],
        "right": rows[len(wrong) :],
        "right_left_out": max(0, len(shown) - CLASSES),
        "right_missing": [data.class_names[c] for c in shown[:CLASSES] if c not in right],
        "tried": TRIED,
    }


def _wrong(metrics):
    """Position, label and its probability, of the mistakes: of several labels those named wrongly."""
    if thresholds_in(metrics) is None:
        return [(m["index"], m["predicted"], m["confidence"]) for m in metrics["mistakes"]]
    named = [m for m in metrics["mistakes"] if not m["missed"]]
    named = sorted(named, key=lambda m: -m["probability"])[:CLASSES]
    return [(m["index"], m["label"], m["probability"]) for m in named]


def _trust(vit, data, probabilities, mult_adds):
    """The figures of `trust` for a few test images, or `None` where they would take long."""
    copies = 2 * (RANDOM_ORDERS + 1) * (TRUST_STEPS + 1) * TRUST_IMAGES
    if mult_adds is None or copies * mult_adds > TRUST_WORK:
        return None
    images = _pixels(data, data.split.test[evenly(len(data.split.test), TRUST_IMAGES)])
    mean = mean_pixel(data.image_set.take(data.split.train).images, data.preprocessing)
    return trust(vit, probabilities, images, data.preprocessing, mean, TRUST_STEPS)
