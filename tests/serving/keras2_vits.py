"""Vision Transformers of Keras 2 with random weights, saved as `.h5` with their logits.

    TF_USE_LEGACY_KERAS=1 python -m tests.serving.keras2_vits FOLDER

writes `images.npy` and, for each of VITS, its logits `NAME.npy`, `NAME_weights.h5` and `NAME_model.h5`.
"""

import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

HEIGHT, WIDTH, CHANNELS, PATCH = 12, 8, 3, 4  # all different, so that none can replace another
CLASSES, DIM, DEPTH, HEADS, MLP = 5, 12, 2, 3, 20
PATCHES = (HEIGHT // PATCH) * (WIDTH // PATCH)


def norm(name=None, epsilon=1e-6):
    return layers.LayerNormalization(epsilon=epsilon, name=name)


class ClassToken(layers.Layer):
    """Adds a first token, like the layer of vit-keras: one weight named `weight_name`."""

    def __init__(self, weight_name="cls", **kwargs):
        super().__init__(**kwargs)
        self.weight_name = weight_name

    def build(self, shape):
        self.token = self.add_weight(self.weight_name, (1, 1, shape[-1]))

    def call(self, x):
        token = tf.broadcast_to(self.token, (tf.shape(x)[0], 1, x.shape[-1]))
        return tf.concat([token, x], axis=1)

    def get_config(self):
        return {**super().get_config(), "weight_name": self.weight_name}


class PositionTable(layers.Layer):
    """Adds a weight named `weight_name`, one row per token."""

    def __init__(self, weight_name="pos_embedding", **kwargs):
        super().__init__(**kwargs)
        self.weight_name = weight_name

    def build(self, shape):
        self.table = self.add_weight(self.weight_name, (1, *shape[1:]))

    def call(self, x):
        return x + self.table

    def get_config(self):
        return {**super().get_config(), "weight_name": self.weight_name}


class PositionEmbedding(layers.Layer):
    """Adds the rows of an Embedding, like the Vision Transformer among the examples of Keras."""

    def build(self, shape):
        self.embedding = layers.Embedding(shape[1], shape[2])

    def call(self, x):
        return x + self.embedding(tf.range(x.shape[1]))


class VitKerasAttention(layers.Layer):
    """Attention with four Dense layers, with the names of vit-keras."""

    def build(self, shape):
        for name in ("query", "key", "value", "out"):
            setattr(self, name, layers.Dense(DIM, name=name))

    def call(self, x):
        by_head = [
            tf.transpose(tf.reshape(dense(x), (-1, x.shape[1], HEADS, DIM // HEADS)), (0, 2, 1, 3))
            for dense in (self.query, self.key, self.value)
        ]
        scores = tf.matmul(by_head[0], by_head[1], transpose_b=True) / np.sqrt(DIM // HEADS)
        out = tf.matmul(tf.nn.softmax(scores), by_head[2])
        return self.out(tf.reshape(tf.transpose(out, (0, 2, 1, 3)), (-1, x.shape[1], DIM)))


class VitKerasBlock(layers.Layer):
    """A block of vit-keras 0.1: the MLP is a separate model, whose layers have the name of the block."""

    def build(self, shape):
        self.attention = VitKerasAttention(name="MultiHeadDotProductAttention_1")
        self.mlp = tf_keras.Sequential(
            [
                layers.Dense(MLP, activation="gelu", name=f"{self.name}/Dense_0"),
                layers.Dense(DIM, name=f"{self.name}/Dense_1"),
            ],
            name="MlpBlock_3",
        )
        self.first, self.second = norm("LayerNorm_0"), norm("LayerNorm_2")

    def call(self, x):
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


def vit_keras(head=True):
    """The structure and the names of vit-keras 0.1 (https://github.com/faustomorales/vit-keras)."""
    images = layers.Input((HEIGHT, WIDTH, CHANNELS))
    x = layers.Conv2D(DIM, PATCH, PATCH, name="embedding")(images)
    x = layers.Reshape((PATCHES, DIM))(x)
    x = ClassToken(name="class_token")(x)
    x = PositionTable(name="Transformer/posembed_input")(x)
    for i in range(DEPTH):
        x = VitKerasBlock(name=f"Transformer/encoderblock_{i}")(x)
    x = norm("Transformer/encoder_norm")(x)[:, 0]
    if head:
        x = layers.Dense(CLASSES, name="head")(x)
    return tf_keras.Model(images, x)


def vit_keras_in_a_model():
    """vit-keras as in fine-tuning: without its head, in another model."""
    return tf_keras.Sequential([vit_keras(head=False), layers.Dense(CLASSES, name="my_head")])


def split(epsilon=1e-6, activation="gelu"):
    """The names of ViT, with MultiHeadAttention, Conv2D and Embedding of Keras."""
    images = layers.Input((HEIGHT, WIDTH, CHANNELS))
    x = layers.Conv2D(DIM, PATCH, PATCH, name="patch_embed")(images)
    x = layers.Reshape((PATCHES, DIM))(x)
    x = ClassToken("tokens", name="add_cls")(x)
    x = PositionEmbedding(name="position_embedding")(x)
    for i in range(DEPTH):
        y = norm(f"block_{i}/attention_norm", epsilon)(x)
        x = x + layers.MultiHeadAttention(HEADS, DIM // HEADS, name=f"block_{i}/attention")(y, y)
        y = norm(f"block_{i}/mlp_norm")(x)
        y = layers.Dense(MLP, activation=activation, name=f"block_{i}/mlp/expand")(y)
        x = x + layers.Dense(DIM, name=f"block_{i}/mlp/contract")(y)
    x = norm("norm")(x)[:, 0]
    return tf_keras.Model(images, layers.Dense(CLASSES, activation="softmax", name="head")(x))


def fused():
    """The names of ViT, one projection to queries, keys and values, head_dim, a conv stem, no class
    token, a hidden layer in the head."""
    head_dim = 5
    images = layers.Input((HEIGHT, WIDTH, CHANNELS))
    x = images
    for i, width in enumerate((DIM // 4, DIM)):
        x = layers.Conv2D(width, 3, 2, "same", use_bias=False, name=f"patch_embed/conv_{i}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"patch_embed/batch_norm_{i}")(x))
    x = layers.Reshape((PATCHES, DIM))(x)
    x = PositionTable("table", name="position_embedding")(x)
    for i in range(DEPTH):
        y = norm(f"block_{i}/attention_norm")(x)
        qkv = layers.Dense(3 * HEADS * head_dim, use_bias=False, name=f"block_{i}/attention/qkv")(y)
        q, k, v = tf.unstack(tf.reshape(qkv, (-1, PATCHES, 3, HEADS, head_dim)), axis=2)
        weights = tf.nn.softmax(tf.einsum("bqhk,bvhk->bhqv", q, k) / np.sqrt(head_dim))
        out = tf.reshape(tf.einsum("bhqv,bvhk->bqhk", weights, v), (-1, PATCHES, HEADS * head_dim))
        x = x + layers.Dense(DIM, name=f"block_{i}/attention/projection")(out)
        y = norm(f"block_{i}/mlp_norm")(x)
        y = layers.Dense(MLP, activation="gelu", name=f"block_{i}/mlp/expand")(y)
        x = x + layers.Dense(DIM, name=f"block_{i}/mlp/contract")(y)
    x = layers.GlobalAveragePooling1D()(norm("norm")(x))
    x = layers.Dense(7, activation="gelu", name="head_hidden")(x)
    return tf_keras.Model(images, layers.Dense(CLASSES, name="head")(x))


class Plain(tf_keras.Model):
    """A model as in a notebook: automatic names of Keras, and a token and positions without layers."""

    def __init__(self):
        super().__init__(name="plain")
        self.token = self.add_weight("cls_token", (DIM,))
        self.positions = self.add_weight("positions", (PATCHES + 1, DIM))
        self.embed, self.head = layers.Dense(DIM), layers.Dense(CLASSES)
        self.blocks = [
            (
                norm(),
                layers.MultiHeadAttention(HEADS, DIM // HEADS),
                norm(),
                layers.Dense(MLP, activation=tf.nn.gelu),
                layers.Dense(DIM),
            )
            for _ in range(DEPTH)
        ]
        self.norm = norm()

    def call(self, images):
        sides = [1, PATCH, PATCH, 1]
        patches = tf.image.extract_patches(images, sides, sides, [1, 1, 1, 1], "VALID")
        x = self.embed(tf.reshape(patches, (-1, PATCHES, PATCH * PATCH * CHANNELS)))
        token = tf.broadcast_to(self.token, (tf.shape(x)[0], 1, DIM))
        x = tf.concat([token, x], axis=1) + self.positions
        for first, attention, second, expand, contract in self.blocks:
            y = first(x)
            x = x + attention(y, y)
            x = x + contract(expand(second(x)))
        return self.head(self.norm(x)[:, 0])


def automatic():
    tf_keras.backend.clear_session()  # the counters in the names start again
    return Plain()


VITS = {
    "vit_keras": vit_keras,
    "vit_keras_in_a_model": vit_keras_in_a_model,
    "split": split,
    "fused": fused,
    "automatic": automatic,
    # These have the shapes of ViT but compute another function.
    "epsilon": lambda: split(epsilon=1e-3),
    "tanh": lambda: split(activation="tanh"),
}


def randomise(model, rng):
    """Replaces initial values of 0 and 1, which a trained model would not have."""
    for weight in model.weights:
        value = rng.normal(0, 0.4, weight.shape)
        ones = any(word in weight.name for word in ("gamma", "moving_variance"))
        weight.assign(np.abs(1 + value) if ones else value)


def main(folder):
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, HEIGHT, WIDTH, CHANNELS)).astype("float32")
    np.save(folder / "images.npy", images)
    for name, make in VITS.items():
        model = make()
        model(images)  # a subclassed model has no weights before its first call
        randomise(model, rng)
        np.save(folder / f"{name}.npy", model(images, training=False).numpy())
        model.save_weights(folder / f"{name}_weights.h5")
        if name != "automatic":  # Keras 2 saves only the weights of a subclassed model
            model.save(folder / f"{name}_model.h5")
        if name == "split":
            model.save_weights(folder / "split.weights.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
