"""The networks that are timed: architectures by name, checkpoints by path."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmlp.console import quiet
from kmlp.errors import InputError

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Source:
    """The origin of a network.

    Attributes:
        name: Name of an architecture or of an ablation; or a `.keras` file, or a run's
            folder.
        num_classes: Number of classes of an architecture; `None`: its own.
        input_shape: Shape `(H, W, C)`; `None`: the network's own.
        settings: Further arguments of an architecture, `((option, value), …)`.
    """

    name: str
    num_classes: int | None = None
    input_shape: tuple[int, int, int] | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    def check(self) -> None:
        """Refuse a wrong name or wrong options, without drawing weights.

        Raises:
            InputError: If this is neither an architecture nor a checkpoint, or one
                that does not take these options.
        """
        from kmlp.analysis.complexity import shapes_only
        from kmlp.artifacts.locating import locate_checkpoint
        from kmlp.models.registry import check_options, variant

        if self._is_checkpoint():
            if self.num_classes or self.settings:
                flag = "--num-classes" if self.num_classes else "--set"
                raise InputError(
                    f"{flag} goes with the name of an architecture. "
                    f"Received: {self.name!r}"
                )
            locate_checkpoint(self.name)
            return
        check_options(variant(self.name)[0], dict(self.settings))
        with quiet(), shapes_only():
            self.model()

    def model(self, dtype: str | None = None) -> keras.Model:
        """Return the network in its train form.

        Args:
            dtype: Name of a Keras dtype policy; `None`: the network's own.

        Raises:
            InputError: As for `check`; or if a checkpoint does not take images of the
                size that is asked for.
        """
        from kmlp.artifacts.locating import locate_checkpoint
        from kmlp.pretrained.creation import create_model
        from kmlp.pretrained.restoring import load_checkpoint

        own = {} if dtype is None else {"dtype": dtype}
        if not self._is_checkpoint():
            settings = dict(self.settings) | own
            return create_model(
                self.name, self.num_classes, self.input_shape, **settings
            )
        model = load_checkpoint(locate_checkpoint(self.name))
        self._check_size(model)
        if dtype not in (None, model.dtype_policy.name):
            twin = type(model).from_config({**model.get_config(), **own})
            twin.set_weights(model.get_weights())
            model = twin
        return model

    def _is_checkpoint(self):
        from kmlp.models.papers import ABLATIONS

        name = self.name
        looks = Path(name).name != name or name.endswith(".keras")
        looks = looks or os.path.exists(name)
        return looks and name not in ABLATIONS

    def _check_size(self, model):
        own, asked = tuple(model.inputs[0].shape[1:]), self.input_shape
        if asked is None and None in own:
            raise InputError(
                "This network takes images of any size: pass --image-size. "
                f"Received: {self.name!r}"
            )
        if asked is not None and any(o not in (None, a) for o, a in zip(own, asked)):
            raise InputError(
                f"This network takes images of {own[0]}x{own[1]}: leave --image-size "
                f"out. Received: {self.name!r}, {asked[0]}x{asked[1]}"
            )


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
        source: Where the network comes from.
        work: One of `WORK`: the merged form's answer to a batch, or the train form's
            step.
        xla: Whether XLA compiles it.
        batch: Images per call.
        precision: One of `PRECISIONS`. Training keeps its weights in float32.
    """

    source: Source
    work: str
    xla: bool
    batch: int
    precision: str

    @property
    def policy(self) -> str:
        """Name of the network's Keras dtype policy."""
        mixed = self.work == "training" and self.precision != "float32"
        return f"mixed_{self.precision}" if mixed else self.precision


def why_not(backend: str, xla: bool) -> str | None:
    """Return why a backend cannot do without XLA, or with it; `None` where it can."""
    if backend == "jax" and not xla:
        return "the JAX backend is always compiled by XLA: --xla on"
    if backend == "torch" and xla:
        return "the PyTorch backend runs operation by operation: --xla off"
    return None
