"""Small ViTs of every kind that maps are made of."""

from keras_vit import ViT
from tests.helpers.checks import random_input, randomize

SIZE = dict(num_classes=3, patch_size=4, dim=8, depth=2, num_heads=2, mlp_dim=12)
KINDS = {
    "class token": dict(),
    "class token and mean, qk_norm": dict(pooling="token+gap", qk_norm=True),
    "mean, layer scale": dict(pooling="gap", layer_scale=0.5),
    "mean beside a class token": dict(pooling="gap", class_token=True, num_registers=1),
    "map, registers": dict(pooling="map", num_registers=2, final_norm="pooled"),
    "all": dict(pooling="all", num_registers=1, pre_norm=True),
    "distilled": dict(pooling="token+distilled"),
    "conv stem, hidden layer in the head": dict(stem="conv", head_hidden_dim=6),
    "free head width, gated": dict(head_dim=3, activation="swiglu", final_norm="none"),
}
SHAPE = (8, 12, 3)  # two rows of three patches


def vit_of(kind, **changes):
    """A ViT with random weights, large enough that its attention is far from even."""
    return randomize(ViT(SHAPE, **{**SIZE, **KINDS[kind], **changes}), scale=0.5)


def images(count=2):
    return random_input((count, *SHAPE))
