import gc

import pytest

from keras_vit import ViT
from keras_vit.errors import InputError
from keras_vit.model.config import SIZES, default_image_size, variant_arguments

# At 224x224x3 and 1000 classes. Ti to H are the numbers of timm and of the papers' checkpoints; for g the
# paper says 1,011 million.
PUBLISHED = {
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "S/32": 22_878_952,
    "B/16": 86_567_656,
    "B/32": 88_224_232,
    "L/16": 304_326_632,
    "L/32": 306_535_400,
    "H/14": 632_045_800,
    "g/14": 1_012_611_432,
}
FULL = ["Ti/16", "S/16", "S/32", "B/16", "B/32"]
# Too large to build in passing.
LARGE = ["L/16", "L/32", "H/14", "g/14"]


def built(variant, shape=(224, 224, 3), num_classes=1000, **arguments):
    model = ViT.from_variant(variant, image_shape=shape, num_classes=num_classes, **arguments)
    count = model.count_params()
    del model
    gc.collect()  # layers and models refer to each other in a ring: gigabytes would pile up
    return count


def by_formula(variant):
    """The parameters of a plain ViT at 224x224x3 with 1000 classes, reckoned from the papers' tables."""
    size, patch = variant.split("/")
    patch = int(patch)
    dim, depth, mlp = {
        "Ti": (192, 12, 768),
        "S": (384, 12, 1536),
        "B": (768, 12, 3072),
        "L": (1024, 24, 4096),
        "H": (1280, 32, 5120),
        "g": (1408, 40, 6144),
    }[size]
    embed = patch * patch * 3 * dim + dim
    tokens = dim + (1 + (224 // patch) ** 2) * dim
    attention = 4 * (dim * dim + dim)
    block = 2 * 2 * dim + attention + dim * mlp + mlp + mlp * dim + dim
    return embed + tokens + depth * block + 2 * dim + dim * 1000 + 1000


def test_published_counts_are_those_of_the_formula():
    assert {variant: by_formula(variant) for variant in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("variant", FULL)
def test_parameters(variant):
    assert built(variant) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", LARGE)
def test_parameters_of_large_sizes_block_by_block(variant):
    """Every block has as many, so that models of one and of two blocks tell the count of any depth."""
    one, two = built(variant, depth=1), built(variant, depth=2)
    assert one + (variant_arguments(variant)["depth"] - 1) * (two - one) == PUBLISHED[variant]


@pytest.mark.long
@pytest.mark.parametrize("variant", ["L/16", "H/14"])
def test_parameters_of_large_sizes_built_whole(variant):
    assert built(variant) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", ["Ti/8", "S/8", "B/8", "S/14", "B/14", "Ti/32"])
def test_any_patch_size_that_divides_the_image(variant):
    deep, depth = by_formula(variant), variant_arguments(variant)["depth"]
    block = (by_formula(variant) - by_formula_without_blocks(variant)) // depth
    assert built(variant, depth=1) == deep - (depth - 1) * block


def by_formula_without_blocks(variant):
    size, patch = variant.split("/")
    dim, patch = SIZES[size].arguments["dim"], int(patch)
    return (patch * patch * 3 + 1) * dim + dim + (1 + (224 // patch) ** 2) * dim + 2 * dim + dim * 1000 + 1000


@pytest.mark.parametrize(
    ("variant", "shape", "parameters"),
    [
        ("defect/4", (28, 28, 1), 508_166),
        ("defect-conv/4", (28, 28, 1), 221_846),
        ("defect-conv/8", (64, 64, 1), 223_918),
    ],
)
def test_parameters_of_the_defect_sizes(variant, shape, parameters):
    assert built(variant, shape, num_classes=6) == parameters


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_pinned_here(size):
    assert any(name.startswith(f"{size}/") for name in [*PUBLISHED, "defect/4", "defect-conv/4"])


def test_arguments_go_over_those_of_the_size():
    model = ViT.from_variant("Ti/16", image_shape=(32, 32, 3), num_classes=4, depth=1, mlp_dim=10)
    config = model.get_config()
    assert (config["dim"], config["depth"], config["mlp_dim"], config["patch_size"]) == (192, 1, 10, 16)


def test_the_table_is_not_changed_by_its_users():
    variant_arguments("B/16")["dim"] = 1
    assert variant_arguments("B/16") == dict(dim=768, depth=12, num_heads=12, mlp_dim=3072, patch_size=16)


@pytest.mark.parametrize(
    ("variant", "size"), [("defect/4", 28), ("defect-conv/4", 28), ("B/16", 224), ("Ti/8", 224)]
)
def test_default_image_size(variant, size):
    assert default_image_size(variant) == size


@pytest.mark.parametrize("variant", ["B", "X/16", "B/", "B/x", "B/0", "B/-4", "b/16", "", "B/16/2", None, 16])
def test_wrong_names(variant):
    with pytest.raises(InputError) as caught:
        variant_arguments(variant)
    assert str(caught.value) == (
        "The model must be a size and a patch size, such as B/16; sizes are "
        f"Ti, S, B, L, H, g, defect, defect-conv. Received: {variant!r}"
    )
