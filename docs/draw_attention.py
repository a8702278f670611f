"""Draws docs/attention.png from a run on the drawn steel defects: `python docs/draw_attention.py RUN`."""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from keras_vit.data.sources.steel import draw_steel_defects
from keras_vit.explain.figure import show
from keras_vit.runs.folder import load_run


def main(folder: str) -> None:
    run = load_run(folder)
    # One image per class that no run was trained on: the data set is drawn with seed 0.
    images = draw_steel_defects(seed=1, images_per_class=1)
    with tempfile.TemporaryDirectory() as drawn:
        paths = [Path(drawn) / f"{i}.png" for i in range(len(images))]
        for path, pixels in zip(paths, images.images, strict=True):
            Image.fromarray(np.asarray(pixels)[..., 0]).save(path)
        found = run.explain(paths)

    figure = Figure(figsize=(10, 3.9), layout="constrained", dpi=110)
    axes = figure.subplots(2, len(images))
    for label, explanation, (above, below) in zip(images.labels, found, axes.T, strict=True):
        show(above, explanation.pixels, None, None)
        above.set_title(images.class_names[label], fontsize=11)
        # The mean over the heads of the last block.
        show(below, explanation.pixels, explanation.heads.mean(axis=0), explanation.box)
        below.set_xlabel(f"{explanation.label} {explanation.confidence:.0%}", fontsize=11)
    figure.savefig(Path(__file__).with_name("attention.png"))


if __name__ == "__main__":
    main(sys.argv[1])
