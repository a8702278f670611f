"""The forward pass of a ViT with the attention of each block, which a gradient can be taken of."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_vit.explain.gradients import compiled_on_jax, gradient_of
from keras_vit.model.head import head, pool, pooled_tokens

if TYPE_CHECKING:
    from keras_vit.model.vit import ViT


class Inside:
    """The forward pass of a ViT, block by block, without dropout.

    Training and prediction use the fused attention; this pass computes the attention step by step, on the
    same layers and weights.

    Args:
        vit: a `ViT`.
    """

    def __init__(self, vit: "ViT"):
        self.vit = vit
        self.config = vit.config
        self.blocks = [vit.get_layer(f"block_{i}") for i in range(self.config.depth)]
        self._embed = keras.Model(vit.input, self.blocks[0].input)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each attention for one image: of the blocks, then of the pool if that has one."""
        config = self.config
        rows, columns = config.grid
        patches = rows * columns
        tokens = config.num_first_tokens + patches
        shapes: list[tuple[int, ...]] = [(config.num_heads, tokens, tokens)] * config.depth
        return [*shapes, (config.num_heads, patches)] if config.pooling == "map" else shapes

    @property
    def default_block(self) -> int | None:
        """The last block, or `None` for attention pooling."""
        return None if self.config.pooling == "map" else self.config.depth - 1

    def __call__(self, images: Any, changes: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """The logits and the attentions.

        Args:
            images: (batch, height, width, channels), scaled for the model.
            changes: added to the attentions, one per item of `shapes`, each with the batch before it.

        Returns:
            The logits, (batch, classes), and one attention per item of `shapes`, float32.
        """
        config = self.config
        changes = changes or [None] * len(self.shapes)
        x, attentions = self._embed(images, training=False), []
        for block, change in zip(self.blocks, changes, strict=False):  # the last one may be of the pool
            x, attention = block(x, training=False, return_attention=True, attention_change=change)
            attentions.append(attention)
        x = pooled_tokens(x, config)
        if config.final_norm == "tokens":
            x = self.vit.get_layer("norm")(x)
        if config.pooling == "map":
            x, attention = self.vit.get_layer("pool")(x, return_attention=True, attention_change=changes[-1])
            attentions.append(attention)
        else:
            x = pool(x, config, self.vit.dtype_policy, self._own)
        if config.final_norm == "pooled":
            x = self.vit.get_layer("norm")(x)
        return head(x, config, self.vit.dtype_policy, self._own), attentions

    @cached_property
    def compiled(self) -> Callable[..., tuple[Any, list[Any]]]:
        """The call as one program on JAX: for images whose shape comes again."""
        return compiled_on_jax(self, self.vit.variables)

    @cached_property
    def with_slopes(self) -> Callable[..., tuple[list[Any], list[Any]]]:
        """The call and the gradient of one logit of each image with respect to the attentions.

        A function from `changes` and `[images, chosen]`, where chosen is one-hot (batch, classes), to the
        gradients, one per item of `shapes`, and to `[logits, *attentions]`; all arrays.
        """

        def score(changes, others):
            images, chosen = others
            logits, attentions = self(images, changes)
            return ops.sum(logits * ops.cast(chosen, logits.dtype)), [logits, *attentions]

        return gradient_of(score, self.vit.variables)

    def _own(self, layer: Any) -> Any:
        """The layer of the model in place of a new one of the same name."""
        return self.vit.get_layer(layer.name)
