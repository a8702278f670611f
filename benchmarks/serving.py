"""How fast the exported SavedModel answers, compared with onnxruntime and Pillow on the same model.

    python benchmarks/serving.py --run runs/first

Both go from the bytes of image files to probabilities in one process, in turns, so that a busy machine slows
both. The SavedModel decodes, checks and resizes in its graph (the signature `serving_default`); for the ONNX
file, Pillow decodes and resizes. Prints the median time of each and the median ratio of turns: above 1, the
SavedModel is slower.
"""

import io
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

import keras_vit
from keras_vit.runs.folder import load_run
from keras_vit.runs.judged_images import images_to_judge
from keras_vit.serving.saved_model import encoded_image

CALLS = 9  # per turn


@dataclass(frozen=True)
class Benchmark:
    """Two runtimes that classify a run's test images.

    Args:
        run: a run folder, of square images without `--aspect`.
        batch_sizes: images per call.
        seconds: per batch size.
    """

    run: Path
    batch_sizes: tuple[int, ...] = (1, 32)
    seconds: float = 20.0


def main(settings: Benchmark) -> None:
    run = load_run(settings.run)
    images = images_to_judge(run)
    files = [encoded_image(images.original(i)) for i in range(len(images))]
    with tempfile.TemporaryDirectory() as folder:
        saved_model = saved_model_of(keras_vit.export(run, folder).path)
        onnx = onnx_of(keras_vit.export(run, folder, format="onnx").path, run.preprocessing.image_shape)
    for size in settings.batch_sizes:
        batch = files[:size]
        difference = np.abs(saved_model(batch) - onnx(batch)).max()
        times = taking_turns([partial(saved_model, batch), partial(onnx, batch)], settings.seconds)
        ratio = statistics.median(ours / theirs for ours, theirs in zip(*times, strict=True))
        first, second = (1000 * statistics.median(found) for found in times)
        print(
            f"{size} images: SavedModel {first:.2f} ms, onnxruntime and Pillow {second:.2f} ms, "
            f"ratio {ratio:.2f} ({len(times[0])} turns; probabilities differ by {difference:.4f})"
        )


def saved_model_of(folder: Path):
    """A function from files to probabilities."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))

    def answer(files):
        return loaded.signatures["serving_default"](image_bytes=tf.constant(files))["probabilities"].numpy()

    return answer


def onnx_of(folder: Path, image_shape):
    """A function from files to probabilities; they differ a little, because Pillow rounds gray levels."""
    import onnxruntime
    from PIL import Image

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    height, width, channels = image_shape

    def prepare(file):
        image = Image.open(io.BytesIO(file)).convert("L" if channels == 1 else "RGB")
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(small, "float32").reshape(image_shape)

    def answer(files):
        return session.run(["probabilities"], {"images": np.stack([prepare(file) for file in files])})[0]

    return answer


def taking_turns(functions, seconds: float) -> list[list[float]]:
    """The median seconds of a call, turn by turn, for each function.

    A turn is several calls, without the first: the threads of one runtime keep spinning for a moment after
    its call, and would slow the other.
    """
    times: list[list[float]] = [[] for _ in functions]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for function, found in zip(functions, times, strict=True):
            found.append(statistics.median([seconds_of(function) for _ in range(CALLS + 1)][1:]))
    return [found[1:] for found in times]  # the first turn warms up


def seconds_of(function) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
