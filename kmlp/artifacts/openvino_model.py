"""Read and run OpenVINO models, each of which lies in a folder as its server wants."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from kmlp.artifacts.locating import OPENVINO, unreadable
from kmlp.artifacts.onnx_file import needed
from kmlp.console import quiet

if TYPE_CHECKING:  # it imports TensorFlow
    from kmlp.artifacts.runner import Answers, Runner

GRAPH, WEIGHTS = "model.xml", "model.bin"
# What a file's precision is called where it is compiled.
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def library(path: Path) -> Any:
    """Return the package `openvino`.

    Raises:
        ImportError: If it is not installed; the message names `path`.
    """
    try:
        import openvino
    except ImportError:
        raise needed("openvino", path) from None
    return openvino


def operations(folder: Path) -> list[str]:
    """Return the types of a model's layers.

    Args:
        folder: Folder of one version.

    Raises:
        InputError: If it is damaged.
    """
    try:
        tree = ElementTree.parse(folder / GRAPH)
    except (ElementTree.ParseError, OSError) as error:
        raise unreadable(OPENVINO, folder, error) from error
    return [layer.get("type", "") for layer in tree.iter("layer")]


def check(folder: Path) -> None:
    """Refuse a model whose constants do not lie in its own weights.

    Args:
        folder: Folder of one version.

    Raises:
        InputError: If it is so, or is damaged.
    """
    try:
        held = (folder / WEIGHTS).stat().st_size
        for layer in ElementTree.parse(folder / GRAPH).iter("layer"):
            if layer.get("type") != "Const":
                continue
            data = layer.find("data")
            known = {} if data is None else data.attrib
            end = int(known.get("offset", held + 1)) + int(known.get("size", 0))
            if end > held:
                raise ValueError(f"a constant ends at byte {end} of {held}")
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise unreadable(OPENVINO, folder, error) from error


def load(
    folder: Path, num_threads: int | None = None, precision: str | None = None
) -> "Runner":
    """Load a model, run by OpenVINO on the CPU.

    Args:
        folder: Folder of one version.
        num_threads: Threads; `None`: OpenVINO's choice.
        precision: Precision to compute in, a key of `HINTS`; `None`: what its origin
            says, or else OpenVINO's choice.

    Raises:
        ImportError: If `openvino` is not installed.
    """
    from kmlp.artifacts import origin
    from kmlp.artifacts.runner import Runner

    if precision is None:
        known = (origin.read(folder) or {}).get("artifact") or {}
        precision = known.get("precision")
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if precision in HINTS:
        settings["INFERENCE_PRECISION_HINT"] = HINTS[precision]
    if num_threads is not None:
        settings["INFERENCE_NUM_THREADS"] = num_threads
    with quiet():
        core = library(folder).Core()
        model = core.read_model(folder / GRAPH)
        compiled = core.compile_model(model, "CPU", settings)
    source = model.input()
    # Other programs leave outputs without a name.
    outputs = {
        output: min(output.get_names(), default=f"output_{index}")
        for index, output in enumerate(compiled.outputs)
    }

    def run(images: np.ndarray) -> "Answers":
        found = compiled(images)
        return {name: found[output].copy() for output, name in outputs.items()}

    def shape(value: Any) -> tuple:
        sizes = value.get_partial_shape()
        return tuple(s.get_length() if s.is_static else None for s in sizes)

    return Runner(
        run,
        shape(source),
        np.dtype(source.get_element_type().to_dtype()),
        {name: shape(output) for output, name in outputs.items()},
    )
