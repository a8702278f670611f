"""A file that lacks a tensor, or has one of another shape, gives one sentence and no weights."""

import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from keras_vit.model.weights.families import huggingface, timm
from tests.helpers.published import recorded, tensors_of

pytestmark = pytest.mark.same_on_every_backend

FAMILIES = {"timm": timm, "huggingface": huggingface}
CASES = [
    ("timm", "distilled"),
    ("timm", "CLIP of OpenAI"),
    ("timm", "attention pooling"),
    ("timm", "SwiGLU"),
    ("timm", "SwiGLU in two tensors"),
    ("timm", "class token, registers with positions"),
    ("timm", "pre-logits"),
    ("huggingface", "ViT"),
    ("huggingface", "DeiT"),
    ("huggingface", "DeiT with teacher"),
    ("huggingface", "DINOv2, linear head, names of 5"),
    ("huggingface", "DINOv2, SwiGLU, names of 5"),
    ("huggingface", "DINOv2 with registers"),
    ("huggingface", "CLIP"),
    ("huggingface", "SigLIP"),
]
ARGUMENTS = dict(num_heads=4, mean=0.5, std=0.5)

# What may lack: then it is another model.
OPTIONAL = ("attn_pool.latent", "head.probe")


def changed(tensors, name, how):
    if how == "missing":
        return {other: tensor for other, tensor in tensors.items() if other != name}
    tensor = tensors[name]
    shapes = {
        "longer": np.concatenate([tensor, tensor[:1]]),
        "wider": np.concatenate([tensor, tensor[..., :1]], axis=-1),
        "one number": np.float32(1.0),
        "empty": tensor[:0],
    }
    return tensors | {name: np.asarray(shapes[how])}


@pytest.mark.parametrize("how", ["missing", "longer", "wider", "one number", "empty"])
@pytest.mark.parametrize(("family", "case"), CASES)
def test_each_tensor_counts(family, case, how):
    found, module = recorded(family)[case], FAMILIES[family]
    tensors, config = tensors_of(found), found["config"]

    def read(given):
        return module.read(Checkpoint(given, Origin("the file", (), ""), config), ARGUMENTS)

    used = [name for name in tensors if name not in read(tensors).unused]
    for name in used:
        if how == "missing" and name in OPTIONAL:
            continue
        given = changed(tensors, name, how)
        if not module.recognises(Checkpoint(given, Origin("the file", (), ""), config)):
            continue
        with pytest.raises(InputError, match="the file") as error:
            read(given)
        assert "\n" not in str(error.value), name
