"""The Keras layers of a Vision Transformer, one per file."""

from keras_vit.model.layers.add_cls import AddCLS
from keras_vit.model.layers.attention_pool import AttentionPool
from keras_vit.model.layers.encoder_block import EncoderBlock
from keras_vit.model.layers.layer_scale import LayerScale
from keras_vit.model.layers.mean_pool import MeanPool
from keras_vit.model.layers.mlp import MLP
from keras_vit.model.layers.patch_embed import PatchEmbed
from keras_vit.model.layers.position_embedding import PositionEmbedding
from keras_vit.model.layers.self_attention import SelfAttention
from keras_vit.model.layers.token_pool import TokenPool

__all__ = [
    "MLP",
    "AddCLS",
    "AttentionPool",
    "EncoderBlock",
    "LayerScale",
    "MeanPool",
    "PatchEmbed",
    "PositionEmbedding",
    "SelfAttention",
    "TokenPool",
]
