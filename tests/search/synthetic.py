"""A made-up Hyperband search, with effects that its report should find."""

import math
from pathlib import Path

import numpy as np

from keras_vit.evaluation.trials import SearchRecord, TrialRecord

FIELDS = {
    "model": "defect-conv",
    "depth": {"low": 2, "high": 8, "log": False, "default": 6},
    "num_heads": {"values": [4, 2, 8], "default": 4},
    "dim": {"low": 32, "high": 128, "log": False, "default": 64},
    "patch_size": 4,
    "stem": {"values": ["conv", "linear"], "default": "conv"},
    "learning_rate": {"low": 3e-4, "high": 6e-3, "log": True, "default": 2e-3},
    "batch_size": {"values": [32, 64], "default": 32},
    "epochs": 9,
    "max_parameters": None,
}
SEARCHED = ["depth", "num_heads", "dim", "stem", "learning_rate", "batch_size"]
SIZES = ((18, 6, 2), (8, 3), (4,))  # trials of each rung; the first bracket has the shortest trials
IMAGES = 144


def search(sizes=SIZES, searched=SEARCHED, factor=3, seed=0) -> SearchRecord:
    """The stem is worth ten points, epochs are worth more, and nothing else has an effect."""
    rng = np.random.default_rng(seed)
    trials: list[TrialRecord] = []
    longest = factor ** (len(sizes) - 1)
    for bracket, rounds in zip(reversed(range(len(sizes))), sizes, strict=True):
        before: list[TrialRecord] = []
        for rung, size in enumerate(rounds):
            epochs = math.ceil(longest / factor ** (bracket - rung))
            chosen = sorted(before, key=lambda trial: -trial.score)[:size]
            points = [t.values for t in chosen] if rung else [_point(rng, searched) for _ in range(size)]
            run = [
                TrialRecord(
                    trial_id=f"{len(trials) + i:04d}",
                    status="COMPLETED",
                    score=_score(rng, point, epochs),
                    values=point,
                    bracket=bracket,
                    rung=rung,
                    initial_epoch=chosen[i].epochs if rung else 0,
                    epochs=epochs,
                    promoted_from=chosen[i].trial_id if rung else None,
                    seconds=float(rng.uniform(5, 50)),
                    parameters=point["dim"] ** 2 * point["depth"] * 10,
                    mult_adds=point["dim"] ** 2 * point["depth"] * 500,
                )
                for i, point in enumerate(points)
            ]
            trials += run
            before = run
    config = {
        "space": "defect28",
        "searched": list(searched),
        "space_fields": {k: v if k in searched or k == "epochs" else _frozen(v) for k, v in FIELDS.items()},
        "max_epochs": longest,
        "factor": factor,
        "seed": seed,
        "data": {
            "source": "photos/steel",
            "class_names": ["crazing", "scratches"],
            "counts": {"train": 1296, "validation": IMAGES, "test": 360},
        },
        "backend": "jax",
        "versions": {"keras_tuner": "1.4.8"},
        "command": "python -m tuning --data photos/steel",
        "validation_images": IMAGES,
        "wall_seconds": 7260.0,
        "baseline": {"name": "defect-conv/4", "score": 0.9, "epochs": longest},
    }
    return SearchRecord(Path("searches/defect28"), config, trials)


def _frozen(setting):
    return setting.get("default") if isinstance(setting, dict) else setting


def _point(rng, searched):
    drawn = {
        "depth": int(rng.integers(2, 9)),
        "num_heads": int(rng.choice([2, 4, 8])),
        "dim": 8 * int(rng.integers(4, 17)),
        "patch_size": 4,
        "stem": str(rng.choice(["conv", "linear"])),
        "learning_rate": float(10 ** rng.uniform(-3.5, -2.3)),
        "batch_size": int(rng.choice([32, 64])),
    }
    return {name: value if name in searched else _frozen(FIELDS[name]) for name, value in drawn.items()}


def _score(rng, point, epochs):
    score = 0.5 + 0.15 * math.log(epochs, 3) + 0.1 * (point["stem"] == "conv") + rng.normal(0, 0.01)
    return round(min(score, 1.0) * IMAGES) / IMAGES
