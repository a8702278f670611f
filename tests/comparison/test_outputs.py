import numpy as np
import pytest

from keras_vit.comparison.outputs import summarise
from tests.comparison.made import SHARES, cells_and_results, described, measured

pytestmark = pytest.mark.same_on_every_backend


def row_of(found, model, number):
    return next(row for row in found["table"] if (row["model"], row["per_class"]) == (model, number))


def test_the_figures_are_those_of_the_answers():
    config = described()
    cells, done = cells_and_results(config)
    found = summarise(config, cells, done, measured())
    assert len(found["table"]) == 3 * len(SHARES)
    row, labels = row_of(found, "vit", "all"), np.array(config["tested"][0]["labels"])
    named = [done[cell]["predicted"] for cell in cells if (cell.model, cell.per_class) == ("vit", "all")]
    assert row["repeats"] == len(named) == 2
    assert row["accuracy"]["mean"] == pytest.approx(np.mean([np.array(one[""]) == labels for one in named]))
    assert row["shifted"] == pytest.approx(np.mean([np.array(one["shift"]) == labels for one in named]))
    assert row["balanced_accuracy"] == pytest.approx(row["accuracy"]["mean"])  # the classes are even
    low, high = row["accuracy"]["interval"]
    assert low < row["accuracy"]["mean"] < high
    assert found["verdict"] == "pays"
    assert found["difference"]["vit"] == "finetune"
    assert found["difference"]["other"] in ("cnn", "resnet")


def test_a_repeat_counts_when_all_its_folds_are_there():
    config = described(folds=2)
    cells, done = cells_and_results(config, ("cnn",), ("all",), folds=2)
    assert row_of(summarise(config, cells, done, measured()), "cnn", "all")["test_images"] == 160
    del done[cells[-1]]
    assert row_of(summarise(config, cells, done, measured()), "cnn", "all")["repeats"] == 1
    del done[cells[0]]
    found = summarise(config, cells, done, measured())
    assert (found["table"], found["verdict"]) == ([], "nothing trained")
    assert found["advice"].endswith("the same command continues.")


def test_groups_widen_the_intervals():
    widths = []
    for groups in (False, True):
        config = described(groups=groups)
        for fold in config["tested"]:
            fold["labels"] = sorted(fold["labels"])
        cells, done = cells_and_results(config, ("cnn",), ("all",), repeats=1)
        for result in done.values():  # the images of every second group are wrong
            wrong = (np.arange(80) // 8) % 2 == 1
            result["predicted"][""] = np.where(wrong, 0, config["tested"][0]["labels"]).tolist()
        low, high = row_of(summarise(config, cells, done, measured()), "cnn", "all")["accuracy"]["interval"]
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_models_that_were_not_trained_with_a_number_are_left_out_there():
    config = described()
    cells, done = cells_and_results(config, ("cnn", "vit"))
    done = {cell: result for cell, result in done.items() if (cell.model, cell.per_class) != ("vit", "all")}
    found = summarise(config, cells, done, measured())
    assert found["difference"]["number"] == 30
    assert found["choices"]["all"]["model"] == "cnn"
