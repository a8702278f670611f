"""The state of the layers inside a layer or a model that no constructor knows, as its config keeps it.

A user freezes the attention of one block, quantizes a model, or gives a kernel a low-rank addition: nothing
of that is an argument of the layer around it. A config has it under `parts`, by the path of the layer inside:

    {"attention": {"trainable": False}, "mlp/expand": {"lora": {"rank": 4, "alpha": 4}}}
"""

from collections.abc import Iterator, Mapping
from typing import Any

import keras

State = dict[str, Any]


def layers_inside(layer: keras.Layer) -> dict[str, keras.Layer]:
    """The layers directly inside a layer or a model, by the names of their attributes or their own."""
    if isinstance(layer, keras.Model):
        return {one.name: one for one in layer.layers if not isinstance(one, keras.layers.InputLayer)}
    attributes = dict(vars(layer))
    if hasattr(layer, "named_children"):  # a module of torch keeps modules apart
        attributes.update(layer.named_children())
    return {
        name: one
        for attribute, value in attributes.items()
        if not attribute.startswith("_")
        for name, one in _layers_of(attribute, value)
    }


def _layers_of(name: str, value: Any) -> Iterator[tuple[str, keras.Layer]]:
    if isinstance(value, keras.Layer):
        yield name, value
    elif isinstance(value, list | tuple):
        yield from ((f"{name}.{i}", one) for i, one in enumerate(value) if isinstance(one, keras.Layer))
    elif isinstance(value, dict):
        yield from ((f"{name}.{key}", one) for key, one in value.items() if isinstance(one, keras.Layer))


def parts_of(layer: keras.Layer) -> dict[str, State]:
    """The state of the layers inside, as far as it is not that of new ones.

    Args:
        layer: a layer or a model.

    Returns:
        By path: `trainable` if it differs from that of the layer around it, `quantization` and `lora`; and
        those that wait.
    """
    found: dict[str, State] = {}
    for name, inner in layers_inside(layer).items():
        state = {**_quantization_of(inner), **_lora_of(inner)}
        if inner.trainable != layer.trainable:
            state["trainable"] = inner.trainable
        found.update({name: state} if state else {})
        found.update({f"{name}/{path}": state for path, state in parts_of(inner).items()})
    return merged(found, waiting_in(layer))


def _quantization_of(layer: keras.Layer) -> State:
    if layer.quantization_mode is None:
        return {}
    config = getattr(layer, "quantization_config", None)
    return {
        "quantization": {
            "mode": layer.quantization_mode,
            "dtype": keras.dtype_policies.serialize(layer.dtype_policy),
            "config": None if config is None else keras.saving.serialize_keras_object(config),
        }
    }


def _lora_of(layer: keras.Layer) -> State:
    if not getattr(layer, "lora_enabled", False):
        return {}
    return {"lora": {"rank": layer.lora_rank, "alpha": layer.lora_alpha}}


class Waiting:
    """Parts of a config for layers inside that are not there yet. An object: Keras would track a dict."""

    def __init__(self, parts: Mapping[str, State] | None = None):
        self.parts = {path: dict(state) for path, state in (parts or {}).items()}


def waiting_in(layer: keras.Layer) -> dict[str, State]:
    """The parts that wait for layers that a layer has not made, or not built."""
    return getattr(layer, "waiting", Waiting()).parts


def set_parts(layer: keras.Layer, parts: Mapping[str, State]) -> dict[str, State]:
    """Gives the layers inside the state that `parts_of` has found.

    Args:
        layer: a layer or a model.
        parts: by path.

    Returns:
        Those that wait for a layer that is not made, or not built.
    """
    inside, waiting = layers_inside(layer), {}
    for name in dict.fromkeys(path.partition("/")[0] for path in parts):
        if name in inside:
            waiting.update(set_part(inside[name], name, parts))
        else:
            waiting.update({path: state for path, state in parts.items() if path.partition("/")[0] == name})
    return waiting


def set_part(layer: Any, name: str, parts: Mapping[str, State]) -> dict[str, State]:
    """Gives one layer, and those inside it, the state that a config tells.

    Some of it is for a layer that is not built, some for one that is: call this at both times.

    Args:
        layer: the layer.
        name: of it in the paths.
        parts: by path, those of other layers too.

    Returns:
        The parts of this layer that wait.
    """
    state = dict(parts.get(name, {}))
    left = {key: state.pop(key) for key in _too_early(layer, state)}
    if "quantization" in state and layer.quantization_mode is None:
        _quantize(layer, **state["quantization"])
    if "trainable" in state:
        layer.trainable = state["trainable"]
    if "lora" in state and not layer.lora_enabled:
        layer.enable_lora(state["lora"]["rank"], lora_alpha=state["lora"]["alpha"])
    waiting = {name: left} if left else {}
    start = f"{name}/"
    below = {path.removeprefix(start): found for path, found in parts.items() if path.startswith(start)}
    inside = set_parts(layer, below) if below else {}
    if hasattr(layer, "waiting"):
        layer.waiting.parts.update(inside)
        return waiting
    return {**waiting, **{start + path: found for path, found in inside.items()}}


def _too_early(layer: keras.Layer, state: State) -> list[str]:
    """What of a state needs weights that a layer does not have yet."""
    if layer.built:
        return []
    mode = state.get("quantization", {}).get("mode")
    # Weights have an order, in which optimizers keep what belongs to them. Keras adds those of float8 last.
    return [*(["lora"] if "lora" in state else []), *(["quantization"] if mode == "float8" else [])]


def _quantize(layer: Any, mode: str, dtype: Any, config: Any) -> None:
    """Quantizes one layer: by its policy if it is not built, so that it has int8 weights from the start."""
    config = keras.saving.deserialize_keras_object(config)
    if layer.built:
        layer.quantize(mode, config=config)
    else:
        layer.dtype_policy = keras.dtype_policies.deserialize(dtype)
        layer.quantization_config = config


def resolve_policies(layer: keras.Layer) -> None:
    """Gives the layers of Keras inside, where they are built, the policy that a map has for their paths.

    With the map itself Keras saves a quantized layer without its scales.
    """
    for inner in layers_inside(layer).values():
        policy = inner.dtype_policy
        is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
        if is_map and inner.path and inner.built and not layers_inside(inner):
            inner._dtype_policy = policy[inner.path]  # the property would write into the map
        resolve_policies(inner)


def merged(*parts: Mapping[str, State]) -> dict[str, State]:
    """Parts of one layer from several places."""
    found: dict[str, State] = {}
    for some in parts:
        for path, state in some.items():
            found[path] = {**found.get(path, {}), **state}
    return found
