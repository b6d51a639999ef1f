"""Read what a SavedModel would do and declare, before TensorFlow loads it."""

import math
from pathlib import Path
from typing import Any

from kmlp.artifacts.locating import SAVED_MODEL, unreadable
from kmlp.budget import Budget
from kmlp.errors import InputError

GRAPH, VARIABLES = "saved_model.pb", "variables/variables"
# A SavedModel is a program. These operations reach out of it: to files, to Python.
_REACHING = {
    *("ReadFile", "WriteFile", "MatchingFiles", "PrintV2", "Save", "SaveSlices"),
    *("PyFunc", "PyFuncStateless", "EagerPyFunc", "DebugIdentityV2", "DebugIdentity"),
    *("WriteSummary", "CreateSummaryFileWriter", "CreateSummaryDbWriter"),
}


def parsed(folder: Path) -> Any:
    """Return the protocol buffer that a SavedModel's folder holds.

    Raises:
        InputError: If it is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel()
    try:
        found.ParseFromString((folder / GRAPH).read_bytes())
    except DecodeError as error:
        raise unreadable(SAVED_MODEL, folder, error) from error
    return found


def check(folder: Path) -> None:
    """Refuse a SavedModel that reaches out, or declares more than it holds.

    Args:
        folder: Folder of one version.

    Raises:
        InputError: If it does, or is damaged.
    """
    budget = Budget(folder)
    for graph in parsed(folder).meta_graphs:
        definition = graph.graph_def
        parts = [definition.node, *(f.node_def for f in definition.library.function)]
        for node in (node for nodes in parts for node in nodes):
            if node.op in _REACHING:
                raise InputError(
                    f"This SavedModel was not loaded because it would run {node.op}, "
                    "which reaches files or code outside of it. "
                    f"Received: {str(folder)!r}"
                )
            if "value" in node.attr:
                value = node.attr["value"].tensor
                shape = (max(dim.size, 1) for dim in value.tensor_shape.dim)
                budget.take(8 * math.prod(shape), f"the constant {node.name}")
    for name, (shape, size) in _variables(folder).items():
        budget.take(size * math.prod(shape), f"the variable {name}")


def _variables(folder):
    """Return `{name: (shape, bytes of a number)}` of what the index says."""
    import tensorflow as tf

    if not (folder / f"{VARIABLES}.index").is_file():
        return {}
    try:
        reader = tf.train.load_checkpoint(str(folder / VARIABLES))
        types = reader.get_variable_to_dtype_map()
        return {
            name: (shape, types[name].size)
            for name, shape in reader.get_variable_to_shape_map().items()
        }
    except Exception as error:  # of TensorFlow's many kinds
        raise unreadable(SAVED_MODEL, folder, error) from error
