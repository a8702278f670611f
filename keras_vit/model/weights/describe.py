"""What published weights are, in words and as JSON: what `keras-vit weights` prints."""

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from keras_vit.model.config import CHANGEABLE, SIZES, ViTConfig
from keras_vit.model.cost import count_parameters
from keras_vit.model.weights.weights import Weights

WITHOUT_EFFECT = ("dropout_rate", "attention_dropout_rate", "drop_path_rate", "remat")
"""Arguments that are of a training, not of its weights."""

MEASURES = ("dim", "depth", "num_heads", "mlp_dim", "head_dim", "stem")
"""Arguments by which a model has a named size."""

SHOWN = 6
"""How many names of a long list are printed."""


def to_dict(weights: Weights) -> dict[str, Any]:
    """Everything but the arrays, ready for JSON."""
    config, origin = weights.config, weights.origin
    return {
        "source": origin.source,
        "family": weights.family,
        "architecture": architecture(config),
        "config": {
            name: value
            for name, value in dataclasses.asdict(config).items()  # type: ignore[call-overload]
            if name not in WITHOUT_EFFECT
        },
        "parameters": count_parameters(config),
        "image_shape": list(config.image_shape),
        "num_classes": config.num_classes,
        "class_names": None if weights.class_names is None else list(weights.class_names),
        "mean": list(weights.mean),
        "std": list(weights.std),
        "interpolation": weights.interpolation,
        "told_by": dict(weights.told_by),
        "licence": origin.licence,
        "revision": origin.revision,
        "sha256": origin.sha256,
        "files": [str(path) for path in origin.files],
        "unused": list(weights.unused),
        "new": list(weights.new),
        "notes": list(weights.notes),
    }


def to_text(weights: Weights) -> str:
    """Everything but the arrays, one thing on each line."""
    config, origin = weights.config, weights.origin
    height, width, channels = config.image_shape
    told: dict[str, list[str]] = {}
    for name, who in weights.told_by.items():
        told.setdefault(who, []).append(name)
    rows: list[tuple[str, str]] = [
        ("source", origin.source),
        ("family", weights.family),
        ("architecture", architecture(config)),
        ("parameters", f"{count_parameters(config):,}"),
        ("images", f"{height} x {width} x {channels}, resized by {weights.interpolation} interpolation"),
        ("pixels", f"in 0..1, less {_numbers(weights.mean)}, divided by {_numbers(weights.std)}"),
        ("classes", _classes(weights)),
        *(("told by", f"{who}: {_with_values(names, weights)}") for who, names in told.items()),
        ("licence", origin.licence or "the source does not say"),
        *((("revision", origin.revision),) if origin.revision else ()),
        ("sha256", origin.sha256),
        ("unused", _some(weights.unused)),
        ("new", _some(weights.new)),
        *(("note", note) for note in weights.notes),
    ]
    column = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        textwrap.fill(
            f"{name:{column}}{value}",
            width=110,
            subsequent_indent=" " * column,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, value in rows
    )


def told_in_words(told_by: Mapping[str, str]) -> str:
    """Who told what tensors cannot: `"config: mean, std; tensor names and shapes: num_heads"`."""
    names: dict[str, list[str]] = {}
    for name, who in told_by.items():
        names.setdefault(who, []).append(name)
    return "; ".join(f"{who}: {', '.join(found)}" for who, found in names.items())


def architecture(config: ViTConfig) -> str:
    """The named size and patch size of a model, and in what it differs: `"S/14 with layer_scale=1e-05"`.

    A model of none of the named sizes is told by its measures.
    """
    best: tuple[str, list[str]] | None = None
    for size, known in SIZES.items():
        if all(_same(config, name, known.arguments) for name in MEASURES):
            differing = _differences(config, known.arguments)
            if best is None or len(differing) < len(best[1]):
                best = (f"{size}/{config.patch_size}", differing)
    if best is None:
        measures = {name: getattr(config, name) for name in MEASURES if name != "stem"}
        best = (
            f"ViT with patches of {config.patch_size}, dim {config.dim}, depth {config.depth}, "
            f"{config.num_heads} heads{f' of {config.head_dim}' if config.head_dim else ''}, "
            f"mlp_dim {config.mlp_width}",
            _differences(config, measures),
        )
    name, differing = best
    return f"{name} with {', '.join(differing)}" if differing else name


def _differences(config: ViTConfig, arguments: Mapping[str, Any]) -> list[str]:
    return [
        f"no {name}" if (value := getattr(config, name)) is None else f"{name}={value!r}"
        for name in CHANGEABLE
        if name not in WITHOUT_EFFECT and not _same(config, name, arguments)
    ]


def _same(config: ViTConfig, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether an argument has the value that a size gives it; where that is a default, the default."""
    value, wanted = getattr(config, name), arguments.get(name, DEFAULTS[name])
    match name:
        case "mlp_dim":
            return config.mlp_width == (wanted or 4 * config.dim)
        case "head_dim":
            return (value or config.dim // config.num_heads) == (wanted or config.dim // config.num_heads)
        case "class_token":
            return value is None or value == config.pooling.startswith("token")
        case "final_norm":
            # On one vector that is pooled without a mean, it stands behind the pooling as before it.
            return value == wanted or (config.pooling == "token" and "none" not in (value, wanted))
    return value == wanted


DEFAULTS: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(ViTConfig)  # type: ignore[arg-type]
}


def _classes(weights: Weights) -> str:
    count, names = weights.config.num_classes, weights.class_names
    if not count:
        return "none: there is no head"
    return f"{count:,}" + (f": {_some(names)}" if names else "")


def _with_values(names: Iterable[str], weights: Weights) -> str:
    """`"num_heads 3, norm_epsilon 1e-06"`"""
    return ", ".join(f"{name} {_value(name, weights)}".rstrip() for name in names)


def _value(name: str, weights: Weights) -> str:
    if name == "image_size":
        height, width, _ = weights.config.image_shape
        return str(height) if height == width else f"{height} {width}"
    value = getattr(weights, name) if hasattr(weights, name) else getattr(weights.config, name, "")
    return (
        _numbers(value)
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more or "none"
