"""What there is to time on every backend."""

import dataclasses

from kmlp.benchmarking.benchmarked import Source

WORK = ("inference", "training")
# A training step multiplies and adds three times as much as a forward pass: twice as
# much again for the gradients of inputs and of weights.
PASSES = {"inference": 1, "training": 3}
PRECISIONS = ("float32", "bfloat16", "float16")
# Backend -> the package that it is.
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time, on any backend.

    Attributes:
        source: of the network.
        work: of `WORK`: the merged form's answer to a batch, or the train form's step.
        xla: whether XLA compiles it.
        batch: images per call.
        precision: of `PRECISIONS`. Training keeps its weights in float32.
    """

    source: Source
    work: str
    xla: bool
    batch: int
    precision: str

    @property
    def policy(self):
        """The Keras dtype policy of the network."""
        mixed = self.work == "training" and self.precision != "float32"
        return f"mixed_{self.precision}" if mixed else self.precision


def why_not(backend, xla):
    """Why a backend cannot do without XLA, or with it; `None` where it can."""
    if backend == "jax" and not xla:
        return "the JAX backend is always compiled by XLA: --xla on"
    if backend == "torch" and xla:
        return "the PyTorch backend runs operation by operation: --xla off"
    return None
