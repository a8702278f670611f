"""export(): what it leaves, that it answers as Keras does, and that a failed one leaves nothing."""

import dataclasses
import io
import json
import os
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

from keras_vit import export, load_run, predict
from keras_vit.cli import FAILED, FINE, WRONG_USAGE, main
from keras_vit.errors import InputError
from keras_vit.run_folder import Run
from keras_vit.serving import place
from keras_vit.serving.bundle import COMPARED_IMAGES, _some_of
from keras_vit.serving.configs import BATCH_SIZES
from keras_vit.serving.saved_model import Comparison, encoded_image

pytest.importorskip("tensorflow_serving", reason="needs the extra serving")

only_tensorflow = pytest.mark.same_on_every_backend
PARTS = {
    "assets.extra/labels.txt",
    "assets.extra/serving.json",
    "assets.extra/tf_serving_warmup_requests",
    "fingerprint.pb",
    "model_card.md",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
}


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def strings(values):
    """A batch of image files; of none, too."""
    import tensorflow as tf

    return tf.constant(values, tf.string, shape=(len(values),))


@pytest.fixture(scope="module")
def signatures(bundle):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(bundle.path))
    yield loaded.signatures
    del loaded  # its variables live as long as it


def test_the_bundle_holds_these_and_nothing_else(bundle):
    assert files_below(bundle.path) == PARTS
    beside = {"models.config", "batching.config", "compose.yaml", bundle.name}
    assert {path.name for path in bundle.models.iterdir()} == beside
    assert [path.name for path in (bundle.models / bundle.name).iterdir()] == ["1"]


def test_the_bundle_answers_as_keras_does_on_this_backend(signatures, run, drawn_images):
    """Whatever backend trained the run and predicts here, TensorFlow exported it."""
    files = sorted(drawn_images.rglob("*.png"))[::4]
    found = signatures["serving_default"](image_bytes=strings([file.read_bytes() for file in files]))
    expected = predict(run, files)
    names = load_run(run).class_names
    probabilities = [[item.probabilities[name] for name in names] for item in expected]
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-5)
    assert [label.decode() for label in found["label"].numpy()] == [item.label for item in expected]
    np.testing.assert_allclose(found["confidence"], [item.confidence for item in expected], atol=1e-5)
    assert found["reject"].numpy().tolist() == [int(item.reject) for item in expected]


def test_the_features_are_what_the_head_sees(signatures, run, drawn_images):
    from keras_vit.data.pipeline import read_pixels
    from keras_vit.data.preprocess import scale_pixels

    files, opened = sorted(drawn_images.rglob("*.png"))[::9], load_run(run)
    prepared = scale_pixels(read_pixels(files, opened.preprocessing))
    expected = opened.model.extractor("features").predict(np.asarray(prepared), verbose=0)
    found = signatures["features"](image_bytes=strings([file.read_bytes() for file in files]))
    np.testing.assert_allclose(found["features"], expected, atol=1e-4)


@only_tensorflow
@pytest.mark.parametrize("count", [0, 1, 2, 33])
@pytest.mark.parametrize(
    ("signature", "kind"), [("images", "float32"), ("images_uint8", "uint8"), ("serving_default", "file")]
)
def test_pixels_and_files_get_the_same_answers(signatures, signature, kind, count):
    rng = np.random.default_rng(0)
    pixels = np.array([tiny.pixels("lines", rng, (40, 23)) for _ in range(count)], "uint8")
    pixels = pixels.reshape(count, 40, 23, 1)
    files = [encoded_image(image) for image in pixels]
    given = {"image_bytes": strings(files)} if kind == "file" else {"images": pixels.astype(kind)}
    found = signatures[signature](**given)
    assert found["probabilities"].shape == (count, len(tiny.CLASSES))
    for i, file in enumerate(files[:2]):
        alone = signatures["serving_default"](image_bytes=strings([file]))
        np.testing.assert_allclose(found["probabilities"][i], alone["probabilities"][0], atol=1e-5)
        assert found["reject"][i] == alone["reject"][0]


@only_tensorflow
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_may_have_1_to_4_channels(signatures, channels):
    found = signatures["images"](images=np.full((2, 9, 30, channels), 100, "float32"))
    np.testing.assert_allclose(found["probabilities"].numpy().sum(axis=1), 1, atol=1e-5)


@only_tensorflow
def test_pixels_with_5_channels_are_refused(signatures):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match="images must have 1 to 4 channels"):
        signatures["images"](images=np.zeros((2, 9, 30, 5), "float32"))


@only_tensorflow
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("count", [1, 3])
def test_pixels_that_are_no_numbers_are_rejected_alone(signatures, value, count):
    pixels = np.full((count, 28, 28, 1), 100, "float32")
    pixels[0, 3, 3] = value
    found = signatures["images"](images=pixels)
    assert found["reject"][0] == 1
    assert found["label"][0] == b""
    np.testing.assert_array_equal(found["probabilities"][0], 0)
    assert np.isfinite(found["probabilities"]).all()
    np.testing.assert_allclose(found["probabilities"][1:].numpy().sum(axis=1), 1, atol=1e-5)


@only_tensorflow
def test_the_settings_tell_what_the_model_does(bundle, run):
    found, opened = json.loads((bundle.path / "assets.extra/serving.json").read_text()), load_run(run)
    assert found["class_names"] == list(opened.class_names)
    assert found["temperature"] == opened.temperature
    assert found["reject_above"] == pytest.approx(opened.rejection.threshold)
    assert found["compared_with_keras"]["images"] == 24
    assert found["compared_with_keras"]["difference"] <= 1e-5
    assert (bundle.path / "assets.extra/labels.txt").read_text().splitlines() == list(opened.class_names)


@only_tensorflow
def test_the_model_card_has_the_figures_of_the_run(bundle, run):
    card, metrics = (bundle.path / "model_card.md").read_text(), load_run(run).metrics
    assert f"accuracy {metrics['best']['accuracy']:.1%} ({metrics['best']['correct']} right" in card
    for row in metrics["rejection"]["rates"]:
        assert f"| {row['name']} | " in card
    assert load_run(run).config["command"] in card
    for heading in ("Use", "Data and split", "Figures", "Limits", "To repeat it"):
        assert f"\n## {heading}\n" in card


@only_tensorflow
def test_the_server_files_are_what_the_server_reads(bundle):
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = text_format.Parse((bundle.models / "models.config").read_text(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("steel", "/models/steel", "tensorflow")
    batching = (bundle.models / "batching.config").read_text().splitlines()
    assert [line for line in batching if line.startswith("allowed")] == [
        f"allowed_batch_sizes: {size}" for size in BATCH_SIZES
    ]
    # The server asks that the last allowed size be the largest batch.
    assert f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}" in batching


# Versions, and what an operator has changed


@pytest.fixture
def cheap():
    """Exports without their most costly parts, for the tests of what is around them."""

    def write(run, folder):
        (folder / place.SAVED_MODEL).write_text("")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_vit.serving.bundle.write_saved_model", write)
        patch.setattr(
            "keras_vit.serving.bundle.compare_saved_model", lambda run, folder, images: Comparison(1, 0.0, 1)
        )
        yield


@only_tensorflow
@pytest.mark.usefixtures("cheap")
def test_versions_count_up_from_the_newest(run, tmp_path):
    paths = [export(run, tmp_path, version=version).path for version in (None, 7, None, 3, None)]
    assert [path.relative_to(tmp_path).parts for path in paths] == [("vit", v) for v in "17839"]


@only_tensorflow
@pytest.mark.usefixtures("cheap")
def test_a_second_model_is_added_and_what_an_operator_changed_stays(run, tmp_path):
    export(run, tmp_path)
    config = tmp_path / "models.config"
    config.write_text(
        config.read_text().replace('"tensorflow"', '"tensorflow" model_version_policy { all {} }')
    )
    (tmp_path / "compose.yaml").write_text("mine")
    export(run, tmp_path, name="other")
    text = config.read_text()
    assert text.count("config {") == 2
    assert "all {" in text
    assert (tmp_path / "compose.yaml").read_text() == "mine"


@only_tensorflow
def test_a_watching_server_never_sees_a_part_of_it(run, tmp_path, monkeypatch):
    """At each step of the export, no folder that a server takes for a version is there."""
    seen = []

    def watch(step):
        original = getattr(place_of[step], step)

        def wrapped(*arguments, **options):
            seen.append(place.versions_of(tmp_path / "vit"))
            return original(*arguments, **options)

        monkeypatch.setattr(place_of[step], step, wrapped)

    import keras_vit.serving.bundle as bundle_module

    place_of = dict.fromkeys(
        ("write_saved_model", "compare_saved_model", "write_warmup", "model_card"), bundle_module
    )
    for step in place_of:
        watch(step)
    path = export(run, tmp_path).path
    assert seen == [[]] * 4
    assert files_below(path) == PARTS


@only_tensorflow
@pytest.mark.parametrize("count", [1, 2])
def test_a_conv_stem_hides_no_pixel_that_is_no_number(run, count):
    import tensorflow as tf

    from keras_vit.serving.graph import ServedGraph
    from keras_vit.vit import ViT

    class ConvRun(Run):
        model = ViT.from_variant("defect-conv/4", image_shape=(28, 28, 1), num_classes=3)
        rejection = None

    opened = load_run(run)
    graph = ServedGraph(ConvRun(opened.path, opened.config))
    pixels = np.full((count, 28, 28, 1), 100, "float32")
    pixels[-1, 3, 3] = np.nan
    found = tf.function(graph.classify_pixels)(pixels)
    assert found["reject"].numpy().tolist() == [0] * (count - 1) + [1]


# What is refused


def changed_run(run, folder, **changes):
    """A copy of a run with other entries in its config's train part."""
    copy = shutil.copytree(run, folder / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["train"].update(changes)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def unfinished(run, folder):
    shutil.copytree(run, folder / "cut.partial")
    return {"run": folder / "cut"}


def gone_images(run, folder):
    return {"run": changed_run(run, folder, data=str(folder / "gone"))}


def taken_version(run, folder):
    (folder / "models/vit/4").mkdir(parents=True)
    (folder / "models/vit/4" / place.SAVED_MODEL).touch()
    return {"version": 4}


def other_format(run, folder):
    (folder / "models/vit/1").mkdir(parents=True)
    (folder / "models/vit/1/model.onnx").touch()
    return {}


def file_as_target(run, folder):
    (folder / "models").touch()
    return {}


def broken_config(run, folder):
    (folder / "models").mkdir()
    (folder / "models/models.config").write_text("no config")
    return {}


REFUSED = [
    (unfinished, "is not finished: go on with `keras-vit train --out"),
    (gone_images, "No such file or folder"),
    (taken_version, "models/vit/4 exists: leave --version out"),
    (other_format, "holds models of another format: give another --name"),
    (file_as_target, "cannot be made (Not a directory): give another --to"),
    (broken_config, "models.config is no ModelServerConfig"),
    (lambda run, folder: {"version": 0}, "version must be 1 or more. Received: version=0"),
    (lambda run, folder: {"name": "../up"}, "A model's name is made of letters"),
    (lambda run, folder: {"name": ""}, "A model's name is made of letters"),
    (
        lambda run, folder: {"format": "caffe"},
        "format must be one of 'savedmodel', 'onnx', 'litert', 'openvino'",
    ),
    (lambda run, folder: {"int8": True}, "savedmodel has no 8 bits here"),
    (lambda run, folder: {"run": folder / "none"}, "There is no run folder"),
    (lambda run, folder: {"data": "nowhere"}, "No such file or folder: nowhere"),
]


@only_tensorflow
@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(("prepare", "message"), REFUSED, ids=[message[:25] for _, message in REFUSED])
def test_what_cannot_be_exported_is_refused_and_nothing_is_left(run, tmp_path, prepare, message):
    given = {"run": run, "to": tmp_path / "models", **prepare(run, tmp_path)}
    before = tiny.tree(tmp_path)
    with pytest.raises(InputError) as refusal:
        export(**given)
    assert message in str(refusal.value)
    assert tiny.tree(tmp_path) == before


@only_tensorflow
def test_a_folder_that_cannot_be_written_is_refused(run, tmp_path, monkeypatch):
    models = tmp_path / "models"
    models.mkdir(mode=0o500)
    if os.access(models, os.W_OK):  # root may write anywhere, so the question gets its answer here
        monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(models)))
    assert main(["export", str(run), "--to", str(models)]) == WRONG_USAGE
    models.chmod(0o700)
    assert not list(models.iterdir())


@only_tensorflow
@pytest.mark.parametrize("room", [0, 200_000, 1_500_000])
def test_a_full_disk_gets_a_sentence_and_leaves_nothing(run, tmp_path, capsys, room):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount"):
        pytest.skip("no tmpfs can be mounted: no mount")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={max(room, 4096)}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        code = main(["export", str(run), "--to", str(disk / "models")])
        left = sorted(disk.iterdir())
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert code in (FAILED, WRONG_USAGE)
    assert "The disk is full" in capsys.readouterr().err
    assert left == []


@only_tensorflow
def test_a_model_that_answers_otherwise_is_not_exported(run, tmp_path, monkeypatch):
    import tensorflow as tf

    from keras_vit.serving.graph import ServedGraph

    right = ServedGraph.classify_prepared

    def wrong(self, prepared, usable):
        found = right(self, prepared, usable)
        return {**found, "probabilities": tf.reverse(found["probabilities"], [1])}

    monkeypatch.setattr(ServedGraph, "classify_prepared", wrong)
    with pytest.raises(InputError, match=r"answers otherwise than Keras, by up to .* so nothing is written"):
        export(run, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@only_tensorflow
def test_an_earlier_export_that_was_killed_is_in_nobodys_way(run, tmp_path):
    (tmp_path / "vit" / ".exporting-1").mkdir(parents=True)
    assert place.versions_of(tmp_path / "vit") == []
    with place.new_version(tmp_path, "vit") as new:
        (new.folder / "file").touch()
    assert new.path == tmp_path / "vit" / "1"


@only_tensorflow
def test_of_two_exports_at_once_each_gets_a_version(tmp_path):
    with place.new_version(tmp_path, "vit") as first:
        os.rename(first.folder, tmp_path / "vit" / ".exporting-0")
        with place.new_version(tmp_path, "vit") as second:
            (second.folder / "second").touch()
        os.rename(tmp_path / "vit" / ".exporting-0", first.folder)
    assert (second.path.name, first.path.name) == ("1", "2")


# Other images and precisions


@only_tensorflow
@pytest.mark.long
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_in_half_precision_is_served_as_it_was_trained(drawn_images, tmp_path, tiny_size, precision):
    words = tiny.words(drawn_images, tmp_path / "run", "--precision", precision, epochs=1)
    assert main(words) == FINE
    exported = export(tmp_path / "run", tmp_path / "models")
    assert exported.comparison.same_class >= exported.comparison.images - 1


@only_tensorflow
@pytest.mark.long
def test_a_run_on_colour_arrays_without_validation_images(tmp_path, tiny_size):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 120, (40, 20, 24, 3)).astype("uint8") + (
        100 * labels[:, None, None, None]
    ).astype("uint8")
    np.savez(tmp_path / "images.npz", x=images, y=labels)
    words = tiny.words(tmp_path / "images.npz", tmp_path / "run", "--image-size", 16, epochs=2)
    words += ["--channels", "3", "--merge-validation", "--aspect", "pad"]
    assert main(words) == FINE
    assert load_run(tmp_path / "run").rejection is None
    exported = export(tmp_path / "run", tmp_path / "models")
    loaded = tf.saved_model.load(str(exported.path))
    found = loaded.signatures["serving_default"](image_bytes=strings([encoded_image(images[1]), b"bad"]))
    assert found["reject"].numpy().tolist() == [0, 1]
    assert "could be fitted" in (exported.path / "model_card.md").read_text()


@only_tensorflow
def test_at_most_so_many_images_are_compared_from_all_classes():
    from keras_vit.data.image_set import ImageSet

    many = ImageSet("x", ("a", "b"), [b""] * 1000, tuple(map(str, range(1000))), np.arange(1000) // 500)
    some = _some_of(many, COMPARED_IMAGES)
    assert len(some) == COMPARED_IMAGES
    assert np.bincount(some.labels).tolist() == [180, 180]
    assert _some_of(many.take(range(5)), COMPARED_IMAGES).names == tuple("01234")


# The command


@only_tensorflow
def test_the_command_tells_what_it_compared(run, tmp_path, capsys):
    assert main(["export", str(run), "--to", str(tmp_path), "--name", "steel"]) == FINE
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("compared with Keras on 24 images: probabilities differ by ")
    assert said[1] == f"exported: {tmp_path / 'steel' / '1'}"


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow exports in its own process")
def test_a_refusal_of_the_other_process_is_told_here(run, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        export(run, tmp_path, data="nowhere")


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.zeros((4, 5, 1), "uint8"), "L"),
        (np.zeros((4, 5, 3), "uint8"), "RGB"),
        (np.zeros((4, 5, 4), "uint8"), "RGBA"),
    ],
)
@only_tensorflow
def test_pixels_become_a_file(image, kind):
    opened = Image.open(io.BytesIO(encoded_image(image)))
    assert (opened.mode, opened.size) == (kind, (5, 4))


def test_a_comparison_survives_json():
    told = Comparison(360, 1.2e-6, 360)
    assert Comparison(**json.loads(json.dumps(dataclasses.asdict(told)))) == told
