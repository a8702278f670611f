"""The operations of a SavedModel, and whether a server supports them."""

from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

# Python functions that the graph calls, and programs for XLA. A server may not support them.
REFUSED = ("PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaCallModule", "XlaLaunch", "XlaHostCompute")


def read(folder):
    return SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def nodes(meta_graph):
    """The nodes of the graph and of all functions in its library."""
    yield from meta_graph.graph_def.node
    for function in meta_graph.graph_def.library.function:
        yield from function.node_def


def ops(meta_graph):
    """The names of the operations, without calls of functions of the graph."""
    functions = {function.signature.name for function in meta_graph.graph_def.library.function}
    return {node.op for node in nodes(meta_graph)} - functions


def objections(meta_graph):
    """Reasons why a server might not run a graph. The list is empty if it can."""
    found = [f"{op} is refused" for op in REFUSED if op in ops(meta_graph)]
    found += [f"{op} is not of TensorFlow" for op in sorted(ops(meta_graph)) if not op_def_registry.get(op)]
    marked = [*nodes(meta_graph), *meta_graph.graph_def.library.function]
    if any(item.attr["_XlaMustCompile"].b for item in marked if "_XlaMustCompile" in item.attr):
        found.append("a function must be compiled with XLA")
    return found
