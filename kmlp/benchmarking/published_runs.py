"""Run the published PyTorch networks as people run them, for benchmarks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.console import quiet

Run = Callable[[], Any]


def eager(network: Any, images: np.ndarray, threads: int, folder: Path) -> Run:
    """Return a call that runs a network eagerly.

    Args:
        network: Module from `kmlp.pytorch.build`.
        images: Images `(N, H, W, C)`.
        threads: Threads of the runtime.
        folder: Folder for what is exported.
    """
    import torch

    network, tensor = _prepared(network, images, threads)
    return torch.inference_mode()(lambda: network(tensor))


def compiled(network: Any, images: np.ndarray, threads: int, folder: Path) -> Run:
    """Return a call that runs a network compiled by `torch.compile`, as `eager`."""
    import torch

    network, tensor = _prepared(network, images, threads)
    with quiet(everything=True), torch.inference_mode():
        fast = torch.compile(network)
        fast(tensor)
    return torch.inference_mode()(lambda: fast(tensor))


def in_onnx_runtime(
    network: Any, images: np.ndarray, threads: int, folder: Path
) -> Run:
    """Return a call that runs a network in ONNX Runtime, as `eager`."""
    import torch

    from kmlp.artifacts import onnx_file

    network, tensor = _prepared(network, images, threads)
    path = folder / f"published_{len(images)}.onnx"
    with quiet(everything=True):
        torch.onnx.export(network, (tensor,), path, dynamo=False)
    run = onnx_file.load(path, threads).run
    return lambda: run(tensor.numpy())


def in_openvino(network: Any, images: np.ndarray, threads: int, folder: Path) -> Run:
    """Return a call that runs a network in OpenVINO, as `eager`."""
    from kmlp.artifacts import openvino_model

    network, tensor = _prepared(network, images, threads)
    library = openvino_model.library(folder)
    with quiet(everything=True):
        made = library.convert_model(network, example_input=tensor)
        made.reshape(list(tensor.shape))
        own = folder / f"published_{len(images)}"
        library.save_model(made, own / openvino_model.GRAPH, compress_to_fp16=False)
    run = openvino_model.load(own, threads, "float32").run
    return lambda: run(tensor.numpy())


def _prepared(network, images, threads):
    import torch

    torch.set_num_threads(threads)
    network.eval()
    return network, torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


# Form of `kmlp.benchmarking.findings.FORMS` -> what runs it.
RUNS: dict[str, Callable[..., Run]] = {
    "torch": eager,
    "torch-merged": eager,
    "torch-compile": compiled,
    "torch-onnx": in_onnx_runtime,
    "torch-openvino": in_openvino,
}
