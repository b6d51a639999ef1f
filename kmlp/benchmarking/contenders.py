"""Measure inference and training steps, and their memory, in a backend's process."""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.analysis.complexity import profile
from kmlp.benchmarking import devices
from kmlp.benchmarking.benchmarked import Case, Source
from kmlp.benchmarking.measuring import Contender, random_images, seconds, turn_of
from kmlp.errors import InputError
from kmlp.merging import merge

LEARNING_RATE = 1e-4
REPEATS = 3


class Desk:
    """Answers what a backend's process is asked; a method for each question.

    Inference is timed with the merged form, training with the train form.
    """

    def __init__(self) -> None:
        self._merged: dict[Any, keras.Model] = {}
        self._turns: list[Callable[[], float]] = []
        self._peak: Any = None

    def start(self, device: str, threads: int, precision: str) -> dict[str, str]:
        """Make ready and return what is used, by name."""
        if device == "cpu":
            devices.use_cores(threads)
        name = devices.gpu_name()
        if device == "gpu" and name is None:
            raise RuntimeError(
                "this backend sees no GPU: --device cpu measures it on the CPU"
            )
        self._peak = devices.Peak(precision, seconds=0.25, smallest=256)
        return {
            "version": devices.version(),
            "keras": keras.__version__,
            "device": name or f"{threads} CPU core{'s' * (threads > 1)}",
        }

    def check(self, sources: Sequence[Source]) -> None:
        """Look at the names and options of networks."""
        try:
            for source in sources:
                source.check()
        except (ValueError, OSError) as error:
            raise InputError(error) from error

    def make(self, case: Case) -> dict[str, Any]:
        """Make a contender, run it once, which compiles, and return its figures."""
        contender, figures = self.contender(case)
        first = seconds(contender.run)
        self._turns.append(turn_of(contender))
        own = {"number": len(self._turns) - 1, "first_call_seconds": first}
        return figures | own

    def turn(self, number: int) -> float:
        """Return a contender's images per second, measured once more."""
        return self._turns[number]()

    def product(self) -> float:
        """Return multiply-adds per second of the matrix product, measured once more."""
        return self._peak.turn() / 2

    def memory(self, case: Case) -> int | None:
        """Return the bytes of a case's peak, for a process that does nothing else.

        `None` where the system does not tell.
        """
        return peak_memory(lambda: self.contender(case)[0].run, case.xla)

    def contender(self, case: Case) -> tuple[Contender, dict[str, Any]]:
        """Return a case as a contender, and figures of the form that is timed."""
        training = case.work == "training"
        model = case.source.model(case.policy) if training else self._merged_form(case)
        shape = tuple(case.source.input_shape or model.inputs[0].shape[1:])
        images = random_images(case.batch, shape)
        if training:
            run = _training_step(model, case, images)
        else:
            run = devices.answering(devices.inference(model, case.xla), images)
        counted = profile(model, shape)
        return Contender(case.source.name, case.batch, counted.macs, run), {
            "parameters": counted.trainable,
            "macs": counted.macs,
            "image_size": shape[:2],
        }

    def _merged_form(self, case):
        """Return the merged form, which cases of one network and policy share."""
        key = (case.source, case.policy)
        if key not in self._merged:
            self._merged[key] = merge(case.source.model(case.policy), check=False)
            gc.collect()  # the train form is part of cycles
        return self._merged[key]


def _training_step(model, case, images):
    """Return a step of AdamW on one batch, by Keras' own `train_on_batch`.

    Raises:
        InputError: If the network does not classify.
    """
    outputs = model.outputs
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise InputError(
            "A training step is of a network that classifies; --work inference takes "
            f"any. Received: {case.source.name!r}"
        )
    classes = outputs[0].shape[-1]
    targets = np.eye(classes, dtype="float32")[np.arange(case.batch) % classes]
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=case.xla,
    )

    def _step():
        model.train_on_batch(images, targets)
        # The loss is known before the weights have moved.
        ops.convert_to_numpy(model.optimizer.iterations)

    return _step


def peak_memory(make: Callable[[], Callable[[], Any]], xla: bool) -> int | None:
    """Return the bytes that a call needs at its peak, its network's weights among them.

    It is the most that was in use while the call was repeated, less what was in use
    before its network was made. The interpreter and the libraries are not in it, nor
    what compiling took and gave back. `None` where the system does not tell: on a CPU
    without Linux' `/proc`.

    Args:
        make: Function that makes the call, its network and its images.
        xla: Whether XLA compiles the call; what that needs is loaded before.
    """
    gauge = devices.GPUMemory() if devices.gpu_name() else devices.ResidentSet()
    # A tiny network that is forgotten, for what libraries load with their first.
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    devices.answering(devices.inference(model, xla), np.ones((2, 8), "float32"))()
    try:
        gauge.reset()
    except OSError:
        return None
    before, _ = gauge.read()
    run = make()
    run()
    gauge.reset()  # of what compiling took
    for _ in range(REPEATS):
        run()
    return gauge.read()[1] - before
