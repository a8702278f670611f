"""Draws docs/attention.png from a run on the drawn steel defects: `python docs/draw_attention.py RUN`."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import scale_pixels
from keras_vit.data.sources.steel import draw_steel_defects
from keras_vit.evaluation.calibration import softmax
from keras_vit.runs.folder import load_run


def main(folder: str) -> None:
    run = load_run(folder)
    # One image per class that no run was trained on: the data set is drawn with seed 0.
    images = draw_steel_defects(seed=1, images_per_class=1)
    prepared = scale_pixels(read_pixels(images.images, run.preprocessing), run.preprocessing)
    probabilities = softmax(run.model.predict(prepared, verbose=0) / run.temperature)
    attention = run.model.extractor("attention").predict(prepared, verbose=0)[-1]  # b h n n
    # From the class token to the patches in the last block, mean over the heads.
    to_patches = attention[:, :, 0, 1:].mean(axis=1)
    rows, columns = (
        side // run.config["model_config"]["patch_size"] for side in run.preprocessing.image_shape[:2]
    )

    figure = Figure(figsize=(10, 3.9), layout="constrained", dpi=110)
    axes = figure.subplots(2, len(images))
    for i, (above, below) in enumerate(axes.T):
        best = int(np.argmax(probabilities[i]))
        pixels = np.asarray(images.images[i])[..., 0]
        above.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        above.set_title(images.class_names[images.labels[i]], fontsize=11)
        below.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        height, width = pixels.shape
        below.imshow(
            to_patches[i].reshape(rows, columns),
            cmap="inferno",
            alpha=0.55,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bicubic",
        )
        below.set_xlabel(f"{run.class_names[best]} {probabilities[i, best]:.0%}", fontsize=11)
        for axis in (above, below):
            axis.set_xticks([])
            axis.set_yticks([])
    figure.savefig(Path(__file__).with_name("attention.png"))


if __name__ == "__main__":
    main(sys.argv[1])
