"""The features of an image that the out-of-distribution rejection judges."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

# Added to the standard deviation of the tokens: an image of one gray level has 0, which has no logarithm.
LEAST_CONTRAST = 1e-3


def ood_features(model: "keras.Model") -> "keras.Model":
    """From images to what an `OODDetector` judges them by: a `keras.Model` on the weights of a ViT.

    These are the `Texture` of the image; the mean of the patch tokens after three quarters of the blocks; the
    logarithm of the standard deviation of the patch tokens after the patch embedding, and their mean; the
    means after half of the blocks and after all of them; and the input of the head. The input of the head
    alone keeps what separates the classes and loses what separates steel from grass.

    Detectors of earlier versions judge the last columns, without texture and three quarters.

    Args:
        model: a `ViT`.

    Returns:
        A `keras.Model` from images (batch, height, width, channels) in [-1, 1] to float32 (batch, features);
        `ood_columns` says which is which.
    """
    import keras
    from keras import ops

    from keras_vit.runs.ood_texture import Texture

    def tokens(name):
        return ops.cast(model.get_layer(name).output, "float32")[:, -model.num_patches :]  # b n d

    embedded = tokens("patch_embed")
    texture = Texture(name="texture")(model.input)
    parts = [texture, *(ops.mean(tokens(f"block_{i}"), axis=1) for i in _later(model))]
    parts += [ops.log(ops.std(embedded, axis=1) + LEAST_CONTRAST), ops.mean(embedded, axis=1)]
    parts += [ops.mean(tokens(f"block_{i}"), axis=1) for i in _half_and_last(model)]
    parts.append(ops.cast(model.extractor("features").output, "float32"))
    return keras.Model(model.input, ops.concatenate(parts, axis=-1), name="ood_features")


def _half_and_last(model: "keras.Model") -> list[int]:
    depth = model.get_config()["depth"]
    return sorted({max(depth // 2, 1) - 1, depth - 1})


def _later(model: "keras.Model") -> list[int]:
    """The block at three quarters, where it is another one."""
    block = max(3 * model.get_config()["depth"] // 4, 1) - 1
    return [] if block in _half_and_last(model) else [block]


def ood_columns(model: "keras.Model") -> dict[str, tuple[int, int]]:
    """Which columns of `ood_features` are what: the first, and the one behind the last.

    Returns:
        By name: `"texture"`, `"three quarters"`, `"contrast"`, `"patches"`, `"half"`, `"last"`, `"head"`.
        With few blocks, two of these names are of the same columns.
    """
    from keras_vit.runs.ood_texture import Texture

    dim = model.get_config()["dim"]
    texture = Texture(name="texture").compute_output_shape(model.input.shape)[-1]
    blocks = _half_and_last(model)
    widths = {
        "texture": texture,
        **dict.fromkeys(["three quarters"] * len(_later(model)), dim),
        "contrast": dim,
        "patches": dim,
        "half": dim,
        **dict.fromkeys(["last"] * (len(blocks) - 1), dim),
        "head": model.extractor("features").output.shape[-1],
    }
    found, start = {}, 0
    for name, width in widths.items():
        found[name] = (start, start + width)
        start += width
    found.setdefault("last", found["half"])
    found.setdefault("three quarters", found["last"])
    return found
