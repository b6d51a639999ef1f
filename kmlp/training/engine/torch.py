"""The engine on PyTorch: one device, one process, step by step.

Gradients are taken with respect to the weights' values, and what a forward pass would
assign is held back until the step is known to be finite, as in the other engines.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import torch

from kmlp.training.engine.engine import Engine, MakeDataset
from kmlp.training.engine.rules import (
    clipped,
    cut,
    measurements,
    next_average,
    next_loss_scale,
    rows,
)
from kmlp.training.engine.weight_names import frozen


class TorchEngine(Engine):
    """Take steps on the device that Keras has chosen, eagerly.

    `xla` and `steps_per_execution` are of no effect.
    """

    def __init__(self):
        self.device = keras.ops.convert_to_tensor(0.0).device
        kind = "GPU" if self.device.type == "cuda" else self.device.type.upper()
        self.description = f"1 {kind} device, PyTorch"

    def prepare(self, model: keras.Model, *others: Any, **more: Any) -> None:
        super().prepare(model, *others, **more)
        self._trainable = model.trainable_weights
        still = frozen(model)
        others = model.non_trainable_weights
        self._moving = [v for v in others if id(v) not in still]

    def feed(self, make_dataset: MakeDataset) -> Iterator:
        return (batch for (batch,) in self._groups(make_dataset()))

    def train(self, iterator: Iterator, steps: int) -> dict[str, np.ndarray]:
        states = self._seeds(steps, streams=1)
        results = []
        for state in states:
            results.append(self._take_step(next(iterator), state))
            self.step += 1
        # Only now, so that a GPU need not wait for Python between the steps.
        values = np.stack([keras.ops.convert_to_numpy(found) for found in results])
        return measurements(self.task, values)

    def _take_step(self, batch, states):
        """Take one step; return the measures, gradient norm, finite."""
        batch = keras.tree.map_structure(self._placed, batch)
        size = rows(batch)
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value
        gradients, statistics, sums = self._micro_batches(batch, scale / size, states)
        with torch.no_grad():
            bound = self.options.clip_norm
            gradients, norm, finite = clipped(gradients, scale, bound)
            if finite:
                self._update(gradients, statistics)
            if self.loss_scale is not None:
                pair = self.loss_scale, self.loss_scale_steps
                changed = next_loss_scale(*[v.value.clone() for v in pair], finite)
                for variable, value in zip(pair, changed):
                    variable.assign(value)
            return torch.stack([*sums / size, norm, finite.to(torch.float32)])

    def _update(self, gradients, statistics):
        """Assign everything that a step changes."""
        optimizer = self.optimizer
        slots = [variable.value for variable in optimizer.variables]
        weights = [variable.value for variable in self._trainable]
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        for variable, value in zip(
            [*self._trainable, *optimizer.variables, *self._moving],
            [*weights, *slots, *statistics],
        ):
            variable.assign(value)
        for average, weight in self._averages:
            average.assign(next_average(average.value, weight.value, self.options.ema))

    def _micro_batches(self, batch, factor, states):
        """Return the gradients, statistics and sums over all micro-batches.

        The gradients are of the losses' sum times `factor`, the statistics those after
        the last micro-batch, the sums the task's.
        """
        size = rows(batch) // self.options.accumulate
        statistics = [variable.value for variable in self._moving]
        gradients, sums = None, 0.0
        for index, own in enumerate(states):
            part = cut(batch, size, index * size)
            more, statistics, found = self._micro_batch(part, factor, statistics, own)
            sums = sums + found
            if gradients is not None:
                more = [a + b for a, b in zip(gradients, more)]
            gradients = more
        return gradients, statistics, sums

    def _micro_batch(self, batch, factor, statistics, states):
        images, targets = batch
        taught = None
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(images).to(torch.float32)
        states = torch.from_numpy(states.astype("int64")).to(self.device)
        mapping = [*zip(self._moving, statistics), *zip(self._generators, states)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            losses, sums = self.task.training(self.model, images, targets, taught)
            loss = torch.sum(losses) * factor
        weights = [variable.value for variable in self._trainable]
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        gradients = [
            torch.zeros_like(weight) if gradient is None else gradient
            for gradient, weight in zip(gradients, weights)
        ]
        statistics = [scope.get_current_value(v).detach() for v in self._moving]
        return gradients, statistics, sums.detach()

    def _batch_sums(self, dataset):
        for batch in self._groups(dataset):
            with torch.no_grad():
                batch = keras.tree.map_structure(self._placed, batch[0])
                sums = self.task.evaluation(self.model, *batch)
            yield keras.ops.convert_to_numpy(sums)

    def _answers(self, inputs):
        with torch.no_grad():
            images = keras.tree.map_structure(self._placed, inputs[0])
            answers = self.model(images, training=False)
        return [keras.tree.map_structure(keras.ops.convert_to_numpy, answers)]

    def _placed(self, array):
        # Copied where it is read-only, as a data set's own memory is.
        return torch.from_numpy(np.require(array, requirements="CW")).to(self.device)
