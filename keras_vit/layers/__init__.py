"""The Keras layers of a Vision Transformer, one a file."""

from keras_vit.layers.add_cls import AddCLS
from keras_vit.layers.attention_pool import AttentionPool
from keras_vit.layers.encoder_block import EncoderBlock
from keras_vit.layers.mlp import MLP
from keras_vit.layers.patch_embed import PatchEmbed
from keras_vit.layers.position_embedding import PositionEmbedding
from keras_vit.layers.self_attention import SelfAttention

__all__ = [
    "MLP",
    "AddCLS",
    "AttentionPool",
    "EncoderBlock",
    "PatchEmbed",
    "PositionEmbedding",
    "SelfAttention",
]
