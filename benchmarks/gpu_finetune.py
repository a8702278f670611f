"""Fine-tunes published weights where there is a GPU and torch, but no TensorFlow to read the images.

The model, the recipe, the optimizer and `fit` are those of `keras-vit train`; only the input differs: Pillow
reads and resizes the images, and torch augments them on the CPU as the package's pipeline does (mirror images
and shifts with a mirrored border). Each line of standard input is a job in JSON; each gives a line of JSON.

    KERAS_BACKEND=jax python -m benchmarks.gpu_finetune --data FOLDER --weights FILE < jobs
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
import torch
from PIL import Image

from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.model.vit import ViT
from keras_vit.training.lora import merge_lora
from keras_vit.training.optimizer import compile_model
from keras_vit.training.probe import fit_head
from keras_vit.training.recipe import RECIPE_CHANGES, RECIPES


def read(folder: Path, size: int) -> tuple[np.ndarray, object]:
    """uint8 (n, size, size, 3), and the image set; kept beside the folder for the next process."""
    image_set = load_image_set(str(folder))
    kept = Path(f"{folder}-{size}.npy")
    if not kept.exists():
        pixels = [
            np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
            for path in image_set.images
        ]
        np.save(kept, np.stack(pixels))
    return np.load(kept), image_set


class Batches(keras.utils.PyDataset):
    """Training batches, augmented."""

    def __init__(self, images: torch.Tensor, labels: np.ndarray, recipe, classes: int, seed: int):
        super().__init__()
        self.images, self.recipe, self.seed = images, recipe, seed
        self.labels = torch.eye(classes, device=images.device)[torch.as_tensor(labels, device=images.device)]
        self.epoch = 0
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.images) // self.recipe.batch_size

    def on_epoch_end(self) -> None:
        self.random = torch.Generator(device=self.images.device).manual_seed(self.seed * 1000 + self.epoch)
        self.order = torch.randperm(len(self.images), generator=self.random, device=self.images.device)
        self.epoch += 1

    def __getitem__(self, step: int):
        size = self.recipe.batch_size
        chosen = self.order[step * size : (step + 1) * size]
        x = self.images[chosen].float()
        b, h, w, _ = x.shape
        rows, columns = self._places(b, h), self._places(b, w)
        every = torch.arange(b, device=x.device)[:, None, None]
        x = x[every, rows[:, :, None], columns[:, None, :]]
        return (x / 127.5 - 1.0).numpy(), self.labels[chosen].numpy()

    def _places(self, count: int, side: int) -> torch.Tensor:
        """Where each row comes from: shifted with a mirrored border, then mirrored in half of the images."""
        options = dict(generator=self.random, device=self.images.device)
        augmentation = self.recipe.augmentation
        shift = (torch.rand(count, 1, **options) * 2 - 1) * augmentation.crop * side
        at = torch.arange(side, device=self.images.device)[None] + shift.round().long()
        at = torch.where(at < 0, -at - 1, at)
        at = torch.where(at >= side, 2 * side - 1 - at, at)
        if augmentation.flip == "both":
            mirrored = torch.rand(count, 1, **options) < 0.5
            at = torch.where(mirrored, at.flip(1), at)
        return at


def logits_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """(flips, n, outputs): of the images, mirrored left-right, up-down and both."""
    found = []
    for dims in ((), (2,), (1,), (1, 2)):
        parts = []
        for start in range(0, len(images), 128):
            x = images[start : start + 128]
            filled = np.concatenate([x, np.repeat(x[-1:], 128 - len(x), axis=0)])  # one shape to compile
            filled = filled.astype("float32") / 127.5 - 1.0
            filled = np.flip(filled, dims) if dims else filled
            parts.append(np.asarray(model.predict_on_batch(filled), "float32")[: len(x)])
        found.append(np.concatenate(parts))
    return np.stack(found)


def run(job: dict, folder: Path, weights: Path) -> dict:
    """Trains one model; the shares of validation and test images that it classifies right, in per cent."""
    begin = time.perf_counter()
    recipe = dataclasses.replace(
        RECIPES[job["recipe"]], precision=job.get("precision", "mixed_bfloat16"), **job.get("changes", {})
    )
    if job.get("augmentation"):
        recipe = dataclasses.replace(
            recipe, augmentation=dataclasses.replace(recipe.augmentation, **job["augmentation"])
        )
    size = job.get("size", 224)
    pixels, image_set = read(folder / job["data"], size)
    split = split_image_set(image_set, seed=job["seed"], test_fraction=0.2, validation_fraction=0.1)
    train = split.train
    if job.get("merge"):
        train = np.sort(np.concatenate([split.train, split.validation]))
    labels = image_set.labels
    if job.get("per_class"):
        random = np.random.RandomState(job["seed"])
        train = np.concatenate(
            [random.permutation(train[labels[train] == c])[: job["per_class"]] for c in np.unique(labels)]
        )
    classes = len(image_set.class_names)
    keras.utils.set_random_seed(job["seed"])
    changes = {**RECIPE_CHANGES.get(job["recipe"], {}), **job.get("vit", {})}
    model = ViT.from_pretrained(
        weights,
        image_shape=(size, size, 3),
        num_classes=classes,
        pooling="token+gap",
        dtype=recipe.precision,
        **changes,
    )
    features = logits_of(model.extractor("features"), pixels[train])[0]
    head = fit_head(features, labels[train], classes)
    model.get_layer("head").set_weights([head.kernel, head.bias])
    batches = Batches(torch.as_tensor(pixels[train]), labels[train], recipe, classes, job["seed"])
    compile_model(model, recipe, len(batches))
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    started = time.perf_counter()
    if job["recipe"] != "probe":
        model.fit(batches, epochs=recipe.epochs, shuffle=False, verbose=0)
    seconds = time.perf_counter() - started
    plain = merge_lora(model)
    answer = dict(job, seconds=round(seconds, 1), trained_parameters=trained, strength=head.strength)
    for part in ("validation", "test"):
        which = getattr(split, part)
        if len(which):
            logits = logits_of(plain, pixels[which])
            exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
            p = exponent / exponent.sum(axis=-1, keepdims=True)
            right = labels[which]
            answer[part] = round(100 * float((p[0].argmax(1) == right).mean()), 3)
            answer[f"{part}_flips"] = round(100 * float((p.mean(0).argmax(1) == right).mean()), 3)
            answer[f"{part}_loss"] = round(
                float(-np.log(p[0][np.arange(len(right)), right] + 1e-9).mean()), 5
            )
    answer["all_seconds"] = round(time.perf_counter() - begin, 1)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--weights", type=Path, required=True)
    options = parser.parse_args()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), options.data, options.weights)), flush=True)
        keras.utils.clear_session(free_memory=True)


if __name__ == "__main__":
    main()
