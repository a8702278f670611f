"""export(): the files of a bundle, and that its answers equal those of Keras."""

import io
import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit import export, load_run, predict
from keras_vit.cli.main import main
from keras_vit.errors import InputError
from keras_vit.process.exit_codes import FINE
from keras_vit.runs.folder import Run
from keras_vit.serving.saved_model import encoded_image
from keras_vit.serving.server_files import BATCH_SIZES
from tests.helpers import tiny
from tests.serving.bundle_files import PARTS, files_below

pytest.importorskip("tensorflow_serving", reason="needs the extra serving")

only_tensorflow = pytest.mark.same_on_every_backend


def strings(values):
    """A batch of image files, which may be empty."""
    import tensorflow as tf

    return tf.constant(values, tf.string, shape=(len(values),))


@pytest.fixture(scope="module")
def signatures(bundle):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(bundle.path))
    yield loaded.signatures
    del loaded  # its variables exist as long as the object


def test_the_bundle_holds_these_files_only(bundle):
    assert files_below(bundle.path) == PARTS
    expected = {"models.config", "batching.config", "compose.yaml", bundle.name}
    assert {path.name for path in bundle.models.iterdir()} == expected
    assert [path.name for path in (bundle.models / bundle.name).iterdir()] == ["1"]


def test_the_bundle_gives_the_answers_of_keras_on_this_backend(signatures, run, drawn_images):
    """TensorFlow exports a run of any backend, and any backend gives the same answers."""
    files = sorted(drawn_images.rglob("*.png"))[::4]
    found = signatures["serving_default"](image_bytes=strings([file.read_bytes() for file in files]))
    expected = predict(run, files)
    names = load_run(run).class_names
    probabilities = [[item.probabilities[name] for name in names] for item in expected]
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-5)
    assert [label.decode() for label in found["label"].numpy()] == [item.label for item in expected]
    np.testing.assert_allclose(found["confidence"], [item.confidence for item in expected], atol=1e-5)
    assert found["reject"].numpy().tolist() == [int(item.reject) for item in expected]


def test_the_features_are_the_input_of_the_head(signatures, run, drawn_images):
    from keras_vit.data.pipeline import read_pixels
    from keras_vit.data.preprocess import scale_pixels

    files, opened = sorted(drawn_images.rglob("*.png"))[::9], load_run(run)
    prepared = scale_pixels(read_pixels(files, opened.preprocessing), opened.preprocessing)
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
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 256.0])
@pytest.mark.parametrize("count", [1, 3])
def test_pixels_out_of_range_are_rejected_and_do_not_affect_others(signatures, value, count):
    pixels = np.full((count, 28, 28, 1), 100, "float32")
    pixels[0, 3, 3] = value
    found = signatures["images"](images=pixels)
    assert found["reject"][0] == 1
    assert found["label"][0] == b""
    np.testing.assert_array_equal(found["probabilities"][0], 0)
    assert np.isfinite(found["probabilities"]).all()
    np.testing.assert_allclose(found["probabilities"][1:].numpy().sum(axis=1), 1, atol=1e-5)


@only_tensorflow
def test_serving_json_describes_the_model(bundle, run):
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
def test_the_server_can_read_its_files(bundle):
    from google.protobuf import text_format
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = text_format.Parse((bundle.models / "models.config").read_text(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("steel", "/models/steel", "tensorflow")
    batching = (bundle.models / "batching.config").read_text().splitlines()
    assert [line for line in batching if line.startswith("allowed")] == [
        f"allowed_batch_sizes: {size}" for size in BATCH_SIZES
    ]
    # The server requires that the last allowed size is the largest batch.
    assert f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}" in batching


@only_tensorflow
@pytest.mark.parametrize("count", [1, 2])
def test_pixels_that_are_not_finite_are_found_before_a_conv_stem(run, count):
    import tensorflow as tf

    from keras_vit.model.vit import ViT
    from keras_vit.serving.graph import ServedGraph

    class ConvRun(Run):
        model = ViT.from_variant("defect-conv/4", image_shape=(28, 28, 1), num_classes=3)
        rejection = None

    opened = load_run(run)
    graph = ServedGraph(ConvRun(opened.path, opened.config))
    pixels = np.full((count, 28, 28, 1), 100, "float32")
    pixels[-1, 3, 3] = np.nan
    found = tf.function(graph.classify_pixels)(pixels)
    assert found["reject"].numpy().tolist() == [0] * (count - 1) + [1]


# Other images and precisions


@only_tensorflow
@pytest.mark.long
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_in_half_precision_is_served_as_it_was_trained(drawn_images, tmp_path, tiny_size, precision):
    command = tiny.command(drawn_images, tmp_path / "run", "--precision", precision, epochs=1)
    assert main(command) == FINE
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
    command = tiny.command(tmp_path / "images.npz", tmp_path / "run", "--image-size", 16, epochs=2)
    command += ["--channels", "3", "--merge-validation", "--aspect", "pad"]
    assert main(command) == FINE
    assert load_run(tmp_path / "run").rejection is None
    exported = export(tmp_path / "run", tmp_path / "models")
    loaded = tf.saved_model.load(str(exported.path))
    found = loaded.signatures["serving_default"](image_bytes=strings([encoded_image(images[1]), b"bad"]))
    assert found["reject"].numpy().tolist() == [0, 1]
    assert "could be fitted" in (exported.path / "model_card.md").read_text()


# The command


def test_the_command_prints_what_it_compared(bundle):
    compared, exported = bundle.printed.splitlines()
    assert compared.startswith("compared with Keras on 24 images: probabilities differ by ")
    assert exported == f"exported: {bundle.path}"


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow exports in its own process")
def test_an_error_of_the_other_process_is_raised(run, tmp_path):
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
