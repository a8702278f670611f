"""The features of an image that the out-of-distribution rejection judges."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

# Added to the standard deviation of the tokens: an image of one gray level has 0, which has no logarithm.
LEAST_CONTRAST = 1e-3


def ood_features(model: "keras.Model") -> "keras.Model":
    """From images to what an `OODDetector` judges them by: a `keras.Model` on the weights of a ViT.

    These are the mean and the logarithm of the standard deviation of the patch tokens after the patch
    embedding, the means of the patch tokens after half of the blocks and after all of them, and the input of
    the head. The input of the head alone keeps what separates the classes and loses what separates steel from
    grass.

    Args:
        model: a `ViT`.

    Returns:
        A `keras.Model` from images (batch, height, width, channels) in [-1, 1] to float32 (batch, features),
        4 or 5 times the width of a token.
    """
    import keras
    from keras import ops

    depth, patches = model.get_config()["depth"], model.num_patches
    names = ["patch_embed", *(f"block_{i}" for i in sorted({max(depth // 2, 1) - 1, depth - 1}))]
    tokens = [ops.cast(model.get_layer(name).output, "float32")[:, -patches:] for name in names]  # b n d
    contrast = ops.log(ops.std(tokens[0], axis=1) + LEAST_CONTRAST)  # b d
    head = ops.cast(model.extractor("features").output, "float32")  # b d
    parts = [contrast, *(ops.mean(x, axis=1) for x in tokens), head]
    return keras.Model(model.input, ops.concatenate(parts, axis=-1), name="ood_features")
