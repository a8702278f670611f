"""The tensor names of Hugging Face's transformers 4: what `huggingface.py` reads, and what is exported."""

from dataclasses import dataclass

from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.rules import (
    Rule,
    joined,
    linear,
    norm,
    patch_kernel,
    same,
    stacked,
    tokens,
    two_heads,
)


@dataclass(frozen=True)
class Style:
    """Where the parts of a model stand in the names of its kind, without what stands before all of them.

    Args:
        patch, positions, class_token: of the embeddings.
        block: of a block, with the number behind it.
        norms: the two of a block.
        qkv: queries, keys and values of a block.
        projection, expand, contract: the other layers of a block.
        norm: the last one.
    """

    patch: str
    positions: str
    class_token: str
    block: str
    norms: tuple[str, str]
    qkv: tuple[str, str, str]
    projection: str
    expand: str
    contract: str
    norm: str


VIT = Style(
    patch="embeddings.patch_embeddings.projection",
    positions="embeddings.position_embeddings",
    class_token="embeddings.cls_token",
    block="encoder.layer.",
    norms=("layernorm_before", "layernorm_after"),
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    projection="attention.output.dense",
    expand="intermediate.dense",
    contract="output.dense",
    norm="layernorm",
)
DINOV2 = Style(
    patch=VIT.patch,
    positions=VIT.positions,
    class_token=VIT.class_token,
    block=VIT.block,
    norms=("norm1", "norm2"),
    qkv=VIT.qkv,
    projection=VIT.projection,
    expand="mlp.fc1",
    contract="mlp.fc2",
    norm=VIT.norm,
)
GATED = Style(**{**vars(DINOV2), "expand": "mlp.weights_in", "contract": "mlp.weights_out"})
CLIP = Style(
    patch="embeddings.patch_embedding",
    positions="embeddings.position_embedding.weight",
    class_token="embeddings.class_embedding",
    block="encoder.layers.",
    norms=("layer_norm1", "layer_norm2"),
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    projection="self_attn.out_proj",
    expand="mlp.fc1",
    contract="mlp.fc2",
    norm="post_layernorm",
)
SCALES = ("layer_scale1.lambda1", "layer_scale2.lambda1")
DISTILLATION, REGISTERS = "embeddings.distillation_token", "embeddings.register_tokens"


def rules_of(config: ViTConfig, style: Style, before: str = "") -> list[Rule]:
    """The weights of `ViT` and the tensors of transformers 4, in both directions.

    Args:
        config: of the ViT.
        style: the names.
        before: what stands before all names but those of the head, such as `"vit."`.
    """
    c = config
    rules = [patch_kernel("patch_embed/projection/kernel", f"{before}{style.patch}.weight", *_sizes(c))]
    rules += [same("patch_embed/projection/bias", f"{before}{style.patch}.bias")] * c.patch_bias
    first = {
        style.class_token: int(c.use_cls),
        DISTILLATION: int(c.use_distilled),
        REGISTERS: c.num_registers,
    }
    first = {before + name: count for name, count in first.items() if count}
    if first:
        rules.append(tokens("add_cls/tokens", list(first), list(first.values())))
    rules.append(same("position_embedding/table", before + style.positions))
    if c.pre_norm:
        rules += norm("pre_norm", f"{before}pre_layrnorm")
    for i in range(c.depth):
        rules += _block_rules(f"block_{i}", f"{before}{style.block}{i}.", style, c)
    if c.final_norm != "none":
        rules += norm("norm", before + style.norm)
    if c.pooling == "map":
        rules.append(same("pool/probe", f"{before}head.probe"))
        for ours, theirs in (("query", "query"), ("key_value", "key_value"), ("projection", "out_proj")):
            rules += linear(f"pool/{ours}", f"{before}head.attention.{theirs}")
        rules += norm("pool/norm", f"{before}head.layernorm")
        rules += linear("pool/mlp/expand", f"{before}head.mlp.fc1")
        rules += linear("pool/mlp/contract", f"{before}head.mlp.fc2")
    if c.num_classes and c.use_distilled:
        rules += two_heads("head", ("cls_classifier", "distillation_classifier"))
    elif c.num_classes:
        rules += linear("head", "classifier")
    return rules


def _sizes(config: ViTConfig) -> tuple[int, int]:
    return config.image_shape[2], config.patch_size


def _block_rules(ours: str, theirs: str, style: Style, c: ViTConfig) -> list[Rule]:
    qkv = [theirs + name for name in style.qkv]
    rules = norm(f"{ours}/attention_norm", theirs + style.norms[0])
    rules.append(stacked(f"{ours}/attention/qkv/kernel", [f"{name}.weight" for name in qkv]))
    if c.qkv_bias:
        rules.append(joined(f"{ours}/attention/qkv/bias", [f"{name}.bias" for name in qkv]))
    rules += linear(f"{ours}/attention/projection", theirs + style.projection)
    rules += norm(f"{ours}/mlp_norm", theirs + style.norms[1])
    rules += linear(f"{ours}/mlp/expand", theirs + style.expand)
    rules += linear(f"{ours}/mlp/contract", theirs + style.contract)
    if c.layer_scale is not None:
        rules.append(same(f"{ours}/attention_scale/scale", theirs + SCALES[0]))
        rules.append(same(f"{ours}/mlp_scale/scale", theirs + SCALES[1]))
    return rules
