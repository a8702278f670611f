"""`run.explain`, and the commands that draw what a run looks at."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from keras_vit import InputError, load_run
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.runs.predict import predict
from tests.helpers import tiny


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    """Images of the run and a file that is not an image."""
    broken = tmp_path_factory.mktemp("broken") / "0.png"
    broken.write_bytes(b"not an image")
    return [images / "dots" / "0.png", broken, images / "lines" / "0.png", images / "plain" / "1.png"]


@pytest.fixture(scope="module")
def run(trained):
    return load_run(trained[0])


def test_answers_are_those_of_predict(run, files):
    found, predicted = run.explain(files), predict(run, files)
    for ours, theirs in zip(found, predicted, strict=True):
        assert (ours.image, ours.label, ours.reject, ours.error) == (
            theirs.image,
            theirs.label,
            theirs.reject,
            theirs.error,
        )
        if theirs.error is None:
            assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-6)
            assert ours.class_name == ours.label
            assert ours.block == 0
            assert ours.heads.shape == (2, 7, 7)
            assert ours.rollout.shape == ours.gradient_weighted.shape == (7, 7)
            with Image.open(ours.image) as picture:
                np.testing.assert_array_equal(ours.pixels[..., 0], np.asarray(picture))
    assert found[1].heads is None
    assert [item.image for item in run.explain([])] == []


def test_a_class_can_be_named(run, files):
    first = run.explain(files[:1], class_name="lines")[0]
    other = run.explain(files[:1], class_name="plain")[0]
    assert (first.class_name, other.class_name) == ("lines", "plain")
    assert first.label == other.label
    np.testing.assert_array_equal(first.rollout, other.rollout)
    assert not np.allclose(first.gradient_weighted, other.gradient_weighted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(class_name="rust"), "no such class: give one of dots, lines, plain. Received: rust"),
        (dict(block=1), "block must be 0 to 0, .*Received: block=1"),
    ],
)
def test_wrong_names(run, files, given, message):
    with pytest.raises(InputError, match=message):
        run.explain(files, **given)


def output_of(*words):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = tiny.code_of(words)
    return code, printed.getvalue()


@pytest.mark.same_on_every_backend
def test_explain_command(trained, files, tmp_path):
    out = tmp_path / "maps"
    words = ["--out", out, "--class", "dots", "--block", 0, "--removal"]
    code, printed = output_of("explain", trained[0], *files, *words)
    assert code == FAILED
    assert f"{files[1]}  not a readable JPEG" in printed
    assert sorted(path.name for path in out.iterdir()) == ["0-3.png", "0.png", "1.png"]
    for path in out.iterdir():
        with Image.open(path) as picture:
            assert picture.size[0] > 500
    before = tiny.tree(out)
    code, printed = output_of("explain", trained[0], files[0], "--out", out)
    assert "0.png already: remove it, or choose another --out" in printed
    assert code not in (FINE, FAILED)
    assert tiny.tree(out) == before


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "rust"], "The run has no such class"),
        (["--block", "7"], "block must be 0 to 0"),
        (["--trust"], "--trust takes the run's own test images: omit the other options"),
    ],
)
def test_explain_command_writes_nothing_for_wrong_words(trained, files, tmp_path, words, message):
    out = tmp_path / "maps"
    code, printed = output_of("explain", trained[0], files[0], "--out", out, *words)
    assert code not in (FINE, FAILED)
    assert message in printed
    assert not out.exists()


@pytest.mark.same_on_every_backend
def test_predict_draws_heatmaps(trained, files, tmp_path):
    out = tmp_path / "heat"
    code, printed = output_of("predict", trained[0], files[0], files[2], "--heatmap", out)
    assert code == FINE
    assert len(printed.splitlines()) == 2
    assert sorted(path.name for path in out.iterdir()) == ["0-2.png", "0.png"]


@pytest.mark.same_on_every_backend
def test_a_folder_in_which_nothing_was_drawn_is_not_left(trained, files, tmp_path):
    code, _ = output_of("explain", trained[0], files[1], "--out", tmp_path / "maps")
    assert code == FAILED
    assert not (tmp_path / "maps").exists()


@pytest.mark.same_on_every_backend
def test_trust_command(trained, tmp_path):
    out = tmp_path / "trust"
    code, printed = output_of("explain", trained[0], "--trust", "--out", out)
    assert code == FINE
    found = json.loads((out / "trust.json").read_text())
    ratio = found["deletion"]["area"] / found["deletion"]["area_by_chance"]
    assert f"ratio {ratio:.2f}" in printed
    assert [name for name, _ in found["randomised"]] == ["head", "block_0", "embedding"]
    with Image.open(out / "trust.png") as picture:
        assert picture.size[0] > 1000
    code, printed = output_of("explain", trained[0], "--trust", "--out", out)
    assert "trust.json already: remove it, or choose another --out" in printed
    assert code not in (FINE, FAILED)
