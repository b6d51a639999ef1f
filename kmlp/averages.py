"""The averages of weights that an optimizer keeps."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kmlp.keras_internals import averaged_pairs


class Averages:
    """Weights that an optimizer averages, wherever they currently are.

    `SwapEMAWeights` exchanges weights and averages at times of its own, and `fit`
    ends by replacing the weights with the averages; neither leaves a trace. The
    weights as the last training step left them tell what the model holds, so a few
    are remembered after every step.
    """

    def __init__(self):
        self._probes = None
        self._trained = []

    def remember(self, model: keras.Model) -> None:
        if self._probes is None:
            pairs = average_pairs(model)
            self._probes = sorted(pairs, key=lambda p: math.prod(p[0].shape))[:8]
        self._trained = [keras.ops.copy(variable) for variable, _ in self._probes]

    @contextlib.contextmanager
    def in_model(self, model: keras.Model) -> Iterator[None]:
        """Hold the averages in the model for the time of the block.

        Where something else has replaced the trained weights, that stays.
        """
        pairs = average_pairs(model)
        if not pairs or self._replaced():
            yield
            return
        trained = [keras.ops.convert_to_numpy(variable) for variable, _ in pairs]
        try:
            with model.distribute_strategy.scope():
                for variable, average in pairs:
                    variable.assign(average)
            yield
        finally:
            with model.distribute_strategy.scope():
                for (variable, _), value in zip(pairs, trained):
                    variable.assign(value)

    def _replaced(self):
        """Return whether the model holds other weights than the last step left in it.

        Exchanging and exchanging back costs some last digits, so the weights count
        as trained where they are nearer to what the step left than the averages.
        """
        of_model = of_averages = 0.0
        for (variable, average), trained in zip(self._probes or [], self._trained):
            of_model += np.square(_array(variable) - _array(trained)).sum()
            of_averages += np.square(_array(average) - _array(trained)).sum()
        return 0 < of_model >= of_averages


def _array(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")


def average_pairs(model: Any) -> list[tuple]:
    """Return `(variable, average)` of every averaged weight."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # loss scaling
    pairs = []
    for part in getattr(optimizer, "optimizers", None) or [optimizer]:
        if getattr(part, "use_ema", False) and part.built:
            pairs += averaged_pairs(part)
    return [pair for pair in pairs if pair[1] is not None]
