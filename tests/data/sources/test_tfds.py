"""Images from TensorFlow Datasets."""

import sys

import pytest

from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from tests.helpers.image_files import PNG, encoded, rows

pytestmark = pytest.mark.same_on_every_backend


def test_tfds_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        InputError, match=r'tfds:mnist needs TensorFlow Datasets: pip install "keras-vit-defects\[tfds\]"'
    ):
        load_image_set("tfds:mnist")


def test_tfds_with_parts(tmp_path, monkeypatch, caplog):
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra tfds is not installed")

    class TwoSplitsForTheTest(tfds.core.GeneratorBasedBuilder):
        """Two splits and one of another name, made without a download."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "picture": tfds.features.Image(shape=(8, 8, 1)),
                "kind": tfds.features.ClassLabel(names=["no", "yes"]),
                "mask": tfds.features.Image(shape=(8, 8, 1)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("picture", "kind"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {
                "test": self._generate([0]),
                "train": self._generate([1, 2, 3]),
                "extra": self._generate([4]),
            }

        def _generate(self, seeds):
            for seed in seeds:
                yield seed, {"picture": encoded(seed), "kind": -1 if seed == 3 else seed % 2, "mask": PNG}

        def _generate_examples(self):
            raise NotImplementedError

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    images = load_image_set("tfds:two_splits_for_the_test")
    assert "tfds:two_splits_for_the_test is not on this machine yet" in caplog.text
    assert str(tmp_path) in caplog.text
    assert images.images == [encoded(1), encoded(2), encoded(0)]
    assert rows(images) == [
        ("train[0]", "yes", "train"),
        ("train[1]", "no", "train"),
        ("test[0]", "no", "test"),
    ]
    caplog.clear()
    assert rows(load_image_set("tfds:two_splits_for_the_test:1.0.0")) == rows(images)
    assert "is not on this machine yet" not in caplog.text
    assert "splits that are not used: extra" in caplog.text
    assert "1 image without a label, not used, such as train[2]" in caplog.text
