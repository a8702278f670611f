"""Whole runs on several devices and processes: one folder and one report, even after an interruption."""

import csv
import json
import signal

import numpy as np
import pytest

import keras_vit
from keras_vit.cli.main import main
from keras_vit.files import partial_of
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.runs.folder import load_run
from tests.distribution.processes import BACKEND, LIMIT, finish, start
from tests.helpers import tiny

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("tiny_size")]

# On torch, each device has a process.
COUNT = 2 if BACKEND == "torch" else None
ON_TWO = () if BACKEND == "torch" else ("--devices", "2")
# What a process prints when another one has ended. If it was the coordinator, JAX ends the process itself.
LOST = ("Another process of this run has ended", "JAX distributed service detected fatal errors")


def rows(run):
    with open(run / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_an_interrupted_run_on_two_devices_continues_on_one(images, tmp_path):
    run = tmp_path / "run"
    arguments = tiny.command(images, run, "--distribute", "data", *ON_TWO)
    for process in start("train", *arguments, count=COUNT, killed=range(COUNT or 1)):
        printed, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == -signal.SIGKILL, printed
    unfinished = json.loads((partial_of(run) / "config.json").read_text())
    assert unfinished["distribution"]["devices"] == 2
    assert unfinished["distribution"]["global_batch_size"] == 8
    assert unfinished["distribution"]["batch_size_per_replica"] == 4
    assert main(["train", "--out", str(run), "--resume", "--distribute", "none"]) == FINE
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


def test_two_processes_continue_after_one_has_ended(images, tmp_path):
    run = tmp_path / "run"
    command = ["train", *tiny.command(images, run, "--distribute", "data")]
    for killed, epoch in ((0, 1), (1, 2)):  # first the chief, then the other process
        processes = start(*command, count=2, killed={killed: epoch})
        printed = [process.communicate(timeout=LIMIT)[0] for process in processes]
        assert processes[killed].returncode == -signal.SIGKILL, printed[killed]
        left = 1 - killed
        assert processes[left].returncode in (FAILED, -signal.SIGABRT), printed[left]
        assert any(sentence in printed[left] for sentence in LOST), printed[left]
        assert not run.exists()
        assert partial_of(run).is_dir()
    chief, other = finish(start(*command, count=2))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert not partial_of(run).exists()
    # The chief continues with the interrupted epoch, and only the chief prints.
    assert "Epoch 3/3" in chief
    assert "Epoch 2/3" not in chief
    assert f"report: {run / 'report.html'}" in chief
    assert "Epoch" not in other
    assert "report:" not in other


def test_a_run_on_two_devices_equals_one_device_and_loads_on_one(tmp_path):
    images = tiny.draw(
        tmp_path / "images", each=40
    )  # 24 for validation: enough to fit the out-of-distribution detector
    options = (
        "--validation-fraction",
        "0.25",
        "--ema-decay",
        "0.8",
        "--clip-norm",
        "0.1",
        "--early-stopping",
        "2",
        "--model",
        tiny.MODEL_WITHOUT_DROPOUT,
    )
    arguments = [tiny.command(images, tmp_path / name, *options, epochs=2) for name in ("one", "two")]
    assert main([*arguments[0], "--distribute", "none"]) == FINE
    printed = finish(start("train", *arguments[1], "--distribute", "data", *ON_TWO, count=COUNT))[0]
    assert "8 images per step, 4 for each copy of the model; learning rate 0.0003 as on one device" in printed
    for expected, found in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for name in expected.keys() - {"seconds"}:
            np.testing.assert_allclose(float(found[name]), float(expected[name]), atol=1e-5, err_msg=name)

    run = load_run(tmp_path / "two")
    assert run.model.distribution.num_devices == 1
    assert keras_vit.evaluate(run)["accuracy"] == run.metrics["best"]["accuracy"]
    alone = load_run(tmp_path / "one").metrics["rejection"]
    together = run.metrics["rejection"]
    assert together["threshold"] == pytest.approx(alone["threshold"], rel=1e-2)
    assert run.rejection.threshold == together["threshold"]
    for expected, found in zip(alone["rates"], together["rates"], strict=True):
        assert abs(found["rejected"] - expected["rejected"]) <= 1, found["name"]
    files = {path.name for path in run.path.iterdir()}
    assert files >= {"config.json", "model.keras", "history.csv", "metrics.json", "report.html"}
    arrays = {name for name in files if name.endswith((".npz", ".new"))}
    assert arrays <= {"rejection.npz", "calibration.npz"}
