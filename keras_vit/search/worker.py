"""What one process of a search does: prepare the images, try points, or serve as the chief."""

import dataclasses
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.split import Split
from keras_vit.errors import InputError
from keras_vit.files import read_json
from keras_vit.process.children import end_with
from keras_vit.process.exit_codes import FINE, GIVEN_UP, ONCE_MORE
from keras_vit.process.torchrun import continue_as_torchrun
from keras_vit.runs.images import ImageRecord
from keras_vit.search.config import SearchConfig, from_dict, where
from keras_vit.search.finetune_space import FirstWeights
from keras_vit.search.images import fixes_of, images_of
from keras_vit.text import say
from keras_vit.training.config import NONE, TrainConfig

if TYPE_CHECKING:
    from keras_vit.search.hypermodel import ViTHyperModel

# What XLA compiles stays until the process ends, some hundred megabytes per trial.
TRIALS_PER_PROCESS = {"tensorflow": 1}


@dataclass(frozen=True)
class Images:
    """The images that a search may see. The test images are not among them.

    Args:
        image_set: prepared if they fit into memory: float32 (height, width, channels) in 0..255.
        split: of the image set; its test part is empty.
        counts: number of images of each part, test included.
        fingerprint: of all images, test included.
        audit: the audit of the images, as text.
        backend: of Keras.
        preprocessing: of the images.
        first: what the trials begin with, if that is published weights.
        record: which images the search has seen, test included, and as what.
    """

    image_set: ImageSet
    split: Split
    counts: dict[str, int]
    fingerprint: str
    audit: str
    backend: str
    preprocessing: Preprocessing
    first: FirstWeights | None = None
    record: ImageRecord | None = None


def prepare_images(config: SearchConfig) -> Images:
    """Reads the images, once for all trials, and fits the head that published weights begin with.

    Raises:
        InputError: the source or the weights cannot be used, or images are unreadable and are not to be
            skipped.
    """
    import keras

    from keras_vit.data.overview import Overview
    from keras_vit.data.pipeline import counts_by_part, fits_in_memory, read_pixels
    from keras_vit.data.sources import load_image_set
    from keras_vit.training.defaults import line_of_images
    from keras_vit.training.prepare import prepare, same_images

    start, first = None, None
    if config.init != NONE:
        from keras_vit.search.published import fit_heads, read_start

        start = read_start(config)
    record, root, notes = images_of(config)
    image_set = load_image_set(root, **config.train_config.of_tables | fixes_of(config))
    if image_set.several:
        raise InputError(
            f"{image_set.source} has several labels per image, and a search compares the accuracy of one "
            "class per image: train with keras-vit train instead."
        )
    if record is not None:
        image_set, changed = same_images(record, image_set)
        notes += changed
    prepared = prepare(
        config.train_config,
        keep_originals=False,
        preprocessing=start.preprocessing if start else None,
        image_set=image_set,
        record=record,
    )
    data, audit = prepared.data, prepared.audit
    if start:
        first = fit_heads(config, start, data, image_set)
    not_seen = line_of_images(
        config.train_config,
        {},
        Overview(image_set.images, config.train_config.background, config.train_config.tiff_page),
        data.image_shape,
    )
    seen = np.concatenate([data.split.train, data.split.validation])
    images = data.image_set.take(seen)
    if fits_in_memory(len(seen), data.preprocessing):
        # A copy of their own, without the test images, which is what workers get.
        pixels = read_pixels(images.images, data.preprocessing)
        images = dataclasses.replace(images, images=list(pixels), originals=None)
    places = np.arange(len(seen))
    of_train = len(data.split.train)
    return Images(
        image_set=images,
        split=Split(places[:of_train], places[of_train:], places[:0]),
        counts=counts_by_part(data.split),
        fingerprint=data.image_set.fingerprint(),
        audit="\n".join(filter(None, (*notes, str(audit), not_seen))),
        backend=keras.backend.backend(),
        preprocessing=data.preprocessing,
        first=first,
        record=prepared.record,
    )


@dataclass(frozen=True)
class Job:
    """What all processes of a search work on.

    Args:
        config: the search.
        images: `None` if the process is to read them itself.
        stop_at: `time.time()` after which no trial is begun.
    """

    config: SearchConfig
    images: Images | None
    stop_at: float | None


def make_hypermodel(job: Job) -> "ViTHyperModel":
    """The hypermodel of the search, on the images that it may see."""
    from keras_vit.data.pipeline import ImageData
    from keras_vit.distribution.precision import precision_for
    from keras_vit.search import ViTHyperModel
    from keras_vit.training.balance import choose_sampling
    from keras_vit.training.recipe import BALANCED

    config = job.config
    config = dataclasses.replace(config, precision=precision_for(config.precision)[0])
    images = job.images or prepare_images(config)
    counts = np.bincount(
        images.image_set.labels[images.split.train], minlength=len(images.image_set.class_names)
    )
    data = ImageData(
        images.image_set,
        images.split,
        images.preprocessing,
        batch_size=1,
        seed=config.seed,
        balanced=choose_sampling(config.base_recipe, counts)[0] == BALANCED,
    )
    beginning = None
    if images.first is not None:
        from keras_vit.search.published import Beginning, read_start

        config = dataclasses.replace(config, weights=images.first.known)
        beginning = Beginning(read_start(config), config.train_config, images.first.heads)
    return ViTHyperModel(data, config.search_space(), config.base_recipe, config.seed, beginning)


def work(job: Job) -> int:
    """Tries points until the search is over, or until this process is to be replaced by a fresh one.

    KerasTuner's environment variables make it the chief, a worker, or the only process.

    Returns:
        The exit code.
    """
    import keras_tuner

    config = job.config
    if config.distribute != "none":
        task = json.dumps({"folder": str(config.folder), "stop_at": job.stop_at, **where(config)})
        continue_as_torchrun(config.distribute, config.devices, ["-m", "keras_vit.search.worker", task])
    try:
        _search(job)
    except (keras_tuner.errors.FatalError, RuntimeError) as error:
        # KerasTuner's message about trials that fail one after another contains the last one's traceback.
        traceback.print_exc()
        lines = [line for line in str(error).splitlines() if line.strip()]
        say(" ".join([lines[0], *lines[1:][-1:]]), flush=True)
        return GIVEN_UP
    return FINE


def _search(job: Job) -> None:
    import keras

    from keras_vit.distribution import distribute
    from keras_vit.search import ViTHyperband

    config = job.config

    class Tuner(ViTHyperband):
        trials_left = TRIALS_PER_PROCESS.get(keras.backend.backend(), sys.maxsize)

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            self.trials_left -= 1

        def pre_create_trial(self):
            if not self.trials_left:
                sys.exit(ONCE_MORE)
            super().pre_create_trial()

    with distribute(config.distribute, config.devices):
        tuner = Tuner(
            make_hypermodel(job),
            factor=config.factor,
            hyperband_iterations=config.iterations,
            seed=config.seed + 1,  # for KerasTuner 0 means a random seed
            max_trials=config.max_trials,
            stop_at=job.stop_at,
            tensorboard=config.folder / "tensorboard" if config.tensorboard else None,
            directory=config.folder.absolute().parent,
            project_name=config.folder.absolute().name,
        )
        tuner.search(verbose=0)


def train_default(job: Job) -> dict[str, Any]:
    """Trains the default point of the space in one go, as long as the longest trial.

    It uses one device, whose results several devices would repeat.

    Returns:
        The best validation accuracy of its epochs as "score", as for a trial; "epochs"; "seconds";
        "parameters".
    """
    import keras_tuner

    hypermodel = make_hypermodel(job)
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    begin = time.perf_counter()
    history = hypermodel.fit(hp, model, verbose=0).history
    return {
        "score": max(history["val_accuracy"]),
        "epochs": job.config.max_epochs,
        "seconds": round(time.perf_counter() - begin, 3),
        "parameters": model.count_params(),
    }


def train_run(config: TrainConfig, record: ImageRecord | None) -> None:
    """Trains a run, as `keras-vit train` does, on the split of a search."""
    from keras_vit.training.run import train_on

    train_on(config, record)


def main(task: str) -> int:
    """Works as one of the processes that torchrun has started.

    Args:
        task: JSON: the folder of the search, `stop_at`, and the settings of where it runs.
    """
    end_with(os.getppid())
    given = json.loads(task)
    stop_at = given.pop("stop_at")
    folder = Path(given.pop("folder"))
    config = from_dict(read_json(folder / "search.json")["asked"], SearchConfig(out=folder, **given))
    return work(Job(config, None, stop_at))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
