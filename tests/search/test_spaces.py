"""The named spaces: their ranges, and that their first point is a named size."""

import keras_tuner
import pytest

from keras_vit.model.vit import ViT
from keras_vit.search.point import count_mult_adds, vit_arguments
from keras_vit.search.spaces import NAMED, SPACES

pytestmark = pytest.mark.same_on_every_backend

EXPECTED = {"defect28": ("defect-conv/4", (28, 28, 1)), "small": ("S/16", (224, 224, 3))}


def test_all_spaces_are_tested():
    assert SPACES.keys() == NAMED.keys() == EXPECTED.keys()
    assert all(NAMED[name].space is SPACES[name] for name in NAMED)
    assert all(named.about for named in NAMED.values())


@pytest.mark.parametrize(("name", "variant", "shape"), [(k, *v) for k, v in EXPECTED.items()])
def test_the_first_point_is_a_named_size(name, variant, shape):
    values = SPACES[name].declare(keras_tuner.HyperParameters())
    assert NAMED[name].image_shape == shape
    model = ViT(image_shape=shape, num_classes=6, **vit_arguments(values))
    assert model.get_config() == ViT.from_variant(variant, image_shape=shape, num_classes=6).get_config()


@pytest.mark.parametrize("name", EXPECTED)
def test_patches_divide_the_images(name):
    height, width, _ = NAMED[name].image_shape
    for size in SPACES[name].patch_size.values:
        assert height % size == width % size == 0


def test_small_reaches_from_ti_to_s():
    space = SPACES["small"]
    assert space.dim_values() == [192, 288, 384]
    ti = dict(num_heads=3, dim=192, depth=12, mlp_ratio=4, patch_size=16, stem="linear", drop_path_rate=0.0)
    shape = NAMED["small"].image_shape
    model = ViT(image_shape=shape, num_classes=1000, **vit_arguments(space.point(ti)))
    assert model.get_config() == ViT.from_variant("Ti/16", image_shape=shape, num_classes=1000).get_config()


def test_defect28_holds_the_reference_with_smaller_patches_within_its_budget():
    space = SPACES["defect28"]
    point = space.point(space.declare(keras_tuner.HyperParameters()))
    finer = {**point, "patch_size": 2}
    assert space.excess(finer, (28, 28, 1), 6) is None
    assert count_mult_adds(finer, (28, 28, 1), 6) > 4 * count_mult_adds(point, (28, 28, 1), 6)
    largest = {**finer, "depth": 10, "dim": 128}
    assert "mult-adds, more than the 100,000,000" in space.excess(largest, (28, 28, 1), 6)
