"""What is served: a bundle of `keras-vit export` or a run, as signatures from arrays to arrays."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_vit.errors import InputError, first_line
from keras_vit.files import read_bytes
from keras_vit.runs.folder import Run
from keras_vit.serving.server.run_graph import RunGraph
from keras_vit.serving.serving_json import SERVING_JSON
from keras_vit.serving.version_folder import SAVED_MODEL, versions_of

PREDICT = "tensorflow/serving/predict"
DEFAULT = "serving_default"
FILES = "image_bytes"
MAX_BYTES = 2**31  # of the file of a graph; protobuf reads no more
RE_EXPORT = "export the run again"


@dataclass(frozen=True)
class Input:
    """One input or output of a signature.

    Args:
        dtype: a type of TensorFlow.
        shape: its sizes, `None` for any; `None` in place of all of them for any number of axes.
    """

    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    def text(self) -> str:
        """The type and the shape in words."""
        sizes = "?" if self.shape is None else ", ".join("?" if s is None else str(s) for s in self.shape)
        return f"{self.dtype.name} ({sizes})"

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of such a shape fits."""
        return self.shape is None or tf.TensorShape(self.shape).is_compatible_with(shape)


@dataclass(frozen=True)
class Served:
    """One version of a model.

    Args:
        name: under which it is served.
        version: 1 or more.
        definitions: signature -> its SignatureDef, as the metadata show it.
        functions: signature -> a function from arrays by name to tensors or arrays by name.
        class_names: in the order of its probabilities; `None` if the bundle does not say.
        run: the run that is served, which can be explained; `None` for a bundle.
        about: what is served, for people.
        tiff_page: which page of a TIFF is read, as the run was trained.
    """

    name: str
    version: int
    definitions: Mapping[str, SignatureDef]
    functions: Mapping[str, Callable[..., Mapping[str, Any]]]
    class_names: tuple[str, ...] | None
    run: Run | None
    about: str
    tiff_page: Any = None

    def inputs(self, signature: str) -> dict[str, Input]:
        """The inputs of a signature by name."""
        return {name: _input(info) for name, info in sorted(self.definitions[signature].inputs.items())}

    def outputs(self, signature: str) -> dict[str, Input]:
        """The outputs of a signature by name."""
        return {name: _input(info) for name, info in sorted(self.definitions[signature].outputs.items())}

    @property
    def takes_files(self) -> bool:
        """Whether it answers about image files with labels and probabilities, as an exported run does."""
        if DEFAULT not in self.definitions:
            return False
        definition = self.definitions[DEFAULT]
        needed = {"probabilities", "label", "confidence", "reject"}
        return list(definition.inputs) == [FILES] and needed <= set(definition.outputs)

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a signature by name."""
        wanted = self.inputs(signature)
        tensors = {name: tf.constant(values, wanted[name].dtype) for name, values in inputs.items()}
        found = self.functions[signature](**tensors)
        return {name: np.asarray(value) for name, value in found.items()}


def _input(info: Any) -> Input:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(None if d.size < 0 else d.size for d in shape.dim)
    return Input(tf.dtypes.as_dtype(info.dtype), sizes)


def bundle_folder(path: Path) -> tuple[Path, str, int] | None:
    """The folder of a version, the name of its model and its number; `None` if the path is no bundle.

    Args:
        path: `models/vit/1`, or `models/vit`, of which the newest version is taken, as TensorFlow Serving
            does.

    Raises:
        InputError: it is the folder of several models, or of a model in another format.
    """
    if (path / SAVED_MODEL).is_file():
        full = path.resolve()
        return (full, full.parent.name, int(full.name)) if full.name.isdecimal() else (full, full.name, 1)
    versions = versions_of(path)
    if not versions:
        below = sorted(p for p in path.iterdir() if p.is_dir() and versions_of(p)) if path.is_dir() else []
        if below:
            names = ", ".join(map(str, below[:5]))
            raise InputError(f"{path} is a folder of models, and one is served: give one of {names}.")
        return None
    found = path / str(versions[-1])
    if not (found / SAVED_MODEL).is_file():
        raise InputError(
            f"{found} has no {SAVED_MODEL}: give a bundle of the format savedmodel, or a run folder."
        )
    return found, path.resolve().name, versions[-1]


def load_bundle(folder: Path, name: str, version: int) -> Served:
    """Opens a SavedModel.

    Args:
        folder: of the version.
        name: of the model.
        version: its number.

    Raises:
        InputError: it is damaged, or holds nothing to serve.
    """
    try:
        stored = SavedModel.FromString(read_bytes(folder / SAVED_MODEL, MAX_BYTES))
        graphs = [graph for graph in stored.meta_graphs if "serve" in graph.meta_info_def.tags]
        if not graphs:
            raise InputError(f"{folder} has no graph with the tag serve: {RE_EXPORT}.")
        loaded = tf.saved_model.load(str(folder), tags=["serve"])
    except InputError:
        raise
    except Exception as error:  # TensorFlow and protobuf raise exceptions of many types
        raise InputError(
            f"{folder} cannot be read as a SavedModel ({first_line(error)}): {RE_EXPORT}."
        ) from error
    functions = {
        key: _with_model(loaded, function)
        for key, function in loaded.signatures.items()
        if key in graphs[0].signature_def
    }
    if not functions:
        raise InputError(f"{folder} has no signatures: {RE_EXPORT}.")
    serving_json = _serving_json(folder)
    return Served(
        name,
        version,
        dict(graphs[0].signature_def),
        functions,
        _names(serving_json.get("class_names")),
        None,
        f"the bundle {folder}",
        page if isinstance(page := serving_json.get("tiff_page"), int | str) else None,
    )


def _with_model(loaded: Any, function: Callable) -> Callable:
    # The functions do not keep the variables of the model alive.
    return lambda **inputs: (loaded, function(**inputs))[1]


def _names(found: Any) -> tuple[str, ...] | None:
    are_names = isinstance(found, list) and bool(found) and all(isinstance(name, str) for name in found)
    return tuple(found) if are_names else None


def _serving_json(folder: Path) -> dict[str, Any]:
    """What the bundle says of itself; nothing if it is not of this package."""
    try:
        found = json.loads(read_bytes(folder / "assets.extra" / SERVING_JSON, 2**26))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def load_served_run(run: Run, name: str, flips: bool = False) -> Served:
    """The same signatures as in the bundle of a run, on the backend of this process.

    Args:
        run: a finished run.
        name: of the model.
        flips: as of `answer_model`.
    """
    methods = RunGraph(run, flips).methods()
    functions = {key: method for key, (method, _) in methods.items()}
    definitions = {}
    for key, (_, specs) in methods.items():
        image_shape = run.preprocessing.image_shape
        example = {spec.name: tf.constant(_example(spec, image_shape), spec.dtype) for spec in specs}
        answers = functions[key](**example)
        definitions[key] = _definition(key, specs, answers)
    return Served(
        *(name, 1, definitions, functions, run.class_names, run, f"the run {run.path}"),
        run.preprocessing.tiff_page,
    )


def _example(spec: tf.TensorSpec, image_shape: tuple[int, int, int]) -> np.ndarray:
    """A batch of one image, which an input takes."""
    if spec.dtype == tf.string:
        return np.array([b""], object)
    return np.zeros((1, *image_shape) if len(spec.shape) == 4 else (1,), spec.dtype.as_numpy_dtype)


def _definition(signature: str, specs: list[tf.TensorSpec], answers: Mapping[str, Any]) -> SignatureDef:
    """The SignatureDef that the bundle has, but for the names of tensors in its graph."""
    definition = SignatureDef(method_name=PREDICT)
    for spec in specs:
        _describe(definition.inputs[spec.name], f"{signature}_{spec.name}:0", spec.dtype, spec.shape)
    for number, (name, value) in enumerate(sorted(answers.items())):
        value = tf.convert_to_tensor(value)
        shape = [None, *value.shape[1:]]
        _describe(definition.outputs[name], f"StatefulPartitionedCall:{number}", value.dtype, shape)
    return definition


def _describe(info: Any, name: str, dtype: tf.DType, shape: Any) -> None:
    info.name, info.dtype = name, dtype.as_datatype_enum
    info.tensor_shape.SetInParent()
    for size in shape:
        info.tensor_shape.dim.add(size=-1 if size is None else int(size))
