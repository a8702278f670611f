"""The guides of the documentation site: the command line accepts their commands and options."""

import dataclasses
import re
import shlex

import pytest

import keras_vit
from keras_vit.cli.compare import Compare
from keras_vit.cli.main import parse
from keras_vit.cli.predict import Predict
from keras_vit.comparison.config import options as comparison_options
from keras_vit.model.config import CHANGEABLE
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend

PAGES = {
    name: (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in (
        "index.md",
        "start.md",
        "data.md",
        "labelling.md",
        "labels.md",
        "pretrained.md",
        "compare.md",
        "predict.md",
        "trust.md",
        "explain.md",
    )
}
TEXT = "\n".join(PAGES.values())
COMMANDS = re.findall(r"^(?:KERAS_BACKEND=\w+ )?(?:\.venv/bin/)?keras-vit (.*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    arguments = shlex.split(command, comments=True)
    assert type(parse(arguments)).__name__.lower() == arguments[0]


def test_options_without_a_command_exist():
    owners = (keras_vit.TrainConfig, keras_vit.Recipe, keras_vit.Augmentation)
    fields = {field.name for owner in owners for field in dataclasses.fields(owner)}
    fields |= {"recipe", "config", "help", "logdir", "extra_index_url", "flips_at_test", "clear"}
    fields |= {"debug", "leave_out_known", "csv", "json", "class", "block", "removal", "trust", "heatmap"}
    fields |= {"corruptions", "window", "count", "no_resume", *comparison_options()}
    fields |= {"to", *CHANGEABLE}
    fields |= {field.name for owner in (Predict, Compare) for field in dataclasses.fields(owner)}
    named = {name.replace("-", "_") for name in re.findall(r"`[^`]*?--([a-z][\w-]*)", TEXT)}
    assert len(named) >= 15
    assert not named - fields
