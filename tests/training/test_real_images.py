"""A short run on the real images of the quoted figures reaches the expected accuracy."""

import dataclasses

import pytest

from keras_vit.training.config import TrainConfig
from keras_vit.training.train import train
from tests.helpers.paths import SHARED

NEU = SHARED / "data" / "neu-det"


# The other backends compute the same (tests/model/test_backends.py), but JAX takes 7 s per epoch here.
@pytest.mark.same_on_every_backend
@pytest.mark.long
@pytest.mark.skipif(not NEU.is_dir(), reason="the NEU images are not beside the project")
def test_a_short_run_on_steel(tmp_path):
    config = TrainConfig(data=str(NEU), model="defect-conv/4", out=tmp_path / "run")
    run = train(config, recipe=dataclasses.replace(config.recipe, epochs=10))
    counts = run.config["data"]["counts"]
    assert counts == {"train": 1296, "validation": 144, "test": 360}
    # Chance is 17 %.
    assert run.metrics["last"]["accuracy"] >= 0.85
    assert run.metrics["calibration"]["ece_after"] < 0.15

    rates = {row["name"]: row["share"] for row in run.metrics["rejection"]["rates"]}
    assert rates["validation"] == 6 / 144
    assert rates["test"] < 0.12  # 5 %, plus the variation of the random validation part
    assert rates["noise"] > 0.95
    assert rates["textures"] > 0.4
    assert rates["drawn defects"] > rates["test"]
    assert set(rates) == {"validation", "test", "drawn defects", "textures", "noise", "flat gray"}
