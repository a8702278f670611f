"""Models on the weights of a ViT that return what is inside it."""

from typing import Any

import keras
from keras import layers

EXTRACTS = ("features", "patch_tokens", "feature_map", "attention")


def extractor(vit: Any, what: str) -> keras.Model:
    """See `ViT.extractor`. Each is a functional model: it saves, pickles and can be part of another."""
    if what not in EXTRACTS:
        raise ValueError(f"what must be one of {EXTRACTS}. Received: what={what!r}")
    config = vit.config
    if what == "attention":
        return keras.Model(vit.input, _attentions(vit), name=what)
    if what == "features":
        if config.num_classes == 0:
            return keras.Model(vit.input, vit.output, name=what)
        first_of_head = "head_hidden" if config.head_hidden_dim else "head"
        return keras.Model(vit.input, vit.get_layer(first_of_head).input, name=what)
    tokens = vit.get_layer(f"block_{config.depth - 1}").output[:, config.num_first_tokens :]
    if config.normalises_tokens:
        tokens = vit.get_layer("norm")(tokens)
    if what == "feature_map":
        tokens = layers.Reshape((*config.grid, config.dim), dtype=tokens.dtype, name="map")(tokens)
    return keras.Model(vit.input, tokens, name=what)


def _attentions(vit):
    """The attention of each block."""
    x, attentions = vit.get_layer("block_0").input, []  # b k+n d
    for i in range(vit.config.depth):
        x, attention = WithAttention(vit.get_layer(f"block_{i}"))(x)  # b k+n d, b h k+n k+n
        attentions.append(attention)
    return attentions


@keras.saving.register_keras_serializable(package="keras_vit")
class WithAttention(layers.Layer):
    """A layer, on the same weights, that returns its attention too.

    Keras takes the number of outputs of a layer in a graph from its first call, so the layer itself cannot
    stand in a functional model with and without its attention.

    Args:
        layer: an `EncoderBlock` or a `SelfAttention`, or its serialized form.
    """

    def __init__(self, layer: Any, **kwargs: Any):
        layer = layer if isinstance(layer, layers.Layer) else keras.saving.deserialize_keras_object(layer)
        super().__init__(**{"name": f"{layer.name}_attention", "dtype": layer.dtype_policy, **kwargs})
        self.layer = layer

    def build(self, input_shape):
        if not self.layer.built:
            self.layer.build(input_shape)

    def call(self, x, training=None):
        return self.layer(x, training=training, return_attention=True)

    def compute_output_spec(self, x, training=None):
        return self.layer.compute_output_spec(x, return_attention=True)

    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}
