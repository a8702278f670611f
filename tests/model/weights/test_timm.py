import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_vit.errors import InputError
from keras_vit.model.weights.families import timm
from keras_vit.model.weights.families.timm import HALF, IMAGENET
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.told import ARGUMENT, CONFIG, SHAPES
from tests.helpers.paths import SHARED
from tests.helpers.published import answers, built, images_of, recorded, tensors_of
from tests.helpers.random_tensors import random_tensors

CASES = recorded("timm")
LONE = dict(num_heads=4, mean=0.5, std=0.5)
"""What the small models of the cases do not tell without config.json."""

ARGUMENTS = {
    "DINOv2 of Meta": LONE,
    "DINOv2 with registers of Meta": LONE,
    "DeiT III of Meta": dict(num_heads=4),
    "pre-logits": LONE,
    "SwiGLU in two tensors": LONE,
    "epsilon": LONE | dict(norm_epsilon=1e-3),
}
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def read(folder: Path, tensors, config=None, **arguments):
    """What the family reads of a folder, or of a file alone if there is no config."""
    save_file(dict(tensors), folder / "model.safetensors")
    if config is None:
        return timm.read(open_checkpoint(folder / "model.safetensors"), arguments)
    (folder / "config.json").write_text(json.dumps(config))
    return timm.read(open_checkpoint(folder), arguments)


def read_case(folder, case, **arguments):
    return read(folder, tensors_of(case), case["config"], **ARGUMENTS.get(case["name"], {}), **arguments)


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_timm(name, tmp_path):
    case = CASES[name]

    weights = read_case(tmp_path, case)

    assert weights.unused == weights.new == ()
    assert weights.config.image_shape == tuple(case["image_shape"])
    found = answers(built(weights), images_of(case))
    if name == "distilled without heads":  # there the mean of the two tokens, here both
        found = found.reshape(2, 2, -1).mean(axis=1)
    np.testing.assert_allclose(found, case["outputs"], atol=1e-5)


@pytest.mark.parametrize("change", [dict(num_heads=2), dict(activation="relu"), dict(norm_epsilon=1e-2)])
def test_what_tensors_do_not_tell_changes_the_answers(change, tmp_path):
    case = CASES["pre-logits"]

    weights = read(tmp_path, tensors_of(case), **LONE | change)

    assert np.abs(answers(built(weights), images_of(case)) - case["outputs"]).max() > 1e-3


def test_the_shared_vit_tiny_gives_its_recorded_logits():
    folder = SHARED / "weights"
    if not folder.exists():
        pytest.skip("needs ../shared/weights")
    Image = pytest.importorskip("PIL.Image")
    expected = np.load(folder / "imagenet17" / "expected.npz")

    weights = timm.read(open_checkpoint(folder / "vit_tiny_patch16_224.safetensors"), {})

    images = [_centre(Image.open(folder / "imagenet17" / name)) for name in expected["names"]]
    scaled = (np.stack(images) / 255.0 - weights.mean) / weights.std
    found = answers(built(weights), scaled.astype("float32"))
    np.testing.assert_allclose(found, expected["logits"], atol=1e-4)


def _centre(image):
    """The shorter side to 256 pixels, then the 224 in the middle."""
    scale = 256 / min(image.size)
    image = image.convert("RGB").resize([round(side * scale) for side in image.size], 3)
    left, top = ((side - 224) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), "float64")


same_on_every_backend = pytest.mark.same_on_every_backend

PLAIN = {
    "cls_token": (1, 1, 192),
    "pos_embed": (1, 197, 192),
    "patch_embed.proj.weight": (192, 3, 16, 16),
    "patch_embed.proj.bias": (192,),
    "norm.weight": (192,),
    "norm.bias": (192,),
}
BLOCK = {
    "norm1.weight": (192,),
    "norm1.bias": (192,),
    "attn.qkv.weight": (576, 192),
    "attn.qkv.bias": (576,),
    "attn.proj.weight": (192, 192),
    "attn.proj.bias": (192,),
    "norm2.weight": (192,),
    "norm2.bias": (192,),
    "mlp.fc1.weight": (768, 192),
    "mlp.fc1.bias": (768,),
    "mlp.fc2.weight": (192, 768),
    "mlp.fc2.bias": (192,),
}


def tiny(more=(), without=(), blocks=12, **block):
    """Shapes of the tensors of ViT-Ti/16 without a head, with changes."""
    shapes = PLAIN | {f"blocks.{i}.{name}": shape for i in range(blocks) for name, shape in BLOCK.items()}
    shapes |= {f"blocks.{i}.{name}": shape for i in range(blocks) for name, shape in block.items()}
    return {name: shape for name, shape in (shapes | dict(more)).items() if name not in without}


def zeros(shapes):
    return {name: np.zeros(shape, "float32") for name, shape in shapes.items()}


@same_on_every_backend
def test_a_file_alone_of_a_published_shape_tells_everything(tmp_path):
    weights = read(tmp_path, zeros(tiny()))

    config = weights.config
    assert (config.num_heads, config.activation, config.norm_epsilon) == (3, "gelu", 1e-6)
    assert (config.num_classes, config.pooling, config.image_shape) == (0, "token", (224, 224, 3))
    assert weights.told_by["num_heads"] == weights.told_by["norm_epsilon"] == SHAPES
    assert (weights.mean, weights.std, weights.interpolation) == (*HALF.values(), "bicubic")


@same_on_every_backend
def test_a_mean_that_is_assumed_is_said(tmp_path):
    weights = read(tmp_path, zeros(tiny()))

    assert weights.told_by["mean"] == weights.told_by["std"] == "assumed"
    assert any("mean and std are assumed" in note for note in weights.notes)
    given = read(tmp_path, zeros(tiny()), **IMAGENET)
    assert given.told_by["mean"] == ARGUMENT
    assert given.mean == IMAGENET["mean"]
    assert not given.notes


CLIP_NORM = {"norm_pre.weight": (192,), "norm_pre.bias": (192,)}
SCALED = {"ls1.gamma": (192,), "ls2.gamma": (192,)}


@same_on_every_backend
@pytest.mark.parametrize(
    ("shapes", "mean"),
    [
        (tiny({"dist_token": (1, 1, 192), "pos_embed": (1, 198, 192)}), IMAGENET["mean"]),
        (tiny({"patch_embed.proj.weight": (192, 3, 14, 14)}, **SCALED), IMAGENET["mean"]),
        (tiny({"pos_embed": (1, 196, 192)}, **SCALED), IMAGENET["mean"]),
        (tiny({"reg_token": (1, 4, 192), "pos_embed": (1, 196, 192)}, ["cls_token"]), HALF["mean"]),
    ],
    ids=["DeiT, distilled", "DINOv2", "DeiT III", "registers without a class token"],
)
def test_tensors_that_only_one_kind_of_models_has_tell_the_mean(shapes, mean, tmp_path):
    weights = read(tmp_path, zeros(shapes))

    assert weights.mean == mean
    assert weights.told_by["mean"] == SHAPES


@same_on_every_backend
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token", dict(norm_epsilon=1e-6, activation="gelu", class_token=None, final_norm="tokens")),
        ("relu", dict(activation="relu")),
        ("mean, norm after it", dict(pooling="gap", final_norm="pooled", class_token=True)),
        ("mean of all tokens", dict(pooling="all", class_token=True, class_position=True)),
        ("mean without class token", dict(pooling="gap", final_norm="tokens", class_token=None)),
        ("mean without class token, tanh", dict(activation="gelu_tanh", mlp_dim=64)),
        ("attention pooling beside a class token", dict(pooling="map", class_token=True)),
        ("distilled", dict(pooling="token+distilled", num_classes=5)),
        ("DeiT III", dict(class_position=False, layer_scale=1e-5)),
        ("DINOv2 with registers", dict(num_registers=4, class_position=False, num_classes=0)),
        ("SwiGLU", dict(activation="swiglu", num_heads=2, mlp_dim=85)),
        ("class token, registers with positions", dict(num_registers=2, class_position=True)),
        ("CLIP", dict(pre_norm=True, patch_bias=False, norm_epsilon=1e-5, activation="gelu")),
        ("CLIP of OpenAI", dict(pre_norm=True, norm_epsilon=1e-5, activation="quick_gelu")),
        ("no biases in the blocks", dict(qkv_bias=False, projection_bias=False, mlp_bias=False)),
        ("no last norm", dict(final_norm="none")),
        ("pre-logits", dict(head_hidden_dim=24, head_activation="tanh")),
    ],
)
def test_the_architecture_is_read_from_names_and_shapes(name, expected, tmp_path):
    config = read_case(tmp_path, CASES[name]).config

    assert {key: getattr(config, key) for key in expected} == expected


@same_on_every_backend
@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("token", *HALF.values()),
        ("distilled", *IMAGENET.values()),
        ("CLIP of OpenAI", *CLIP),
        ("token, gray images", (0.5,), (0.5,)),
    ],
)
def test_how_images_are_prepared_comes_from_the_config(name, mean, std, tmp_path):
    weights = read_case(tmp_path, CASES[name])

    assert (weights.mean, weights.std, weights.interpolation) == (mean, std, "bicubic")
    assert weights.told_by["mean"] == weights.told_by["interpolation"] == CONFIG


@same_on_every_backend
def test_an_argument_wins_over_the_config(tmp_path):
    weights = read_case(tmp_path, CASES["token"], activation="relu", mean=0.1)

    assert (weights.config.activation, weights.mean) == ("relu", (0.1, 0.1, 0.1))
    assert weights.told_by["activation"] == weights.told_by["mean"] == ARGUMENT


@same_on_every_backend
@pytest.mark.parametrize(
    "place", [lambda config, names: config.update(label_names=names),
              lambda config, names: config["pretrained_cfg"].update(label_names=names)],
    ids=["top", "pretrained_cfg"],
)  # fmt: skip
def test_classes_have_the_names_of_the_config(place, tmp_path):
    case = CASES["token"]
    config = json.loads(json.dumps(case["config"]))
    place(config, ["ant", "bee", "cat", "dog", "eel"])

    assert read(tmp_path, tensors_of(case), config).class_names == ("ant", "bee", "cat", "dog", "eel")


@same_on_every_backend
def test_tensors_without_a_use_are_named(tmp_path):
    case = CASES["token"]

    weights = read(tmp_path, tensors_of(case) | random_tensors({"mask_token": (1, 32)}), case["config"])

    assert weights.unused == ("mask_token",)


@same_on_every_backend
@pytest.mark.parametrize(
    ("shapes", "arguments", "sentence"),
    [
        (tiny(blocks=7), {}, "does not tell num_heads: give it as arguments"),
        (tiny(CLIP_NORM), {}, "does not tell activation, mean and std"),
        (tiny(blocks=7), dict(num_heads=5), "width 192, which 5 heads do not divide"),
        (tiny(), dict(dim=384), "model with dim=192: leave out dim=384"),
        (tiny(), dict(qk_norm=True), "model with qk_norm=False"),
        (tiny(), dict(mean=(0.5, 0.5)), "mean must be one number, or 3"),
        (tiny(without=["blocks.3.attn.proj.bias"]), {}, "lacks blocks.3.attn.proj.bias"),
        (tiny(without=["norm.bias"]), {}, "lacks norm.bias"),
        (tiny(without=["patch_embed.proj.weight"]), {}, "lacks patch_embed.proj.weight"),
        (tiny({"blocks.5.mlp.fc2.weight": (192, 700)}), {}, "contract/kernel of shape (700, 192)"),
        (tiny({"patch_embed.proj.weight": (192, 3, 16, 8)}), {}, "has patches of 16x8 pixels"),
        (tiny({"patch_embed.proj.weight": (192, 768)}), {}, "which should have 4 axes"),
        (tiny({"pos_embed": (1, 190, 192)}), {}, "190 positions, which no square image with 0 or 1 first"),
        (tiny(without=["pos_embed"]), {}, "has no table of positions"),
        (tiny(without=[f"blocks.{i}.norm1.bias" for i in range(12)]), {}, "model with RMS normalisation"),
        (tiny(**{"attn.relative_position_bias_table": (9, 3)}), {}, "model with relative positions"),
        (tiny(**{"attn.norm.weight": (192,)}), {}, "layer normalisations inside of the branches"),
        (tiny(**{"attns.0.qkv.weight": (576, 192)}), {}, "model with attention and MLP in parallel"),
        (tiny(**{"attn.q_bias": (192,)}), {}, "biases of queries and values alone"),
        (tiny(**{"attn.temperature": (1,)}), {}, "blocks have blocks.0.attn.temperature"),
        (tiny({"patch_embed.backbone.stem.weight": (9,)}), {}, "a convolutional network before the patches"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_sentence(shapes, arguments, sentence, tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, zeros(shapes), **arguments)

    assert sentence in str(error.value)


@same_on_every_backend
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(architecture="vit_base_patch16_rpn_224"), "post-norm"),
        (dict(model_args=dict(global_pool="avgmax")), "pools by 'avgmax'"),
        (dict(model_args=dict(act_layer="mish")), "has the activation 'mish'"),
        (dict(model_args=dict(pool_include_prefix=True, global_pool="map")), "pools the class token"),
    ],
)
def test_a_config_of_another_architecture_is_refused(change, sentence, tmp_path):
    case = CASES["token"]

    with pytest.raises(InputError, match=sentence):
        read(tmp_path, tensors_of(case), case["config"] | change)


@same_on_every_backend
@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("vit_base_patch16_224", ("gelu", 1e-6)),
        ("deit3_small_patch16_224", ("gelu", 1e-6)),
        ("vit_base_patch16_clip_224", ("gelu", 1e-5)),
        ("vit_base_patch16_clip_quickgelu_224", ("quick_gelu", 1e-5)),
        ("vit_base_patch16_siglip_224", ("gelu", 1e-6)),
        ("vit_so400m_patch16_siglip_gap_256", ("gelu_tanh", 1e-6)),
        ("vit_large_patch16_siglip_512", ("gelu_tanh", 1e-6)),
        ("resnet50", (None, None)),
    ],
)
def test_an_architecture_has_its_activation_and_epsilon(architecture, expected):
    assert timm.of_architecture(architecture) == expected


@pytest.mark.long
@same_on_every_backend
def test_all_architectures_have_those_of_the_library():
    library = pytest.importorskip("timm", reason="needs timm")
    classes = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
    names = [name for module in ("vision_transformer", "deit") for name in library.list_models(module=module)]
    found = {}
    for name in names:
        block = library.create_model(name, embed_dim=32, depth=1, num_heads=2, num_classes=0).blocks[0]
        others = type(block).__name__ != "Block" or type(block.norm1).__name__ != "LayerNorm"
        gated = type(block.mlp).__name__ != "Mlp" if not others else False
        if not (others or gated or name.startswith("beit3")):  # these are refused, or told by the tensors
            found[name] = (classes[type(block.mlp.act).__name__], block.norm1.eps)
    assert {name: timm.of_architecture(name) for name in found} == found
