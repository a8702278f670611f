"""The table of sizes. `"B/16"` is size B with patches of 16 pixels; `"defect-conv/4"` the same with a stem.

Sources: Ti Touvron et al. 2021 (https://arxiv.org/abs/2012.12877, there "tiny"); S Steiner et al. 2021
(https://arxiv.org/abs/2106.10270); B, L, H Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929);
g Zhai et al. 2021 (https://arxiv.org/abs/2106.04560). `defect` is the study of 1,800 steel images that this
package began with.
"""

from typing import Any

from keras_vit.errors import InputError

SIZES: dict[str, dict[str, Any]] = {
    "Ti": dict(dim=192, depth=12, num_heads=3, mlp_dim=768),
    "S": dict(dim=384, depth=12, num_heads=6, mlp_dim=1536),
    "B": dict(dim=768, depth=12, num_heads=12, mlp_dim=3072),
    "L": dict(dim=1024, depth=24, num_heads=16, mlp_dim=4096),
    "H": dict(dim=1280, depth=32, num_heads=16, mlp_dim=5120),
    "g": dict(dim=1408, depth=40, num_heads=16, mlp_dim=6144),
    "defect": dict(
        dim=64,
        depth=6,
        num_heads=4,
        head_dim=64,
        mlp_dim=128,
        qkv_bias=False,
        head_hidden_dim=128,
        dropout_rate=0.1,
    ),
    # A stem of convolutions and heads of dim / num_heads: fewer parameters, and twelve points better.
    "defect-conv": dict(
        dim=64,
        depth=6,
        num_heads=4,
        mlp_dim=128,
        qkv_bias=False,
        head_hidden_dim=128,
        stem="conv",
    ),
}

DEFECT_IMAGE_SIZE = 28
DEFAULT_IMAGE_SIZE = 224


def variant_arguments(variant):
    """The arguments of `ViT` that a name such as `"B/16"` stands for.

    Args:
        variant: size, slash, patch size in pixels.

    Returns:
        A new dict of `ViT` arguments, without image_shape and num_classes.

    Raises:
        InputError: no such size, or no patch size after the slash.
    """
    size, _, patch_size = str(variant).partition("/")
    if size not in SIZES or not patch_size.isdecimal() or int(patch_size) < 1:
        raise InputError(
            f"The model must be a size and a patch size, such as B/16; sizes are {', '.join(SIZES)}. "
            f"Received: {variant!r}"
        )
    return {**SIZES[size], "patch_size": int(patch_size)}


def default_image_size(variant):
    """Side in pixels that a variant is used at when nothing else is said."""
    return DEFECT_IMAGE_SIZE if str(variant).startswith("defect") else DEFAULT_IMAGE_SIZE


def default_channels(variant):
    """1 (gray) for the defect sizes, which began with gray images; else 3 (RGB)."""
    return 1 if str(variant).startswith("defect") else 3
