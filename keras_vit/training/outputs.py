"""What a run leaves: its evaluation and its files."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit import files
from keras_vit.data.audit import Audit
from keras_vit.data.image_set import Image, evenly
from keras_vit.data.origin import fixes_to_record, roots
from keras_vit.data.pipeline import ImageData, counts_by_part
from keras_vit.data.probe import shown_pixels
from keras_vit.evaluation.labels import probabilities_of
from keras_vit.evaluation.trust import CalibrationImages
from keras_vit.model.arguments import without_parts
from keras_vit.model.keras_file import save_whole
from keras_vit.model.summary import summary
from keras_vit.model.vit import ViT
from keras_vit.process.versions import installed_versions
from keras_vit.report.run import render_report
from keras_vit.runs import folder as run_folder
from keras_vit.runs.calibration import CALIBRATION, write_calibration
from keras_vit.runs.features import FeatureReader
from keras_vit.runs.images import ImageRecord
from keras_vit.runs.ood import judge_ood
from keras_vit.runs.out_of_fold import OUT_OF_FOLD, write_answers
from keras_vit.sealed import seal
from keras_vit.training.adapter import save_adapter
from keras_vit.training.checkpoint import BEST, CHECKPOINT, KeepBest, load_best
from keras_vit.training.config import TrainConfig, to_dict
from keras_vit.training.explained import explained
from keras_vit.training.judged import judge_run
from keras_vit.training.learned import MOST, sides_of
from keras_vit.training.lora import lora_layers, merge_lora
from keras_vit.training.options import command_of
from keras_vit.training.start import Start
from keras_vit.validation import to_plain

PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "scikit-learn")


def describe(config: TrainConfig, start: Start, data: ImageData, model: ViT) -> dict[str, Any]:
    """What config.json holds: all that is needed to repeat the run."""
    weights = start.describe()
    assert config.out is not None
    return {
        "model": start.name,
        **({"model_changes": config.changes} if config.changes else {}),
        "model_config": without_parts(model.get_config()),  # the recipe says what it has frozen
        "image_shape": list(start.preprocessing.image_shape),
        "preprocessing": to_plain(data.preprocessing),
        **({"weights": weights} if weights else {}),
        "data": {
            "source": data.image_set.source,
            "class_names": list(data.class_names),
            "counts": counts_by_part(data.split),
            **({"several_labels": True} if data.several else {}),
            **fixes_to_record(data.image_set),
            **roots(config.data, config.out),
        },
        "recipe": to_plain(config.recipe),
        "seed": config.seed,
        "command": command_of(config),
        "backend": keras.backend.backend(),
        "distribution": model.distribution.describe(config.recipe.batch_size),
        "device": f"{platform.machine()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "versions": installed_versions(*PACKAGES),
        "train": to_dict(config),
    }


def finish(
    folder: Path,
    described: dict[str, Any],
    model: ViT,
    data: ImageData,
    audit: Audit,
    history: list[dict],
    best: KeepBest,
    last_weights: list[np.ndarray],
    config: TrainConfig,
    examples: Sequence[Image] = (),
) -> None:
    """Evaluates the run in every process; the chief writes the files.

    Args:
        folder: of the run while it trains.
        described: of `describe`.
        model: with any weights.
        data: the images.
        audit: of the images.
        history: one dict per epoch.
        best: which epoch is the best.
        last_weights: of the last epoch.
        config: of the run.
        examples: of what is to be rejected.
    """
    training = evenly(len(data.split.train), MOST)
    images = data.images_in_equal_batches("test", "validation", data.split.train[training])
    ends = np.cumsum([len(data.split.test), len(data.split.validation), len(training)])
    model.set_weights(last_weights)
    last_logits = model.predict(images, verbose=0)[: ends[0]]
    model.set_weights(load_best(folder, model))
    best_logits, validation_logits, training_logits, _ = np.split(model.predict(images, verbose=0), ends)

    def write():
        calibration = CalibrationImages(validation_logits, data.labels("validation"))
        metrics = judge_run(
            config,
            data,
            logits={"test": best_logits, "validation": validation_logits, "train": training_logits},
            last_logits=last_logits,
            calibration=calibration,
            training=training,
            sides=sides_of(audit),
            best_epoch=best.epoch,
            last_epoch=history[-1]["epoch"],
        )
        seconds = round(sum(row["seconds"] for row in history), 1)
        whole = {**described, "seconds": seconds}
        write_run(
            *(folder, whole, model, data, audit, history, metrics, best_logits, calibration),
            examples=examples,
        )

    model.distribution.from_chief(write)


def write_run(
    folder: Path,
    described: dict[str, Any],
    model: ViT,
    data: ImageData,
    audit: Audit,
    history: list[dict],
    metrics: dict[str, Any],
    test_logits: np.ndarray,
    calibration: CalibrationImages,
    features: FeatureReader | None = None,
    record: ImageRecord | None = None,
    examples: Sequence[Image] = (),
) -> None:
    """Writes the files of a run; the checkpoints are removed last, when all else is there.

    Args:
        folder: of the run while it trains.
        described: of `describe`.
        model: with the weights to keep.
        data: the images.
        audit: of the images.
        history: one dict per epoch.
        metrics: of `judge`; gets the entry `rejection`.
        test_logits: (n, classes) of the test images; a fold keeps what they say.
        calibration: what the thresholds were chosen by.
        features: gives the features of images, where they need not be computed from the model.
        record: of the images, if it has changed since the beginning of the run.
        examples: of what is to be rejected.
    """
    plain = _plain(model)
    rejection, metrics["rejection"] = judge_ood(plain, data, features, "weights" in described, examples)
    if rejection:
        rejection.save(folder / run_folder.REJECTION)
    files.write_csv(folder / run_folder.HISTORY, history)
    files.write_json(folder / run_folder.METRICS, metrics)
    if not data.several:
        write_calibration(folder / CALIBRATION, calibration)
    if (fold := described["train"]["fold"]) is not None:
        write_answers(
            folder / OUT_OF_FOLD,
            names=data.names("test"),
            labels=data.labels("test"),
            probabilities=probabilities_of(metrics, test_logits),
            class_names=data.class_names,
            fold=fold,
        )
    save_whole(plain, folder / run_folder.MODEL)
    if lora_layers(model):
        save_adapter(model, folder / run_folder.ADAPTER)
    if record is not None:
        record.write(folder)
    # After all files whose hashes it holds.
    described = seal(described, folder, run_folder.BOUND)
    files.write_json(folder / run_folder.CONFIG, described)
    curves: dict[str, Any] = {name: [row.get(name) for row in history] for name in history[0]}
    layers = summary(plain)
    # The frozen weights look at the same in each fold, and drawing that takes longer than fitting the head.
    draws = described["train"]["recipe"]["tune"] != "head" or fold in (None, 1)
    mult_adds = layers.to_dict()["totals"]["mult_adds"]
    report = render_report(
        config=described,
        metrics=metrics,
        history=curves,
        layer_table=layers.to_dict(),
        audit=audit.to_dict(),
        mistake_images=[
            shown_pixels(
                data.image_set.original(data.split.test[mistake["index"]]), data.preprocessing.decoding
            )
            for mistake in metrics["mistakes"]
        ],
        explained=explained(plain, data, metrics, mult_adds) if draws else None,
    )
    files.write_text(folder / run_folder.REPORT, report)
    for leftover in (folder / CHECKPOINT, folder / BEST, *folder.glob("*.new")):
        leftover.unlink(missing_ok=True)


def _plain(model: ViT) -> ViT:
    """The model on one device, with LoRA merged and without its optimizer, so that the file is smaller."""
    return merge_lora(model)
