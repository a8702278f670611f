"""The table of published names: what the tensors of a file cannot tell, one line and one source for each row.

A row fits a name by a pattern. Where it has no `num_heads`, the heads are `dim / 64`. Image sizes, patches
and poolings are not here: names and shapes of the tensors tell them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from keras_vit.model.weights.checkpoint import Checkpoint

HALF: dict[str, Any] = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Pixels in [-1, 1]."""
IMAGENET: dict[str, Any] = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels."""
CLIP: dict[str, Any] = dict(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
"""Mean and standard deviation of the pixels that CLIP was trained with."""
RAW: dict[str, Any] = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Pixels in [0, 1]."""

GELU: dict[str, Any] = dict(activation="gelu", norm_epsilon=1e-6)
TANH: dict[str, Any] = dict(activation="gelu_tanh", norm_epsilon=1e-6)
GELU_5: dict[str, Any] = dict(activation="gelu", norm_epsilon=1e-5)
QUICK: dict[str, Any] = dict(activation="quick_gelu", norm_epsilon=1e-5)
GELU_12: dict[str, Any] = dict(activation="gelu", norm_epsilon=1e-12)
SWIGLU: dict[str, Any] = dict(activation="swiglu", norm_epsilon=1e-6)

TIMM = "https://github.com/huggingface/pytorch-image-models/blob/v1.0.31/timm/models/vision_transformer.py"
DEIT = "https://github.com/huggingface/pytorch-image-models/blob/v1.0.31/timm/models/deit.py"
OPENAI = "https://github.com/openai/CLIP"
HUB = "https://huggingface.co/"
"""The repository's config.json and preprocessor_config.json, or its model card; its name follows."""

APACHE, MIT, CC_NC, APPLE = "apache-2.0", "mit", "cc-by-nc-4.0", "apple-ascl"
HEADS_16 = dict(num_heads=16)
BILINEAR = dict(interpolation="bilinear")

# Pattern of the names, source, licence, and the arguments.
Row = tuple[Any, ...]
ROWS: tuple[Row, ...] = (
    (r"vit_(tiny|small|base|large)_patch\d+_(224|384)\.(augreg2?|orig|sam)_.*", TIMM, APACHE, GELU, HALF),
    (r"vit_huge_patch14_224\.orig_in21k", TIMM, APACHE, GELU, HALF, HEADS_16),
    (r"vit_(small|base)_patch(8|16)_224\.dino", TIMM, APACHE, GELU, IMAGENET),
    (r"vit_(base|large)_patch16_224\.mae", TIMM, CC_NC, GELU, IMAGENET),
    (r"vit_huge_patch14_224\.mae", TIMM, CC_NC, GELU, IMAGENET, HEADS_16),
    (r"vit_(huge|giant)_patch\d+_gap_\d+\.in\d+k_ijepa", TIMM, CC_NC, GELU, IMAGENET, HEADS_16),
    (r"flexivit_(small|base|large)\..*_in(1|21)k", TIMM, APACHE, GELU, HALF),
    (r"eva_large_patch14_(196|336)\.in22k_ft_in.*", TIMM, MIT, GELU, CLIP),
    (r"vit_base_patch16_224_miil\.in21k(_ft_in1k)?", TIMM, APACHE, GELU, RAW, BILINEAR),
    (r"vit_(small|base|large)_patch14_(reg4_)?dinov2\.lvd142m", TIMM, APACHE, GELU, IMAGENET),
    (r"vit_giant_patch14_(reg4_)?dinov2\.lvd142m", TIMM, APACHE, SWIGLU, IMAGENET),
    (r"vit_(base|large)_patch14_reg1_tipsv2\.webli", TIMM, APACHE, GELU, RAW),
    (r"vit_giant_patch14_reg1_tipsv2\.webli", TIMM, APACHE, SWIGLU, RAW),
    (r"vit_so400m_patch14_reg1_tipsv2\.webli", TIMM, APACHE, GELU, RAW, HEADS_16),
    (r"vit_large_patch14_clip_\d+\.laion2b.*", TIMM, APACHE, GELU_5, HALF),
    (r"vit_base_patch(16|32)_clip_\d+\.(laion2b|openai|datacompxl).*", TIMM, APACHE, GELU_5, CLIP),
    (r"vit_large_patch14_clip_\d+\.(openai|datacompxl).*", TIMM, APACHE, GELU_5, CLIP),
    (r"vit_(base|large)_patch\d+(_plus)?_clip_\d+\.laion400m_e32", TIMM, MIT, GELU_5, CLIP),
    (r"vit_(xsmall|medium|betwixt)_patch(16|32)_clip_224\.tinyclip_.*", TIMM, MIT, GELU_5, CLIP),
    (r"vit_(huge|giant|gigantic)_patch14_clip_\d+\.laion2b.*", TIMM, APACHE, GELU_5, CLIP, HEADS_16),
    (r"vit_(base|large)_patch\d+_clip_\d+\.metaclip_.*", TIMM, CC_NC, GELU_5, CLIP),
    (r"vit_(huge|gigantic)_patch14_clip_\d+\.metaclip.*", TIMM, CC_NC, GELU_5, CLIP, HEADS_16),
    (r"vit_(base|large)_patch\d+_clip_\d+\.dfn2b.*", TIMM, APPLE, GELU_5, CLIP),
    (r"vit_huge_patch14_clip_\d+\.dfn5b", TIMM, APPLE, GELU_5, CLIP, HEADS_16),
    (r"vit_(base|large)_patch\d+_clip_quickgelu_\d+\.openai", TIMM, APACHE, QUICK, CLIP),
    (r"vit_base_patch32_clip_quickgelu_224\.laion400m_e32", TIMM, MIT, QUICK, CLIP),
    (r"vit_(base|large)_patch\d+_clip_quickgelu_\d+\.metaclip_.*", TIMM, CC_NC, QUICK, CLIP),
    (r"vit_(huge|gigantic)_patch14_clip_quickgelu_\d+\.metaclip.*", TIMM, CC_NC, QUICK, CLIP, HEADS_16),
    (r"vit_large_patch14_clip_quickgelu_224\.dfn2b", TIMM, APPLE, QUICK, CLIP),
    (r"vit_huge_patch14_clip_quickgelu_\d+\.dfn5b", TIMM, APPLE, QUICK, CLIP, HEADS_16),
    (r"vit_base_patch16_siglip_(gap_)?\d+\.(v2_)?webli.*", TIMM, APACHE, GELU, HALF),
    (r"vit_large_patch16_siglip_(gap_)?(256|384)\.(v2_)?webli.*", TIMM, APACHE, GELU, HALF),
    (r"vit_(base_patch32_siglip_(gap_)?256|large_patch16_siglip_(gap_)?512)\..*", TIMM, APACHE, TANH, HALF),
    (r"vit_so400m_patch14_siglip_(gap_)?\d+\..*", TIMM, APACHE, GELU, HALF, HEADS_16),
    (r"vit_(so400m|giantopt)_patch16_siglip_(gap_)?\d+\..*", TIMM, APACHE, TANH, HALF, HEADS_16),
    (r"vit_(wee|little|mediumd?|betwixt|so150m2?)_.*gap_\d+\.s(bb|w).*", TIMM, APACHE, GELU, HALF),
    (r"deit_(tiny|small|base)_(distilled_)?patch16_(224|384)\.fb_in1k", DEIT, APACHE, GELU, IMAGENET),
    (r"deit3_(small|medium|base|large)_patch16_(224|384)\.fb_.*", DEIT, APACHE, GELU, IMAGENET),
    (r"deit3_huge_patch14_224\.fb_.*", DEIT, APACHE, GELU, IMAGENET, HEADS_16),
    (r"google/vit-(base|large)-patch(16|32)-(224|384)(-in21k)?", HUB, APACHE, GELU_12, HALF, BILINEAR),
    (r"google/vit-huge-patch14-224-in21k", HUB, APACHE, GELU_12, HALF, BILINEAR, HEADS_16),
    (r"facebook/deit-(tiny|small|base)-(distilled-)?patch16-(224|384)", HUB, APACHE, GELU_12, IMAGENET),
    (r"facebook/dinov2-(with-registers-)?(small|base|large)(-imagenet.*)?", HUB, APACHE, GELU, IMAGENET),
    (r"facebook/dinov2-(with-registers-)?giant(-imagenet.*)?", HUB, APACHE, SWIGLU, IMAGENET),
    (r"openai/clip-vit-(base|large)-patch(14|16|32)(-336)?", OPENAI, MIT, QUICK, CLIP),
    (r"google/siglip2?-(base|large)-patch(16|32)-\d+(-multilingual)?", HUB, APACHE, TANH, HALF),
    (r"google/siglip2?-so400m-patch(14|16)-\d+(-i18n)?", HUB, APACHE, TANH, HALF, HEADS_16),
)

MNIST: Mapping[str, Any] = dict(
    num_heads=4,
    activation="relu",
    norm_epsilon=1e-5,
    pooling="token",
    mean=(0.1307,),
    std=(0.3081,),
    interpolation="bilinear",
    licence=MIT,
    source="https://github.com/researchase/vit-mnist-explorations",
)
"""A sibling of the model of the study that this package began with, trained on the digits of MNIST."""


def lookup(name: str | None) -> Mapping[str, Any] | None:
    """The row of a published name.

    Args:
        name: of timm with its tag, such as `"vit_tiny_patch16_224.augreg_in21k_ft_in1k"`, or of a repository
            of the Hugging Face Hub, such as `"facebook/dinov2-small"`.

    Returns:
        Arguments of `ViT` that tensors cannot tell, `mean`, `std` and `interpolation` of the images,
        `licence`, and `source`, the address of the row; `None` for a name that is not in the table.
    """
    if not name:
        return None
    name = name.removeprefix("timm/")
    for pattern, source, licence, *parts in ROWS:
        if re.fullmatch(pattern, name):
            row = {"interpolation": "bicubic", "licence": licence}
            row["source"] = HUB + name if source == HUB else source
            return {**row, **{key: value for part in parts for key, value in part.items()}}
    return None


def by_shapes(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """The row of a file without a name whose tensors have exactly the names and shapes of a published one."""
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    return MNIST if shapes == _mnist_shapes() else None


@cache
def _mnist_shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of `vit_mnist.pt`: 28x28 gray images, patches of 4, tokens of 64, six blocks, 4 heads of 64."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embedding": (1, 50, 64),
        "cls_token": (1, 1, 64),
        "to_patch_embedding.1.weight": (64, 16),
        "to_patch_embedding.1.bias": (64,),
        "mlp_head.0.weight": (64,),
        "mlp_head.0.bias": (64,),
        "mlp_head.1.weight": (10, 64),
        "mlp_head.1.bias": (10,),
    }
    for i in range(6):
        for branch in (0, 1):
            shapes[f"transformer.layers.{i}.{branch}.norm.weight"] = (64,)
            shapes[f"transformer.layers.{i}.{branch}.norm.bias"] = (64,)
        shapes[f"transformer.layers.{i}.0.fn.to_qkv.weight"] = (768, 64)
        shapes[f"transformer.layers.{i}.0.fn.to_out.0.weight"] = (64, 256)
        shapes[f"transformer.layers.{i}.0.fn.to_out.0.bias"] = (64,)
        shapes[f"transformer.layers.{i}.1.fn.net.0.weight"] = (128, 64)
        shapes[f"transformer.layers.{i}.1.fn.net.0.bias"] = (128,)
        shapes[f"transformer.layers.{i}.1.fn.net.3.weight"] = (64, 128)
        shapes[f"transformer.layers.{i}.1.fn.net.3.bias"] = (64,)
    return shapes


@dataclass(frozen=True)
class Choice:
    """A row of the table of `--init auto`.

    Args:
        source: for `--init`.
        licence: of the weights, as an SPDX name.
        parameters: without the head.
        image_size: side in pixels.
        why: one phrase.
    """

    source: str
    licence: str
    parameters: int
    image_size: int
    why: str


_AUGREG = "augreg_in21k_ft_in1k"
# In the order of preference for a few thousand images on a laptop. Parameters are those of timm 1.0.31.
AUTO: tuple[Choice, ...] = (
    Choice(f"timm:vit_tiny_patch16_224.{_AUGREG}", APACHE, 5_524_416, 224, "the default: small and good"),
    Choice(f"timm:vit_small_patch16_224.{_AUGREG}", APACHE, 21_665_664, 224, "four times as large"),
    Choice("timm:vit_small_patch14_dinov2.lvd142m", APACHE, 22_056_192, 518, "trained without labels"),
    Choice(f"timm:vit_base_patch16_224.{_AUGREG}", APACHE, 85_798_656, 224, "for a GPU"),
)


def auto_table() -> str:
    """The table of `--init auto` as text: one line for each source, the preferred one first."""
    lines = [f"{'source':49}{'licence':12}{'parameters':>12}{'pixels':>8}  note"]
    for row in AUTO:
        lines.append(f"{row.source:49}{row.licence:12}{row.parameters:12,}{row.image_size:8}  {row.why}")
    return "\n".join(lines)
