from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import keras
from keras import layers

from keras_vit.allocator import keep_freed_memory
from keras_vit.errors import InputError
from keras_vit.model.arguments import PARTS, check_names, whole_arguments
from keras_vit.model.compiled_step import CompiledStepModel
from keras_vit.model.config import ViTConfig, options_of, variant_arguments
from keras_vit.model.extractor import extractor
from keras_vit.model.head import FIRST_TOKENS, LAST, head, of_head, pool, pooled_tokens
from keras_vit.model.keras_file import name_as_registered
from keras_vit.model.layers import AddCLS, EncoderBlock, PatchEmbed, PositionEmbedding
from keras_vit.model.layers.base import policy_of
from keras_vit.model.layers.dropout import Dropout
from keras_vit.model.layers.parts import parts_of, resolve_policies, set_part, set_parts
from keras_vit.model.layers.patch_embed import resize_patch_kernel
from keras_vit.model.layers.position_embedding import resize_position_table
from keras_vit.model.random_stream import keeps_python_random
from keras_vit.model.weights.adapt import FREE, adapt
from keras_vit.model.weights.read import read_weights
from keras_vit.model.weights.weights import Weights
from keras_vit.validation import helps, hints

# Again, for who chooses the backend after `import keras_vit`: before JAX starts its threads.
keep_freed_memory(keras.backend.backend())


@keras.saving.register_keras_serializable(package="keras_vit")
class ViT(CompiledStepModel):
    """A Vision Transformer that classifies images: a functional `keras.Model` that returns logits.

    Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929); the papers of the options stand at the layers.

    Args:
        image_shape, num_classes, ..., remat: the fields of `keras_vit.model.config.ViTConfig`.
        name: of the model.
        dtype: a dtype policy or its name, such as `"mixed_bfloat16"`; by default the global policy. The
            logits are float32, unless a `keras.dtype_policies.DTypePolicyMap` names a policy for `"head"`.
        trainable: whether training changes the weights.

    Input shape:
        `(batch, height, width, channels)`, pixels in [-1, 1].

    Output shape:
        `(batch, num_classes)`.

    Raises:
        TypeError: an argument is not known; the message names the nearest one.
        ValueError: an argument is not one of the allowed values, or sizes do not divide.

    Example:
        >>> model = ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6)
        >>> model.count_params()
        508166
    """

    @keeps_python_random
    def __init__(self, *args: Any, **kwargs: Any):
        parts = kwargs.pop(PARTS, None) or {}
        config, name, given_dtype, trainable = _bind(*args, **kwargs)
        dtype = policy_of(given_dtype)
        norm_options = dict(epsilon=config.norm_epsilon, dtype=dtype)

        def new(layer):  # before it is built
            set_part(layer, layer.name, parts)
            return layer

        images = keras.Input(config.image_shape, name="images")  # b h w c
        patches = PatchEmbed(**options_of(PatchEmbed, config), **LAST, dtype=dtype, name="patch_embed")
        x = new(patches)(images)  # b n d
        if config.num_first_tokens:
            x = new(AddCLS(**options_of(AddCLS, config), dtype=dtype, name="add_cls"))(x)  # b k+n d
        positions = PositionEmbedding(
            **options_of(PositionEmbedding, config),
            kind=config.position,
            dtype=dtype,
            name="position_embedding",
        )
        x = new(positions)(x)
        x = new(Dropout(config.dropout_rate, dtype=dtype, name="embedding_dropout"))(x)
        if config.pre_norm:
            x = new(layers.LayerNormalization(**norm_options, name="pre_norm"))(x)
        for i in range(config.depth):
            options = options_of(EncoderBlock, config)
            # Stochastic depth grows linearly from 0 at the first block.
            options["drop_path_rate"] *= i / max(config.depth - 1, 1)
            block, before = new(EncoderBlock(**options, dtype=dtype, name=f"block_{i}")), x
            x = block(before)  # b k+n d
        if config.pooling in FIRST_TOKENS:
            # The last block again, for the tokens that are used alone; its `output` stays that of all tokens,
            # which is not computed unless another model asks for it.
            x = block(before, first=FIRST_TOKENS[config.pooling])  # b 1 d, or b 2 d
        x = pooled_tokens(x, config)
        # LayerNorm works on each token by itself: it is enough to normalise those that are used.
        if config.final_norm == "tokens":
            x = new(layers.LayerNormalization(**norm_options, name="norm"))(x)
        x = pool(x, config, dtype, new)  # b d, or b 2d
        if config.final_norm == "pooled":
            x = new(layers.LayerNormalization(**norm_options, name="norm"))(x)
        if config.num_classes == 0:
            x = layers.Activation("linear", dtype=of_head(dtype), name="features")(x)
        else:
            x = head(x, config, dtype, new)  # b classes
        super().__init__(inputs=images, outputs=x, name=name)
        self._vit_config = config
        self.pretrained: Weights | None = None
        if given_dtype is not None:
            self.dtype_policy = dtype
        if not trainable:
            self.trainable = False
        resolve_policies(self)
        set_parts(self, parts)  # what needs layers that are built, and flags that differ from the model's

    @classmethod
    def from_variant(
        cls, variant: str, *, image_shape: Sequence[int], num_classes: int, **arguments: Any
    ) -> ViT:
        """The ViT of a named size.

        Args:
            variant: such as `"B/16"` or `"defect-conv/4"`, see `keras_vit.model.config`.
            image_shape: (height, width, channels).
            num_classes: number of logits.
            **arguments: any argument of `ViT`, in place of that of the size.

        Raises:
            InputError: there is no such size.
        """
        return cls(
            image_shape=image_shape, num_classes=num_classes, **{**variant_arguments(variant), **arguments}
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        image_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        *,
        name: str = "vit",
        dtype: Any = None,
        **arguments: Any,
    ) -> ViT:
        """A ViT with published weights; the architecture is read from the file.

        Positions, patches, channels and the head are adapted, see `keras_vit.model.weights.adapt.adapt`. What
        the weights are, the normalisation of images that they need, and what was converted, is in
        `model.pretrained`, a `keras_vit.model.weights.weights.Weights` without the arrays.

        Args:
            source: a file (safetensors, torch, Google's `.npz`, KerasHub, `.keras`), a folder with
                `config.json`, a run folder, `"timm:NAME"`, or `"hf:REPO"` or `"hf:REPO@REVISION"`.
            image_shape: (height, width, channels); by default that of the weights.
            num_classes: by default that of the weights. Another number gives a new head, which begins with
                zeros; 0 gives none, and the model returns what the head would see.
            name: of the model.
            dtype: as in `ViT`.
            **arguments: what the file does not tell (`num_heads`, `activation`, `norm_epsilon`, `mean`,
                `std`, ...), and arguments of `ViT` that do not come from weights: `drop_path_rate` and the
                other rates, `remat`, `patch_size`, `pooling`.

        Raises:
            InputError: the source cannot be had, is damaged or is not of a ViT; or an argument is lacking or
                contradicts it.

        Example:
            >>> model = ViT.from_pretrained("vit_tiny_patch16_224.safetensors", num_classes=6)
            >>> model.pretrained.mean
            (0.5, 0.5, 0.5)
        """
        arguments = whole_arguments(arguments, hints(ViTConfig))
        given = whole_arguments({"image_shape": image_shape, "num_classes": num_classes}, hints(ViTConfig))
        changes = {key: value for key, value in arguments.items() if key in FREE}
        told = {key: value for key, value in arguments.items() if key not in FREE or key == "pooling"}
        weights = adapt(read_weights(source, **told), **given, changes=changes)
        return cls.from_weights(weights, name=name, dtype=dtype)

    @classmethod
    def from_weights(cls, weights: Weights, name: str = "vit", dtype: Any = None) -> ViT:
        """A ViT of the architecture of published weights, with their values.

        Args:
            weights: of `read_weights` or `adapt`. Weights of the model that these lack keep their first
                values.
            name: of the model.
            dtype: as in `ViT`.

        Raises:
            InputError: an array has another shape than its weight, or there is no such weight.
        """
        config = {field.name: getattr(weights.config, field.name) for field in _config_fields()}
        model = cls(**config, name=name, dtype=dtype)
        load_arrays(model, weights.arrays, weights.origin.source)
        model.pretrained = dataclasses.replace(weights, arrays={})
        return model

    def call(self, inputs, training=None, mask=None, **kwargs):
        # Keras checks the input of a model that is called, but its trainer for JAX does not call it.
        given = tuple(getattr(inputs, "shape", ()))[1:]
        if len(given) == 3 and any(
            isinstance(size, int) and size != own for size, own in zip(given, self.image_shape, strict=True)
        ):
            raise InputError(
                f"{self.name} is made for images of {self.image_shape}; resized(image_shape) gives a model "
                f"for others. Received: images of {given}"
            )
        return super().call(inputs, training=training, mask=mask, **kwargs)

    @property
    def config(self) -> ViTConfig:
        """What the model was made from, with the default of mlp_dim filled in."""
        return self._vit_config

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.config.image_shape

    @property
    def num_patches(self) -> int:
        """Number of patches per image."""
        rows, columns = self.config.grid
        return rows * columns

    def extractor(self, what: str) -> keras.Model:
        """A model on the same weights that returns what is inside the ViT.

        Args:
            what: `"features"`, (batch, dim): what the head sees, of width `2 * dim` if the pooling puts two
                vectors side by side; `"patch_tokens"`, (batch, patches, dim): the tokens of the patches, row
                by row, normalised by the last layer normalisation if it is one of tokens; `"feature_map"`,
                the same as (batch, rows, columns, dim); `"attention"`, a list of one
                (batch, heads, tokens, tokens) per block, computed step by step in place of the fused path.

        Returns:
            A functional `keras.Model` from images.
        """
        return extractor(self, what)

    def resized(self, image_shape: Sequence[int], patch_size: int | None = None) -> Self:
        """A new model of this class for another image or patch size, with the weights of this one.

        Learned positions are resized bicubically, a linear patch projection by PI-resize; the other weights
        are copied, those of the class token's position too.

        Args:
            image_shape: (height, width, channels) of the new model; the channels stay.
            patch_size: of the new model; `None` keeps it. It cannot change with a conv stem or `patch_norm`.

        Raises:
            ValueError: other channels, or another patch size where it cannot change.
        """
        old = self.config
        wanted = whole_arguments({"image_shape": image_shape, "patch_size": patch_size}, hints(ViTConfig))
        image_shape, patch_size = wanted["image_shape"], wanted["patch_size"] or old.patch_size
        if image_shape[2] != old.image_shape[2]:
            raise ValueError(
                f"The channels must stay {old.image_shape[2]}. Received: image_shape={image_shape}"
            )
        if old.stem != "linear" and patch_size != old.patch_size:
            raise ValueError(
                f"A conv stem is made for its patch_size={old.patch_size}. Received: {patch_size}"
            )
        if old.patch_norm and patch_size != old.patch_size:
            raise ValueError(
                "patch_norm=True normalises the pixels of a patch, so the weights are made for "
                f"patch_size={old.patch_size}. Received: {patch_size}"
            )
        embed = self.get_layer("patch_embed")
        if patch_size != old.patch_size and parts_of(embed).get("projection", {}).keys() - {"trainable"}:
            raise ValueError(
                "The patch embedding is quantized or has LoRA: resize the model before that. "
                f"Received: patch_size={patch_size}"
            )
        changes = {"image_shape": tuple(image_shape), "patch_size": patch_size}
        new = type(self).from_config({**self.get_config(), **changes})  # a subclass stays one
        for layer in self.layers:
            weights = layer.get_weights()
            if layer.name == "position_embedding" and layer.kind == "learned":
                grid = new.get_layer(layer.name).grid
                weights = [resize_position_table(weights[0], layer.grid, grid, layer.num_first_rows)]
            elif layer.name == "patch_embed" and patch_size != old.patch_size:
                kernel, *bias = weights
                weights = [resize_patch_kernel(kernel, old.patch_size, image_shape[2], patch_size), *bias]
            new.get_layer(layer.name).set_weights(weights)
        return new

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        super().save(filepath, overwrite, zipped, **kwargs)
        name_as_registered(filepath, type(self))

    def export(self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs):
        if format == "tf_saved_model" and keras.backend.backend() == "torch":
            # Keras's own export fails there, for a Dense layer too.
            raise InputError(
                "Keras does not export a SavedModel on the torch backend: save the model to a .keras file, "
                "load it in a process with KERAS_BACKEND=tensorflow, and call export there."
            )
        super().export(filepath, format, verbose, input_signature, **kwargs)

    def get_config(self):
        policy, parts = self.dtype_policy, parts_of(self)
        is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
        return {
            **dataclasses.asdict(self.config),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(policy) if is_map else policy.name,
            "trainable": self.trainable,
            **({PARTS: parts} if parts else {}),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def load_arrays(model: keras.Model, arrays: Mapping[str, Any], source: str) -> None:
    """Sets weights of a model by their paths, all or none.

    Args:
        model: a built model.
        arrays: by `weight.path`.
        source: of the arrays, for messages.

    Raises:
        InputError: an array has another shape than its weight, or there is no such weight.
    """
    weights = {weight.path: weight for weight in model.weights}
    for path, array in arrays.items():
        shape = tuple(weights[path].shape) if path in weights else None
        if shape != tuple(array.shape):
            wanted = f"needs {shape}" if shape else "is no weight of such a model"
            raise InputError(f"{source}: {path} is {tuple(array.shape)}, which {wanted}.")
    for path, array in arrays.items():
        weights[path].assign(array)


# `ViT` takes the fields of `ViTConfig`, in their order, and then what every model takes: one list of them.


def _config_fields() -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(ViTConfig)  # type: ignore[arg-type]


def _signature() -> inspect.Signature:
    parameter = inspect.Parameter
    fields = [
        parameter(
            field.name,
            parameter.POSITIONAL_OR_KEYWORD,
            default=parameter.empty if field.default is dataclasses.MISSING else field.default,
        )
        for field in _config_fields()
    ]
    return inspect.Signature(
        [
            parameter("self", parameter.POSITIONAL_OR_KEYWORD),
            *fields,
            parameter("name", parameter.POSITIONAL_OR_KEYWORD, default="vit"),
            parameter("dtype", parameter.POSITIONAL_OR_KEYWORD, default=None),
            parameter("kwargs", parameter.VAR_KEYWORD),
        ]
    )


def _bind(*args: Any, **kwargs: Any) -> tuple[ViTConfig, str, Any, bool]:
    """Arguments of `ViT` as the config, the name, the dtype and `trainable`."""
    check_names(ViT, kwargs, ("trainable",))  # Keras's functional model would ignore them
    bound = SIGNATURE.bind(None, *args, **kwargs)
    bound.apply_defaults()
    _, *values, name, dtype, others = bound.arguments.values()
    trainable = others.get("trainable", True)
    if not isinstance(trainable, bool):
        raise InputError(f"trainable must be true or false. Received: trainable={trainable!r}")
    names = [field.name for field in _config_fields()]
    given = whole_arguments(dict(zip(names, values, strict=True)), hints(ViTConfig))
    if isinstance(given["image_shape"], list):
        given["image_shape"] = tuple(given["image_shape"])
    config = ViTConfig(**given)
    return dataclasses.replace(config, mlp_dim=config.mlp_width), name, dtype, trainable


def _documented(doc: str, lines: Mapping[str, str]) -> str:
    """The docstring of `ViT` with the help of each field of the config, in place of the pointer to them."""
    pointer = next(line for line in doc.splitlines() if line.lstrip().startswith("image_shape, "))
    wrap = textwrap.TextWrapper(110, initial_indent=" " * 8, subsequent_indent=" " * 12)
    return doc.replace(pointer, "\n".join(wrap.fill(f"{name}: {text}.") for name, text in lines.items()))


SIGNATURE = _signature()
ViT.__init__.__signature__ = SIGNATURE  # type: ignore[attr-defined]
if ViT.__doc__:  # Python drops it with -OO
    ViT.__doc__ = _documented(ViT.__doc__, helps(ViTConfig))
