"""Sources of published weights: files and folders of each kind give their tensors and what stands beside."""

import hashlib
import json
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_vit.errors import InputError
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.unwrap import unwrapped
from tests.helpers.random_tensors import random_tensors
from tests.helpers.weight_files import WRITERS, save_h5, save_keras, save_npz, save_torch, to_torch

torch = pytest.importorskip("torch", reason="files of torch are written with torch")

pytestmark = pytest.mark.same_on_every_backend

TENSORS = random_tensors({"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 4, 4), "norm.bias": (8,)})


def assert_same(tensors, expected=TENSORS):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name])
        assert tensor.dtype == np.float32


CONFIGS = {"a.keras": {"class_name": "ViT"}}


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
@pytest.mark.parametrize("renamed", [False, True])
def test_a_file(name, write, renamed, tmp_path):
    """Its kind is in its content: the name may have no suffix."""
    path = tmp_path / ("weights" if renamed else name)
    write(TENSORS, path)
    checkpoint = open_checkpoint(path)
    assert_same(checkpoint.tensors)
    assert checkpoint.config == CONFIGS.get(name)
    assert checkpoint.notes == ()
    assert checkpoint.name == path.stem
    origin = checkpoint.origin
    assert (origin.source, origin.files) == (str(path), (path,))
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert origin.revision is origin.licence is None


def test_another_suffix_than_that_of_its_kind(tmp_path):
    save_file(TENSORS, tmp_path / "a.pth")
    checkpoint = open_checkpoint(tmp_path / "a.pth")
    assert_same(checkpoint.tensors)
    assert checkpoint.notes == ("a.pth is a file of safetensors in spite of its name",)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("write", [save_file, save_torch, save_npz], ids=["safetensors", "torch", "npz"])
def test_other_floating_point_becomes_float32(dtype, write, tmp_path):
    """Values of few bits, so that every type has them exactly. Whole numbers stay what they are."""
    values = np.array([[0.5, -1.25], [3.0, 0.0]], "float32")
    tensors = {"norm.bias": values.astype(getattr(ml_dtypes, dtype, dtype)), "ids": np.arange(3)}
    if write is save_torch:
        tensors = {"norm.bias": torch.tensor(values).to(getattr(torch, dtype)), "ids": torch.arange(3)}
        torch.save(tensors, tmp_path / "weights")
    else:
        write(tensors, tmp_path / "weights")
    checkpoint = open_checkpoint(tmp_path / "weights")
    assert_same({"norm.bias": checkpoint.tensors["norm.bias"]}, {"norm.bias": values})
    assert checkpoint.tensors["ids"].dtype == np.int64
    assert checkpoint.notes == (f"1 tensors of {dtype} were converted to float32",)


def test_values_that_are_no_tensors_are_named(tmp_path):
    torch.save({**to_torch(TENSORS), "epoch": 3, "names": ["cat"]}, tmp_path / "a.pth")
    checkpoint = open_checkpoint(tmp_path / "a.pth")
    assert_same(checkpoint.tensors)
    assert checkpoint.notes == ("epoch, names are not tensors and were left out",)


def test_torch_is_imported_for_its_own_files_only(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    save_npz(TENSORS, tmp_path / "a.npz")
    save_h5(TENSORS, tmp_path / "a.h5")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from keras_vit.model.weights.sources import open_checkpoint\n"
        "for path in sys.argv[1:]: open_checkpoint(path)\n"
        "assert 'keras' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    paths = [tmp_path / name for name in ("a.safetensors", "a.npz", "a.h5")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)


# Checkpoints of a training, and modules around the ViT.

OTHER = {name: tensor + 1 for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    "used",
    [
        "model",
        "state_dict",
        "model_state_dict",
        "module",
        "model_ema",
        "state_dict_ema",
        "teacher",
        "student",
        "net",
    ],
)
def test_a_dict_of_a_checkpoint(used, tmp_path):
    torch.save({"epoch": 3, used: to_torch(TENSORS), "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    checkpoint = open_checkpoint(tmp_path / "a.pth")
    assert_same(checkpoint.tensors)
    (note,) = checkpoint.notes
    assert note == f'the weights under "{used}" are used, and nothing else of the file: epoch, optimizer'


@pytest.mark.parametrize(
    ("used", "unused"),
    [
        ("model_ema", "model"),
        ("state_dict_ema", "state_dict"),
        ("teacher", "student"),
        ("model", "optimizer"),
        ("state_dict", "ema_of_something"),
    ],
)
def test_the_moving_average_is_preferred(used, unused, tmp_path):
    torch.save({unused: to_torch(OTHER), used: to_torch(TENSORS)}, tmp_path / "a.pth")
    assert_same(open_checkpoint(tmp_path / "a.pth").tensors)


def test_a_dict_in_a_dict(tmp_path):
    torch.save({"model": {"state_dict": to_torch(TENSORS)}}, tmp_path / "a.pth")
    assert_same(open_checkpoint(tmp_path / "a.pth").tensors)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "backbone.",
        "encoder.",
        "model.",
        "model.backbone.module.",
        "net.vit.",
    ],
)
@pytest.mark.parametrize("write", [save_file, save_torch], ids=["safetensors", "torch"])
def test_a_prefix_of_all_names(prefix, write, tmp_path):
    write({prefix + name: tensor for name, tensor in TENSORS.items()}, tmp_path / "weights")
    checkpoint = open_checkpoint(tmp_path / "weights")
    assert_same(checkpoint.tensors)
    assert len(checkpoint.notes) >= 1


NAMES = {
    # names in the file, names of the checkpoint
    "timm": (["cls_token", "patch_embed.proj.weight", "blocks.0.norm1.weight"], None),
    "Hugging Face's ViT": (["vit.embeddings.cls_token", "vit.encoder.layer.0.a", "classifier.weight"], None),
    "Hugging Face's encoder alone": (["embeddings.cls_token", "encoder.layer.0.a", "layernorm.weight"], None),
    "Hugging Face's CLIP": (
        ["vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.token_embedding.weight"],
        None,
    ),
    "vit-pytorch": (["pos_embedding", "to_patch_embedding.1.weight", "transformer.layers.0.0.fn.a"], None),
    "Google": (["embedding/kernel", "Transformer/encoderblock_0/a"], None),
    "KerasHub": (["layers/vit_encoder/encoder_layers/layers/a/vars/0"], None),
    "not a ViT": (["model.conv1.weight", "model.fc.bias"], None),
    "Hugging Face in DataParallel": (
        ["module.vit.embeddings.cls_token", "module.classifier.weight"],
        ["vit.embeddings.cls_token", "classifier.weight"],
    ),
    "a backbone and its head": (
        ["backbone.patch_embed.proj.weight", "backbone.norm.weight", "head.weight"],
        ["patch_embed.proj.weight", "norm.weight", "head.weight"],
    ),
    "the same name inside and outside": (
        ["backbone.patch_embed.proj.weight", "backbone.head.weight", "head.weight"],
        ["patch_embed.proj.weight", "head.weight"],
    ),
    "student and teacher": (
        ["student.backbone.patch_embed.proj.weight", "teacher.backbone.patch_embed.proj.weight"],
        ["patch_embed.proj.weight", "student.backbone.patch_embed.proj.weight"],
    ),
    "compiled blocks": (
        ["patch_embed.proj.weight", "blocks.0._orig_mod.norm1.weight"],
        ["patch_embed.proj.weight", "blocks.0.norm1.weight"],
    ),
}


@pytest.mark.parametrize(("before", "after"), NAMES.values(), ids=NAMES)
def test_names_without_the_modules_around(before, after):
    values = {name: np.full(1, number) for number, name in enumerate(before)}
    tensors, notes = unwrapped(values, "a.pth")
    assert set(tensors) == set(after or before)
    assert bool(notes) == (after is not None)
    # A tensor keeps its value; that inside of the prefix is kept of two of one name.
    for name, value in tensors.items():
        ends = [full for full in before if full.replace("_orig_mod.", "").endswith(name)]
        assert value is values[ends[-1] if name.startswith("patch") else ends[0]]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.patch_embed.w", "b.patch_embed.w"], r"several models \(a\., b\.\)"),
        (["patch_embed.w", "b.patch_embed.w"], r"several models \(one without a prefix, b\.\)"),
        (["norm.w", "_orig_mod.norm.w"], "with and without `_orig_mod.`"),
    ],
)
def test_several_models_are_refused(names, words):
    with pytest.raises(InputError, match=words):
        unwrapped({name: np.zeros(1) for name in names}, "a.pth")


# Folders.


def write_json(folder, **files):
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "pretrained_cfg": {"tag": "augreg_in21k_ft_in1k", "license": "apache-2.0"},
}
CARD = "---\ntags:\n- vision\nlicense: mit # of the weights\n---\n# A model\nlicense: none\n"


def test_a_folder_of_timm(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    write_json(tmp_path, config=TIMM)
    checkpoint = open_checkpoint(tmp_path)
    assert_same(checkpoint.tensors)
    assert checkpoint.config == TIMM
    assert checkpoint.name == "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert checkpoint.origin.files == (tmp_path / "model.safetensors",)
    assert checkpoint.origin.licence == "apache-2.0"


def test_a_folder_of_hugging_face(tmp_path):
    """safetensors before the pickles of torch, and the card says the licence."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    save_torch(OTHER, tmp_path / "pytorch_model.bin")
    torch.save({}, tmp_path / "optimizer.pt")
    write_json(tmp_path, config={"model_type": "vit"}, preprocessor_config={"image_mean": [0.5]})
    (tmp_path / "README.md").write_text(CARD)
    checkpoint = open_checkpoint(str(tmp_path))
    assert_same(checkpoint.tensors)
    assert checkpoint.config == {"model_type": "vit", "preprocessor": {"image_mean": [0.5]}}
    assert checkpoint.origin.licence == "mit"
    assert checkpoint.name is None


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD, "mit"),
        ("---\nlicense: 'cc-by-nc-4.0'\n---\n", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: of-its-own\n---\n", "of-its-own"),
        ("---\nlicense: other\n---\n", "other"),
        ("license: mit\n", None),
        ("---\ntags: []\n---\n\nlicense: mit\n---\n", None),
    ],
)
def test_the_licence_of_a_card(card, licence, tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text(card)
    assert open_checkpoint(tmp_path).origin.licence == licence


def test_the_licence_in_a_safetensors_file(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors", metadata={"license": "bsd-3-clause"})
    assert open_checkpoint(tmp_path / "a.safetensors").origin.licence == "bsd-3-clause"


def test_the_licence_of_a_published_name(tmp_path):
    """A file alone that has the name of one; with a note of where it is from."""
    save_file(TENSORS, tmp_path / "vit_base_patch16_224.mae.safetensors")
    checkpoint = open_checkpoint(tmp_path / "vit_base_patch16_224.mae.safetensors")
    assert checkpoint.origin.licence == "cc-by-nc-4.0"
    (note,) = checkpoint.notes
    assert note.startswith("the licence is from the table of published names, by https://github.com/")


SHARDED = {
    "safetensors": ("model.safetensors", "model-{}-of-00002.safetensors", save_file),
    "torch": ("pytorch_model.bin", "pytorch_model-{}-of-00002.bin", save_torch),
}


@pytest.mark.parametrize(("whole", "part", "write"), SHARDED.values(), ids=SHARDED)
@pytest.mark.parametrize("by_index", [False, True])
def test_a_folder_of_shards(whole, part, write, by_index, tmp_path):
    names = list(TENSORS)
    where = {}
    for number, group in (("00001", names[:1]), ("00002", names[1:])):
        write({name: TENSORS[name] for name in group}, tmp_path / part.format(number))
        where |= dict.fromkeys(group, part.format(number))
    write_json(tmp_path, config={"model_type": "vit"}, **{f"{whole}.index": {"weight_map": where}})
    checkpoint = open_checkpoint(tmp_path / f"{whole}.index.json" if by_index else tmp_path)
    assert_same(checkpoint.tensors)
    files = [tmp_path / part.format(number) for number in ("00001", "00002")]
    assert checkpoint.origin.files == tuple(files)
    assert checkpoint.origin.sha256 == hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def test_a_preset_of_kerashub(tmp_path):
    backbone, head = (
        {"layers/vit/vars/0": np.ones(3, "float32")},
        {"layers/dense/vars/0": np.zeros(2, "float32")},
    )
    save_h5(backbone, tmp_path / "model.weights.h5")
    save_h5(head, tmp_path / "task.weights.h5")
    write_json(tmp_path, config={"class_name": "ViTBackbone"}, task={"t": 1}, preprocessor={"p": 2},
               image_converter={"i": 3}, metadata={"m": 4})  # fmt: skip
    checkpoint = open_checkpoint(tmp_path)
    assert_same(checkpoint.tensors, {**backbone, "task/layers/dense/vars/0": head["layers/dense/vars/0"]})
    assert checkpoint.config == {
        "class_name": "ViTBackbone",
        "task": {"t": 1},
        "preprocessor": {"p": 2},
        "image_converter": {"i": 3},
    }
    assert [path.name for path in checkpoint.origin.files] == ["model.weights.h5", "task.weights.h5"]


def test_a_run_folder(tmp_path):
    """The config is that of the model in its file, and the config of the run is beside it."""
    save_keras(TENSORS, tmp_path / "model.keras", {"class_name": "ViT", "registered_name": "keras_vit>ViT"})
    write_json(tmp_path, config={"train": {}, "data": {"class_names": ["a", "b"]}}, metrics={})
    save_npz(OTHER, tmp_path / "rejection.npz")
    for source in (tmp_path, tmp_path / "model.keras"):
        checkpoint = open_checkpoint(source)
        assert_same(checkpoint.tensors)
        assert checkpoint.config["registered_name"] == "keras_vit>ViT"
        assert checkpoint.config["run"]["data"]["class_names"] == ["a", "b"]
        assert checkpoint.origin.files == (tmp_path / "model.keras",)


def test_a_folder_with_one_file_of_another_name(tmp_path):
    save_npz(TENSORS, tmp_path / "B_16.npz")
    (tmp_path / "notes.txt").touch()
    checkpoint = open_checkpoint(tmp_path)
    assert_same(checkpoint.tensors)
    assert checkpoint.origin.files == (tmp_path / "B_16.npz",)


def test_the_config_beside_a_file(tmp_path):
    """It is read if it is that of a model."""
    save_file(TENSORS, tmp_path / "mine.safetensors")
    write_json(tmp_path, config={"port": 80})
    assert open_checkpoint(tmp_path / "mine.safetensors").config is None
    write_json(tmp_path, config=TIMM)
    checkpoint = open_checkpoint(tmp_path / "mine.safetensors")
    assert checkpoint.config == TIMM
    assert checkpoint.notes == ("config.json beside the file was read",)


def test_the_file_that_was_named_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    save_torch(OTHER, tmp_path / "pytorch_model.bin")
    write_json(tmp_path, config=TIMM)
    assert_same(open_checkpoint(tmp_path / "pytorch_model.bin").tensors, OTHER)
    assert_same(open_checkpoint(tmp_path / "model.safetensors").tensors)
