"""The page at `/`: a picture in; label, confidence and rejection out, with what the model looks at."""

import base64
import io
from typing import Any

import numpy as np

from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import scale_pixels
from keras_vit.data.probe import shown_pixels, why_unreadable
from keras_vit.data.reading import read_images
from keras_vit.data.targets import names_from_json
from keras_vit.data.values import UnreadableImage, is_measured
from keras_vit.errors import InputError
from keras_vit.explain.inside import Inside
from keras_vit.explain.maps import maps_of
from keras_vit.explain.overlay import normalised
from keras_vit.explain.placement import place
from keras_vit.report.live import live_page
from keras_vit.runs.folder import Run
from keras_vit.serving.decoding import MAX_PIXELS
from keras_vit.serving.sent import IMAGES, VALUES, Sent, to_send
from keras_vit.serving.server.pixels import pixels_of
from keras_vit.serving.server.refusal import Refusal
from keras_vit.serving.server.served import DEFAULT, FILES, Served
from keras_vit.text import shown

PREVIEW = 640  # pixels of the longer side of the picture that the page shows
DIGITS = 3  # of a value of a map, in 0..1


class Page:
    """Answers the page, in the thread of the model.

    Args:
        served: the model.
    """

    def __init__(self, served: Served):
        self.served = served
        self._inside = None if served.run is None else Inside(served.run.model)
        images = served.inputs(IMAGES).get(IMAGES) if IMAGES in served.definitions else None
        channels = images.shape[-1] if images and images.shape else None
        self._channels = channels if is_measured(channels) else None

    def html(self, nonce: str) -> str:
        """The page, for a Content-Security-Policy with this nonce."""
        served = self.served
        about = f"{served.about}, version {served.version}"
        return live_page(served.name, about, served.class_names, served.run is not None, nonce)

    def warm_up(self) -> None:
        """Computes one map: the first one takes longest."""
        run = self.served.run
        if run is not None and self._inside is not None:
            scaled = scale_pixels(np.zeros((1, *run.preprocessing.image_shape), "float32"), run.preprocessing)
            maps_of(self._inside, scaled, [0])

    def answer(self, file: bytes) -> dict[str, Any]:
        """What the model says of an image file.

        Args:
            file: its bytes, of any kind that is read.

        Returns:
            `label`, `confidence`, `reject`, `refer`, `set`, `labels`, `likeliest`: as of
            `keras_vit.Prediction`; `classes`: the likeliest first, each with `name`, `probability`, whether
            it is `named`, and whether it is `possible` by the prediction set; `picture`: a data URI; `map`:
            of a run, `values` in 0..1, a list per row, and `box`, where they lie on the picture: top, left,
            bottom and right as fractions of it.

        Raises:
            Refusal: the file cannot be read, or the model is none of this package.
        """
        if not self.served.takes_files:
            raise Refusal("UNIMPLEMENTED", "this model does not answer about image files with labels")
        if not file:
            raise Refusal("INVALID_ARGUMENT", "the file is empty")
        try:
            sent = to_send(file, self._channels, VALUES in self.served.functions, self.served.tiff_page)
        except (UnreadableImage, InputError) as reason:
            raise Refusal("INVALID_ARGUMENT", f"it cannot be used: {reason}") from reason
        if isinstance(sent, Sent):
            outputs = self.served.call(sent.signature, sent.inputs)
        else:
            outputs = self.served.call(DEFAULT, {FILES: np.array([sent], object)})
        row = {name: values[0] for name, values in outputs.items()}
        if not row["label"]:
            raise Refusal("INVALID_ARGUMENT", self._why(file))
        return self._in_words(row) | self._pictures(file, row)

    def _why(self, file: bytes) -> str:
        """Why the model has not decoded a file."""
        if pixels_of(file) > MAX_PIXELS:
            return f"it has more than the {MAX_PIXELS / 1e6:.0f} million pixels that are decoded"
        run = self.served.run
        if run is None:
            reason = why_unreadable(file)
        else:
            (reason,) = read_images([file], run.preprocessing, fingerprints=False).reasons
        return f"it cannot be used: {reason or 'the model cannot decode it as an image'}"

    def _in_words(self, row: dict[str, Any]) -> dict[str, Any]:
        probabilities = np.asarray(row["probabilities"], np.float64)
        names = self.served.class_names
        if names is None or len(names) != len(probabilities):
            names = tuple(f"class {number}" for number in range(len(probabilities)))
        order = np.argsort(-probabilities, kind="stable").tolist()
        members = row.get("prediction_set")
        labels = names_from_json(row["label_names"].decode()) if "label_names" in row else None
        label, likeliest = row["label"].decode(), row.get("likeliest", row["label"]).decode()
        named = {label} if labels is None else set(labels)
        return {
            "label": shown(label),
            "confidence": float(row["confidence"]),
            "reject": bool(row["reject"]),
            "refer": bool(row["refer"]) if "refer" in row else None,
            "set": None if members is None else [shown(names[i]) for i in order if members[i]],
            "labels": None if labels is None else [shown(one) for one in labels],
            "likeliest": shown(likeliest) if likeliest != label else None,
            "classes": [
                {
                    "name": shown(names[i]),
                    "probability": float(probabilities[i]),
                    "named": names[i] in named,
                    "possible": members is not None and bool(members[i]),
                }
                for i in order
            ],
        }

    def _pictures(self, file: bytes, row: dict[str, Any]) -> dict[str, Any]:
        """The picture as the model saw it, and the map of its label."""
        run = self.served.run
        try:
            pixels = shown_pixels(file, None if run is None else run.preprocessing.decoding)
        except UnreadableImage as reason:  # the graph has decoded it
            raise Refusal("INVALID_ARGUMENT", f"it cannot be used: {reason}") from reason
        found: dict[str, Any] = {"picture": _preview(pixels), "map": None}
        if run is not None:
            number = run.class_names.index(row["label"].decode())
            found["map"] = self._map(run, file, number, pixels.shape[0], pixels.shape[1])
        return found

    def _map(self, run: Run, file: bytes, number: int, height: int, width: int) -> dict[str, Any]:
        assert self._inside is not None
        preprocessing = run.preprocessing
        read = read_images([file], preprocessing, fingerprints=False)
        prepared = read_pixels(read.inputs, preprocessing)
        maps = maps_of(self._inside, scale_pixels(prepared, preprocessing), [number])
        values = normalised(maps.gradient_weighted[0])
        box = place(height, width, *preprocessing.image_shape[:2], preprocessing.aspect)
        sides = (box.top / height, box.left / width, box.bottom / height, box.right / width)
        return {"values": np.round(values.astype(float), DIGITS).tolist(), "box": sides}


def _preview(pixels: np.ndarray) -> str:
    """A picture of at most `PREVIEW` pixels per side, as a data URI."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    image.thumbnail((PREVIEW, PREVIEW))
    written = io.BytesIO()
    image.save(written, "PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
