"""evaluate judges the images of the run's own test part, whatever has happened to the folder since."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_vit import files
from keras_vit.cli.main import main
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.evaluate import evaluate
from keras_vit.runs.folder import load_run
from keras_vit.runs.images import IMAGES
from keras_vit.runs.judged_images import judged_images, own_images
from keras_vit.runs.predict import predict
from keras_vit.runs.schema import read_table
from tests.helpers import tiny


@pytest.fixture
def moved(trained, images, tmp_path):
    """A copy of the run and one of its images, in a folder of their own, as if they had been moved there."""
    shutil.copytree(images, tmp_path / "images")
    run = shutil.copytree(trained[0], tmp_path / "run")
    seal_again(run, images, tmp_path / "images")
    return run, tmp_path / "images"


def seal_again(run, old, new):
    """Makes a run that was trained on the images of another folder."""
    from keras_vit.runs.folder import BOUND
    from keras_vit.sealed import seal

    config = json.loads((run / "config.json").read_text().replace(str(old), str(new)))
    files.write_json(run / "config.json", seal(config, run, BOUND))


def of_part(run, part):
    return [row["path"] for row in read_table(run / IMAGES) if row["part"] == part]


def judged(run, *data, **options):
    return judged_images(load_run(run), *data, **options)


def content(image_set):
    """The prepared pixels and the labels, without the order."""
    return sorted(
        (image.tobytes(), int(i)) for image, i in zip(image_set.images, image_set.labels, strict=True)
    )


def nothing(run, folder):
    pass


def add_images(run, folder):
    """Names that come first, in the middle and last: the split would be drawn otherwise."""
    rng = np.random.default_rng(1)
    for kind in tiny.CLASSES:
        for name in ("0 first.png", "5a.png", "zz.png"):
            Image.fromarray(tiny.pixels(kind, rng)).save(folder / kind / name)


def rename(run, folder):
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_name(f"{abs(hash(path.name)) % 1000}-{path.name}"))


def lose_training_images(run, folder):
    for name in of_part(run, "train")[:4]:
        (folder / name).unlink()


def make_parts(run, folder):
    """The same images in folders train and test, in which others than the run's are for the test."""
    for path in sorted(folder.rglob("*.png")):
        part = "test" if int(path.stem) < 6 else "train"
        target = folder / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for name in tiny.CLASSES:
        (folder / name).rmdir()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (nothing, None),
        (add_images, "has 9 images that the run does not know (dots/0 first.png; "),
        (rename, "images of the run have another name now"),
        (lose_training_images, "Of the other images of the run, 4 are gone (dots/"),
        (make_parts, "images of the run have another name now (dots/"),
    ],
)
def test_the_same_images_are_judged(change, note, moved):
    run, folder = moved
    before = judged(run)
    change(run, folder)
    after = judged(run)
    assert content(after.images) == content(before.images)
    assert after.images.names == before.images.names == tuple(of_part(run, "test"))
    assert after.known == {"trained": 0, "chose_epoch": 0, "tested": 6, "left_out": 0}
    if note is None:
        assert after.notes == []
    else:
        (said,) = after.notes
        assert note in said


def remove(run, folder):
    (folder / of_part(run, "test")[0]).unlink()


def replace(run, folder):
    first = folder / of_part(run, "test")[0]
    Image.fromarray(255 - np.asarray(Image.open(first))).save(first)


def use_training_image(run, folder):
    shutil.copyfile(folder / of_part(run, "train")[0], folder / of_part(run, "test")[0])


def move_to_another_class(run, folder):
    first = folder / of_part(run, "test")[0]
    first.rename(folder / "plain" / "moved.png")


def rename_class(run, folder):
    (folder / "dots").rename(folder / "plain2")
    (folder / "lines").rename(folder / "dots")
    (folder / "plain2").rename(folder / "lines")


def turn_class_names(run, folder):
    rename_class(run, folder)
    add_images(run, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove, "1 is gone (dots/"),
        (replace, "1 was replaced (dots/"),
        (use_training_image, "1 was replaced (dots/"),
        (move_to_another_class, "1 has another label (dots/"),
        (rename_class, "4 have another label (dots/"),
        (turn_class_names, "4 have another label (dots/"),
    ],
)
def test_changed_test_images_are_refused(change, message, moved, capsys):
    run, folder = moved
    change(run, folder)
    assert main(["evaluate", str(run), "--json"]) == WRONG_USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"The images in {folder} have changed: {message}" in shown.err
    assert "Restore them, or evaluate the images as they are with --data" in shown.err


def test_a_folder_that_is_gone_is_found_with_the_run_or_refused(moved, tmp_path, monkeypatch, capsys):
    run, folder = moved
    seal_again(run, "nothing", "nothing")
    folder.rename(tmp_path / "elsewhere")
    assert main(["evaluate", str(run)]) == WRONG_USAGE
    assert f"were in {folder}, which is gone: give the folder that holds them now" in capsys.readouterr().err
    found = judged(run, str(tmp_path / "elsewhere"), leave_out_known=True)
    assert (len(found.images), found.known["tested"]) == (6, 6)


def test_other_images_say_what_the_run_has_learned_from(moved, tmp_path, monkeypatch, capsys):
    run, folder = moved
    known = {"trained": 27, "chose_epoch": 3, "tested": 6}
    # By any path, and as other files of the same pixels.
    monkeypatch.chdir(folder.parent)
    bitmaps = tmp_path / "bitmaps"
    for path in folder.rglob("*.png"):
        (bitmaps / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).save(bitmaps / path.parent.name / f"a{path.stem}.bmp")
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    pixels = load_image_set(str(bitmaps))
    arrays = {"x": [np.asarray(Image.open(path)) for path in pixels.images], "y": pixels.labels}
    np.savez(tmp_path / "arrays.npz", class_names=np.array(tiny.CLASSES), **arrays)
    own = content(judged(run).images)
    beside = f"../{tmp_path.name}/images"
    for data in ("images", str(folder), beside, str(bitmaps), "packed.zip", "arrays.npz"):
        found = judged(run, data)
        assert found.known == {**known, "left_out": 0}, data
        assert found.notes == [
            f"Of the 36 images in {data}, 27 trained the run and 3 chose its epoch, so the figures are too "
            "high: --leave-out-known leaves these out."
        ]
        rest = judged(run, data, leave_out_known=True)
        assert rest.known == {**known, "left_out": 30}, data
        assert content(rest.images) == own, data
    add_images(run, folder)
    assert main(["evaluate", str(run), "--data", "images", "--leave-out-known"]) == FINE
    assert (
        "Of the 45 images in images, 27 trained the run and 3 chose its epoch: left out.\nimages: accuracy"
        in (capsys.readouterr().out)
    )


def test_images_that_the_run_has_all_learned_from_are_refused(moved):
    run, folder = moved
    for name in of_part(run, "test"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"has learned from all 30 images in .*: give others"):
        judged(run, str(folder), leave_out_known=True)
    with pytest.raises(InputError, match=r"its own test images: omit --leave-out-known"):
        judged(run, leave_out_known=True)


def test_a_run_of_an_earlier_version_says_what_is_not_known(moved, capsys):
    run, folder = moved
    config = json.loads((run / "config.json").read_text())
    for name in ("files", "sha256"):
        del config[name]
    for name in ("root", "root_from_run"):
        del config["data"][name]
    files.write_json(run / "config.json", config)
    (run / IMAGES).unlink()
    assert main(["evaluate", str(run), "--json"]) == FINE
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])
    assert (found["images"], found["known_images"]) == (6, None)
    assert found["notes"] == [f"{run} has no images.csv: its test images are drawn again by its seed."]
    (line,) = [line for line in shown.err.splitlines() if str(run) in line]
    assert "an earlier version of keras_vit trained this run" in line
    assert judged(run, str(folder)).notes == [f"Which of these images {run} has learned from is not known."]
    with pytest.raises(InputError, match=r"has no images\.csv, so it is not known"):
        judged(run, str(folder), leave_out_known=True)
    (folder / "dots" / "1.png").unlink()
    with pytest.raises(InputError, match=r"gives 26 training images, the run had 27: the data have changed"):
        judged(run)


def test_own_images_are_those_of_the_training(moved):
    run, folder = moved
    own = own_images(load_run(run))
    for part, images in (("train", own.train), ("test", own.test), ("validation", own.of_part("validation"))):
        assert list(images.names) == of_part(run, part)
        for name, label in zip(images.names, images.labels, strict=True):
            assert name.startswith(tiny.CLASSES[label])
    lose_training_images(run, folder)
    own = own_images(load_run(run))
    assert list(own.test.names) == of_part(run, "test")
    with pytest.raises(InputError, match=r"4 are gone \(dots/"):
        _ = own.train


# One name, one number


def test_the_log_loss_of_evaluate_is_that_of_metrics(trained):
    run = load_run(trained[0])
    found = evaluate(run)
    assert found["known_images"] == {"trained": 0, "chose_epoch": 0, "tested": 6, "left_out": 0}
    for name in ("images", "correct", "accuracy", "macro_f1", "confusion_matrix"):
        assert found[name] == run.metrics["best"][name], name
    assert found["log_loss"] == pytest.approx(run.metrics["best"]["log_loss"], rel=1e-4)
    assert run.metrics["best"]["log_loss"] != run.metrics["best"]["log_loss_uncalibrated"]
    assert "log_loss" not in run.metrics["last"]


def test_no_label_without_finite_probabilities(moved):
    run, folder = load_run(moved[0]), moved[1]
    kernel = run.model.get_layer("head").weights[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(InputError, match=r"no finite probabilities for 6 of 6 images \(dots/"):
        evaluate(run)
    (found,) = predict(run, [folder / "dots" / "0.png"])
    assert (found.label, found.confidence, found.probabilities, found.reject) == (None, None, {}, True)
    assert "the model gives no finite probabilities for it" in found.error
