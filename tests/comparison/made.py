"""The content of a comparison that was never trained."""

import numpy as np

from keras_vit.comparison.plan import all_cells
from keras_vit.text import shown

CLASSES = ("=1+1", "<b>&'\"", "étain \u202eX", "plain")
SHARES = {"cnn": 0.9, "resnet": 0.88, "vit": 0.6, "defect-conv": 0.93, "probe": 0.97, "finetune": 0.98}
MULT_ADDS = {
    "cnn": 29e6,
    "resnet": 12e6,
    "vit": 32e6,
    "defect-conv": 12.2e6,
    "probe": 1.2e9,
    "finetune": 1.2e9,
}


def described(folds=0, images=80, groups=False, names=CLASSES):
    """The content of config.json."""
    labels = (np.arange(images) % len(names)).tolist()
    tested = {
        "labels": labels,
        "groups": (np.arange(images) // 8).tolist() if groups else None,
        "training_images": 4 * images,
    }
    return {
        "asked": {
            "repeats": 2,
            "train": {
                "folds": folds or None,
                "seed": 0,
                "recipe": {"epochs": 30, "batch_size": 32, "augmentation": {"flip": "both", "crop": 0.1}},
            },
        },
        "data": {
            "source": "my <images>",
            "class_names": list(names),
            "training_images": [images] * len(names),
        },
        "tested": [tested] * max(1, folds),
        "image_shape": [28, 28, 1],
        "titles": {name: f"the {name} <i>" for name in SHARES},
        "weights": {"source": "vit.safetensors"},
        "command": "keras-vit compare 'my <images>'",
        "backend": "tensorflow",
        "device": "x86_64, 2 processors",
        "versions": {"keras_vit": "0.1.0"},
    }


def cells_and_results(config, models=tuple(SHARES), numbers=(5, 30, "all"), folds=0, repeats=2):
    """All trainings, and what they named: more is right with more images."""
    cells = all_cells(models, numbers, folds, repeats)
    done = {}
    labels = np.array(config["tested"][0]["labels"])
    classes = len(config["data"]["class_names"])
    for number, cell in enumerate(cells):
        rng = np.random.default_rng(number)
        share = SHARES[cell.model] * {5: 0.6, 30: 0.8, "all": 1.0}[cell.per_class]
        named = {
            kind: np.where(rng.random(len(labels)) < share, labels, (labels + 1) % classes).tolist()
            for kind in ("", "shift", "rotate")
        }
        images = classes * (80 if cell.per_class == "all" else cell.per_class)
        done[cell] = {
            "images": images,
            "batch_size": 8,
            "steps": 0 if cell.model == "probe" else 300,
            "seconds": 12.0,
            "diverged": False,
            "predicted": named,
        }
    return cells, done


def measured(models=tuple(SHARES)):
    """The content of measured.json."""
    return {
        name: {
            "parameters": 288_550,
            "mult_adds": int(MULT_ADDS[name]),
            "begin": 3.0,
            "image": 0.002,
            "one": 0.004,
            "each_of_32": 0.0006,
        }
        for name in models
    }


def page(**options):
    """The content of config.json, of comparison.json, and the page."""
    from keras_vit.comparison.outputs import summarise
    from keras_vit.report.model_comparison import render_comparison

    config = described()
    cells, done = cells_and_results(config, **options)
    found = {**summarise(config, cells, done, measured()), "left_out": [], "notes": [shown(CLASSES[2])]}
    found["kept"] = {"cnn": "models/cnn.keras"}
    return config, found, render_comparison(config=config, found=found)
