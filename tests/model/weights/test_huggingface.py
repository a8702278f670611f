import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_vit.errors import InputError
from keras_vit.model.weights.families import huggingface
from keras_vit.model.weights.families.timm import IMAGENET
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.told import ARGUMENT, CONFIG, SHAPES
from tests.helpers.published import answers, built, images_of, recorded, tensors_of
from tests.helpers.random_tensors import random_tensors

CASES = recorded("huggingface")
PROCESSOR = dict(image_mean=[0.5], image_std=[0.5], resample=2, do_normalize=True, do_rescale=True)


def read(folder: Path, tensors, config=None, processor=None, **arguments):
    """What the family reads of a folder, or of a file alone if there is no config."""
    save_file(dict(tensors), folder / "model.safetensors")
    if config is None:
        return huggingface.read(open_checkpoint(folder / "model.safetensors"), arguments)
    (folder / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return huggingface.read(open_checkpoint(folder), arguments)


def read_case(folder, name, processor=PROCESSOR, **arguments):
    return read(folder, tensors_of(CASES[name]), CASES[name]["config"], processor, **arguments)


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_transformers(name, tmp_path):
    case = CASES[name]

    weights = read_case(tmp_path, name)

    assert not weights.new
    assert weights.config.image_shape == tuple(case["image_shape"])
    found = answers(built(weights), images_of(case))
    np.testing.assert_allclose(found, case["outputs"], atol=1e-5)


@pytest.mark.parametrize("change", [dict(num_heads=2), dict(activation="relu"), dict(norm_epsilon=1e-2)])
def test_what_tensors_do_not_tell_changes_the_answers(change, tmp_path):
    case = CASES["ViT"]

    weights = read_case(tmp_path, "ViT", **change)

    assert np.abs(answers(built(weights), images_of(case)) - case["outputs"]).max() > 1e-3


same_on_every_backend = pytest.mark.same_on_every_backend


@same_on_every_backend
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT", dict(pooling="token", norm_epsilon=1e-12, activation="gelu", num_heads=4, num_classes=5)),
        ("ViT without biases", dict(qkv_bias=False, projection_bias=True)),
        ("ViT, tanh, epsilon", dict(activation="gelu_tanh", norm_epsilon=1e-3)),
        ("DeiT", dict(pooling="token", num_registers=1, class_position=True)),
        ("DeiT with teacher", dict(pooling="token+distilled", num_classes=3, num_registers=0)),
        ("DINOv2", dict(pooling="token", layer_scale=1e-5, norm_epsilon=1e-6, num_classes=0)),
        ("DINOv2, linear head", dict(pooling="token+gap", num_classes=2)),
        ("DINOv2, SwiGLU", dict(activation="swiglu", mlp_dim=88)),
        ("DINOv2 with registers", dict(num_registers=4, class_position=True)),
        ("CLIP", dict(pre_norm=True, patch_bias=False, activation="quick_gelu", norm_epsilon=1e-5)),
        ("CLIP with projection", dict(pooling="token", num_classes=0, activation="gelu")),
        ("CLIP, classes", dict(pooling="gap", class_token=True, final_norm="none", num_classes=3)),
        ("SigLIP", dict(pooling="map", class_token=None, activation="gelu_tanh", norm_epsilon=1e-6)),
        ("SigLIP, classes", dict(pooling="gap", final_norm="tokens", num_classes=3)),
        ("I-JEPA", dict(pooling="gap", class_token=None)),
        ("MAE", dict(pooling="token", num_classes=0)),
    ],
)
def test_the_architecture_is_read_from_names_shapes_and_config(name, expected, tmp_path):
    config = read_case(tmp_path, name).config

    assert {key: getattr(config, key) for key in expected} == expected


@same_on_every_backend
@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("ViT without a head", ["pooler.dense.bias", "pooler.dense.weight"]),
        ("ViT without a head, names of 5", ["pooler.dense.bias", "pooler.dense.weight"]),
        ("DINOv2, linear head", ["dinov2.embeddings.mask_token"]),
        ("CLIP with projection", ["visual_projection.weight"]),
        ("CLIP, classes", ["vision_model.post_layernorm.bias", "vision_model.post_layernorm.weight"]),
        ("ViT", []),
    ],
)
def test_tensors_without_a_use_are_named_as_in_the_file(name, unused, tmp_path):
    assert sorted(read_case(tmp_path, name).unused) == unused


@same_on_every_backend
@pytest.mark.parametrize("name", ["CLIP with text", "MAE"])
def test_of_a_larger_model_the_vision_part_is_used(name, tmp_path):
    unused = read_case(tmp_path, name).unused

    own = ("text_model.", "decoder.")
    rest = [tensor for tensor in unused if not tensor.startswith(own)]
    others = ["logit_scale", "text_projection.weight", "visual_projection.weight"]
    assert sorted(rest) == (others if name == "CLIP with text" else [])
    assert len(unused) > len(rest)


@same_on_every_backend
@pytest.mark.parametrize(
    ("processor", "mean", "std", "interpolation"),
    [
        (dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], resample=3),
         IMAGENET["mean"], IMAGENET["std"], "bicubic"),
        (dict(image_mean=0.5, image_std=0.5, resample=2), (0.5,) * 3, (0.5,) * 3, "bilinear"),
        (dict(do_normalize=False, resample=2), (0.0,) * 3, (1.0,) * 3, "bilinear"),
        (dict(image_mean=[127.5] * 3, image_std=[127.5] * 3, do_rescale=False, resample=2),
         (0.5,) * 3, (0.5,) * 3, "bilinear"),
        (dict(image_mean=[1.0] * 3, image_std=[1.0] * 3, rescale_factor=1 / 127.5, resample=2),
         (0.5,) * 3, (0.5,) * 3, "bilinear"),
        (dict(image_mean=[0.5] * 3, image_std=[0.5] * 3, rescale_factor=0.0039, resample=2),
         (0.502765,) * 3, (0.502765,) * 3, "bilinear"),
    ],
    ids=["ImageNet", "one number", "not normalised", "of pixels in 0..255", "other factor", "coarse factor"],
)  # fmt: skip
def test_how_images_are_prepared_comes_from_the_processor(processor, mean, std, interpolation, tmp_path):
    weights = read_case(tmp_path, "ViT", processor)

    np.testing.assert_allclose((weights.mean, weights.std), (mean, std), rtol=1e-6)
    assert weights.interpolation == interpolation
    assert weights.told_by["mean"] == weights.told_by["interpolation"] == CONFIG


@same_on_every_backend
def test_classes_have_the_names_of_the_config(tmp_path):
    assert read_case(tmp_path, "ViT").class_names == ("ant", "bee", "cat", "dog", "eel")
    assert read_case(tmp_path, "DeiT").class_names is None  # LABEL_0, LABEL_1


@same_on_every_backend
def test_an_argument_wins_over_the_config(tmp_path):
    weights = read_case(tmp_path, "ViT", norm_epsilon=1e-5, mean=0.1)

    assert (weights.config.norm_epsilon, weights.mean) == (1e-5, (0.1, 0.1, 0.1))
    assert weights.told_by["norm_epsilon"] == weights.told_by["mean"] == ARGUMENT


def dinov2(patch_size=14, dim=384, depth=12):
    """Zeros in the names and shapes of DINOv2-S without a prefix, as of transformers 4."""
    shapes = {
        "embeddings.cls_token": (1, 1, dim),
        "embeddings.position_embeddings": (1, 1 + 37 * 37, dim),
        "embeddings.patch_embeddings.projection.weight": (dim, 3, patch_size, patch_size),
        "embeddings.patch_embeddings.projection.bias": (dim,),
        "layernorm.weight": (dim,),
        "layernorm.bias": (dim,),
    }
    kernels = ["attention.attention.query", "attention.attention.key", "attention.attention.value"]
    for i in range(depth):
        block = f"encoder.layer.{i}."
        for name in (*kernels, "attention.output.dense"):
            shapes |= {f"{block}{name}.weight": (dim, dim), f"{block}{name}.bias": (dim,)}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "mlp.fc2.bias",
                     "layer_scale1.lambda1", "layer_scale2.lambda1"):  # fmt: skip
            shapes[block + name] = (dim,)
        shapes |= {f"{block}mlp.fc1.weight": (4 * dim, dim), f"{block}mlp.fc1.bias": (4 * dim,)}
        shapes[f"{block}mlp.fc2.weight"] = (dim, 4 * dim)
    return {name: np.zeros(shape, "float32") for name, shape in shapes.items()}


@same_on_every_backend
def test_a_file_of_dinov2_alone_tells_everything(tmp_path):
    weights = read(tmp_path, dinov2())

    config = weights.config
    assert (config.num_heads, config.activation, config.norm_epsilon) == (6, "gelu", 1e-6)
    assert config.image_shape == (518, 518, 3)
    assert (weights.mean, weights.std, weights.interpolation) == (*IMAGENET.values(), "bicubic")
    assert weights.told_by["mean"] == weights.told_by["num_heads"] == SHAPES


@same_on_every_backend
def test_a_bias_that_only_keys_lack_is_zero(tmp_path):
    tensors = tensors_of(CASES["ViT"])
    without = {name: value for name, value in tensors.items() if not name.endswith("attention.key.bias")}

    weights = read(tmp_path, without, CASES["ViT"]["config"], PROCESSOR)

    bias = weights.arrays["block_1/attention/qkv/bias"]
    np.testing.assert_array_equal(bias[32:64], 0.0)
    np.testing.assert_array_equal(bias[:32], tensors["vit.encoder.layer.1.attention.attention.query.bias"])
    assert any("which no block has, is zero" in note for note in weights.notes)


@same_on_every_backend
def test_a_bias_that_one_block_lacks_is_missing(tmp_path):
    tensors = tensors_of(CASES["ViT"])
    del tensors["vit.encoder.layer.0.attention.attention.key.bias"]

    with pytest.raises(InputError, match=r"lacks encoder\.layer\.0\.attention\.attention\.key\.bias"):
        read(tmp_path, tensors, CASES["ViT"]["config"], PROCESSOR)


ViT = CASES["ViT"]["shapes"]


@same_on_every_backend
@pytest.mark.parametrize(
    ("shapes", "config", "arguments", "sentence"),
    [
        (ViT, None, {}, "does not tell activation, norm_epsilon, num_heads, mean and std"),
        (ViT, None, dict(num_heads=4, activation="gelu", norm_epsilon=1e-12), "does not tell mean and std"),
        (ViT, {}, dict(num_heads=5), "width 32, which 5 heads do not divide"),
        (ViT, {}, dict(depth=3), "model with depth=2: leave out depth=3"),
        (ViT, dict(hidden_act="mish"), {}, "has the activation 'mish'"),
        (ViT | {"vit.embeddings.position_embeddings": [1, 8, 32]}, {}, {}, "has 8 positions, and images"),
        ({x: ViT[x] for x in ViT if "cls_token" not in x}, {}, {}, "does not fit 0 first tokens"),
        (ViT | {"vit.encoder.layer.1.output.dense.weight": [32, 60]}, {}, {}, "kernel of shape (60, 32)"),
        (ViT | {"vit.embeddings.patch_embeddings.projection.weight": [32, 3, 8, 4]}, {}, {}, "8x4 pixels"),
        (ViT | {"vit.encoder.layer.0.attention.relative_position_bias_table": [9, 4]}, {}, {},
         "model with relative positions"),
        (ViT | {"vit.encoder.layers.0.blocks.0.x": [1]}, {}, {}, "windows of attention (Swin)"),
        (ViT | {"vit.encoder.layer.0.gate": [32]}, {}, {}, "blocks have encoder.layer.0.gate"),
        (ViT | {"vit.encoder.layer.0.lambda_1": [32]}, {}, {}, "a LayerScale and biases as in BEiT"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_sentence(shapes, config, arguments, sentence, tmp_path):
    whole = None if config is None else CASES["ViT"]["config"] | config

    with pytest.raises(InputError) as error:
        read(tmp_path, random_tensors(shapes), whole, PROCESSOR, **arguments)

    assert sentence in str(error.value)


@same_on_every_backend
@pytest.mark.parametrize(
    "name",
    [
        "vit.embeddings.position_embeddings",
        "vit.encoder.layer.0.attention.attention.value.weight",
        "vit.encoder.layer.1.layernorm_after.bias",
        "classifier.bias",
    ],
)
def test_a_missing_tensor_is_named(name, tmp_path):
    shapes = {key: shape for key, shape in ViT.items() if key != name}

    with pytest.raises(InputError, match=name.removeprefix("vit.")):
        read(tmp_path, random_tensors(shapes), CASES["ViT"]["config"], PROCESSOR)
