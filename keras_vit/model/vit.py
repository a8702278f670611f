import keras
from keras import layers

from keras_vit.distribution.model import DistributedModel
from keras_vit.model.config import variant_arguments
from keras_vit.model.layers import AddCLS, AttentionPool, EncoderBlock, PatchEmbed, PositionEmbedding
from keras_vit.model.layers.dropout import Dropout
from keras_vit.model.layers.encoder_block import NORM_EPSILON
from keras_vit.model.layers.mlp import gelu
from keras_vit.model.layers.patch_embed import resize_patch_kernel
from keras_vit.model.layers.position_embedding import resize_position_table

POOLINGS = ("token", "gap", "map")
EXTRACTS = ("features", "patch_tokens", "attention")


@keras.saving.register_keras_serializable(package="keras_vit")
class ViT(DistributedModel):
    """A Vision Transformer that classifies images: a functional `keras.Model` that returns logits.

    Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929); the options are described at the layers.

    Args:
        image_shape: (height, width, channels); patch_size divides height and width.
        num_classes: how many logits.
        patch_size: side of a patch in pixels.
        dim: width of a token.
        depth: number of encoder blocks.
        num_heads: attention heads a block.
        mlp_dim: width of a block's MLP; `None` means `4 * dim`.
        head_dim: width of an attention head; `None` means `dim // num_heads`.
        stem: `"linear"` or `"conv"`, see `PatchEmbed`.
        num_registers: register tokens, see `AddCLS`.
        position: `"learned"` or `"sincos2d"`, see `PositionEmbedding`.
        pooling: what the head sees. `"token"`: the class token; `"gap"`: the mean of the patch tokens;
            `"map"`: attention pooling, see `AttentionPool`. Only `"token"` has a class token.
        head_hidden_dim: width of a hidden GELU layer in the head; `None` for a linear head.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        qk_norm: whether queries and keys are normalised, see `SelfAttention`.
        activation: `"gelu"` or `"swiglu"`, see `MLP`.
        dropout_rate: dropout on the embedded tokens, on the branches of the blocks, and in the head.
        attention_dropout_rate: dropout on the attention; above 0 it turns fused attention off in training.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first.
        layer_scale: first value of LayerScale, or `None`.
        remat: whether blocks are computed again in the backward pass to save memory.

    Input shape:
        `(batch, height, width, channels)`, pixels in [-1, 1].

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: an argument is none of the allowed values, or sizes do not divide.

    Example:
        >>> model = ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6)
        >>> model.count_params()
        508166
    """

    def __init__(
        self,
        image_shape,
        num_classes,
        patch_size,
        dim,
        depth,
        num_heads,
        mlp_dim=None,
        head_dim=None,
        stem="linear",
        num_registers=0,
        position="learned",
        pooling="token",
        head_hidden_dim=None,
        qkv_bias=True,
        qk_norm=False,
        activation="gelu",
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_scale=None,
        remat=False,
        name="vit",
        dtype=None,
        **kwargs,
    ):
        if len(image_shape) != 3:
            raise ValueError(
                f"image_shape must be (height, width, channels). Received: image_shape={image_shape}"
            )
        if pooling not in POOLINGS:
            raise ValueError(f'pooling must be "token", "gap" or "map". Received: pooling={pooling!r}')
        if num_classes < 1 or depth < 1:
            raise ValueError(
                f"num_classes and depth must be 1 or more. Received: num_classes={num_classes}, depth={depth}"
            )
        dtype = keras.DTypePolicy(dtype) if isinstance(dtype, str) else dtype or keras.config.dtype_policy()
        mlp_dim = mlp_dim or 4 * dim
        use_cls = pooling == "token"
        num_first = int(use_cls) + num_registers

        images = keras.Input(tuple(image_shape), name="images")
        patch_embed = PatchEmbed(dim, patch_size, stem=stem, dtype=dtype, name="patch_embed")
        x = patch_embed(images)  # b n d
        if use_cls or num_registers:
            x = AddCLS(use_cls, num_registers, dtype=dtype, name="add_cls")(x)  # b k+n d
        x = PositionEmbedding(
            patch_embed.grid, position, use_cls, num_registers, dtype=dtype, name="position_embedding"
        )(x)
        x = Dropout(dropout_rate, dtype=dtype, name="embedding_dropout")(x)
        for i in range(depth):
            x = EncoderBlock(
                num_heads,
                mlp_dim,
                head_dim=head_dim,
                qkv_bias=qkv_bias,
                qk_norm=qk_norm,
                activation=activation,
                dropout_rate=dropout_rate,
                attention_dropout_rate=attention_dropout_rate,
                drop_path_rate=drop_path_rate * i / max(depth - 1, 1),
                layer_scale=layer_scale,
                remat=remat,
                dtype=dtype,
                name=f"block_{i}",
            )(x)
        norm = layers.LayerNormalization(epsilon=NORM_EPSILON, dtype=dtype, name="norm")
        if pooling == "token":
            # LayerNorm works on each token alone: to normalise the one that is used is enough.
            x = norm(x[:, 0])  # b d
        elif pooling == "gap":
            x = layers.GlobalAveragePooling1D(dtype=dtype, name="pool")(norm(x[:, num_first:]))
        else:
            x = AttentionPool(num_heads, mlp_dim, dtype=dtype, name="pool")(norm(x[:, num_first:]))
        if head_hidden_dim:
            x = layers.Dense(head_hidden_dim, dtype=dtype, name="head_hidden")(x)
            x = layers.Activation(gelu, dtype=dtype, name="head_gelu")(x)
            x = Dropout(dropout_rate, dtype=dtype, name="head_dropout")(x)
        # Half-precision logits make the loss overflow.
        logits = layers.Dense(num_classes, dtype="float32", name="head")(x)  # b classes
        super().__init__(inputs=images, outputs=logits, name=name, **kwargs)
        self._config = dict(
            image_shape=tuple(image_shape),
            num_classes=num_classes,
            patch_size=patch_size,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            head_dim=head_dim,
            stem=stem,
            num_registers=num_registers,
            position=position,
            pooling=pooling,
            head_hidden_dim=head_hidden_dim,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            activation=activation,
            dropout_rate=dropout_rate,
            attention_dropout_rate=attention_dropout_rate,
            drop_path_rate=drop_path_rate,
            layer_scale=layer_scale,
            remat=remat,
            name=name,
            dtype=dtype.name,
        )

    @classmethod
    def from_variant(cls, variant, *, image_shape, num_classes, **arguments):
        """The ViT of a named size.

        Args:
            variant: such as `"B/16"` or `"defect-conv/4"`, see `keras_vit.model.config`.
            image_shape: (height, width, channels).
            num_classes: how many logits.
            **arguments: any argument of `ViT`, in place of the size's own.

        Raises:
            InputError: no such size.
        """
        return cls(
            image_shape=image_shape, num_classes=num_classes, **{**variant_arguments(variant), **arguments}
        )

    @property
    def image_shape(self):
        return self._config["image_shape"]

    def extractor(self, what):
        """A model on the same weights that returns what the head does not show.

        Args:
            what: `"features"`, (batch, dim): what the head sees; `"patch_tokens"`, (batch, patches, dim):
                the normalised tokens of the patches, row by row; `"attention"`, a list of one
                (batch, heads, tokens, tokens) a block, computed step by step in place of the fused path.

        Returns:
            A `keras.Model` from images.
        """
        if what not in EXTRACTS:
            raise ValueError(f"what must be one of {EXTRACTS}. Received: what={what!r}")
        blocks = [self.get_layer(f"block_{i}") for i in range(self._config["depth"])]
        if what == "features":
            first_of_head = "head_hidden" if self._config["head_hidden_dim"] else "head"
            return keras.Model(self.input, self.get_layer(first_of_head).input, name="features")
        if what == "patch_tokens":
            tokens = self.get_layer("norm")(blocks[-1].output)
            num_first = tokens.shape[1] - self.num_patches
            return keras.Model(self.input, tokens[:, num_first:], name="patch_tokens")
        return AttentionExtractor(keras.Model(self.input, blocks[0].input), blocks)

    @property
    def num_patches(self):
        height, width, _ = self._config["image_shape"]
        return (height // self._config["patch_size"]) * (width // self._config["patch_size"])

    def resized(self, image_shape, patch_size=None):
        """A new model for another image or patch size, with this one's weights.

        Learned positions are resized bicubically, a linear patch projection by PI-resize; the other weights
        are copied.

        Args:
            image_shape: (height, width, channels) of the new model; the channels stay.
            patch_size: of the new model; `None` keeps it. A conv stem cannot change it.

        Raises:
            ValueError: other channels, or another patch size with a conv stem.
        """
        old = self._config
        patch_size = patch_size or old["patch_size"]
        if image_shape[2] != old["image_shape"][2]:
            raise ValueError(
                f"The channels must stay {old['image_shape'][2]}. Received: image_shape={image_shape}"
            )
        if old["stem"] == "conv" and patch_size != old["patch_size"]:
            raise ValueError(
                f"A conv stem is made for its patch_size={old['patch_size']}. Received: {patch_size}"
            )
        new = ViT(**{**old, "image_shape": tuple(image_shape), "patch_size": patch_size})
        for layer in self.layers:
            weights = layer.get_weights()
            if layer.name == "position_embedding" and layer.kind == "learned":
                grid = new.get_layer(layer.name).grid
                weights = [resize_position_table(weights[0], layer.grid, grid, int(layer.use_cls))]
            elif layer.name == "patch_embed" and layer.stem == "linear":
                kernel, bias = weights
                weights = [
                    resize_patch_kernel(kernel, old["patch_size"], image_shape[2], patch_size),
                    bias,
                ]
            new.get_layer(layer.name).set_weights(weights)
        return new

    def get_config(self):
        return dict(self._config)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


class AttentionExtractor(keras.Model):
    """From images to the attention of each block: what `ViT.extractor("attention")` returns.

    Not a functional model, since one layer cannot stand in the graph with and without its attention.
    """

    def __init__(self, embed, blocks):
        super().__init__(name="attention")
        self.embed = embed
        self.blocks = blocks

    def call(self, images):
        x, attentions = self.embed(images), []  # b n d
        for block in self.blocks:
            x, attention = block.attend(x)  # b n d, b h n n
            attentions.append(attention)
        return attentions
