"""Compute a replica's gradients and answers without touching a variable.

Everything is a function of the weights' values, so XLA can compile it on any number
of replicas, and a step that comes to nothing has changed nothing.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from kmlp.keras_internals import flat_layers
from kmlp.training.engine.rules import seed_states
from kmlp.training.engine.weight_names import frozen, is_float


class Network:
    """A model's forward and backward passes as pure functions.

    Args:
        model: Built model.
        task: Task of the engine, a `Task`.
        accumulate: Micro-batches of a batch.
        synchronized: Whether BatchNorm's statistics are taken over all replicas.

    Attributes:
        trainable: Weights that are learned.
        statistics: The other float weights; the first `moving` of them move in a
            forward pass, the others are frozen.
        generators: States of seed generators.
    """

    def __init__(
        self, model: keras.Model, task: Any, accumulate: int, synchronized: bool
    ):
        self.model, self.task = model, task
        self.accumulate = accumulate
        self.trainable = model.trainable_weights
        others = [w for w in model.non_trainable_weights if is_float(w)]
        still = frozen(model)
        self.statistics = sorted(others, key=lambda weight: id(weight) in still)
        self.moving = sum(id(weight) not in still for weight in others)
        self.generators = seed_states(model)
        self.norms = batch_norms(model) if synchronized else []

    def values(self) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return this replica's `(weights, statistics)` as tensors."""
        return _tensors(self.trainable), _tensors(self.statistics)

    def answers(self, weights: Any, statistics: Any, images: Any) -> Any:
        """Return what the model gives in inference."""
        with self._scope(weights, statistics):
            return self.model(images, training=False)

    def evaluated(self, weights: Any, statistics: Any, *batch: Any) -> tf.Tensor:
        """Return the task's sums over a batch of its evaluation."""
        with self._scope(weights, statistics):
            return self.task.evaluation(self.model, *batch)

    def _scope(self, weights, statistics):
        mapping = [*zip(self.trainable, weights), *zip(self.statistics, statistics)]
        return keras.StatelessScope(state_mapping=mapping)

    def gradients(
        self,
        weights: Any,
        statistics: Any,
        factor: tf.Tensor,
        streams: tf.Tensor,
        *batch: Any,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]:
        """Return gradients over all micro-batches of a batch.

        Args:
            weights, statistics: What `values` gives.
            factor: Factor of the loss.
            streams: States `(accumulate, generators, 2)` of the seed generators.
            *batch: Images and targets of this replica, trees, and a teacher's answer
                or `None`.

        Returns:
            Gradients of the losses' sum times `factor`; the statistics after the last
            micro-batch; the task's sums.
        """
        parts: Any = [part for part in batch if part is not None]
        if self.accumulate == 1:
            return self._micro_batch(weights, statistics, factor, streams[0], *parts)
        # (accumulate·b, …) -> (accumulate, b, …)
        parts = tf.nest.map_structure(
            lambda x: tf.reshape(x, (self.accumulate, -1, *x.shape[1:])), parts
        )

        def body(i: Any, gradients: Any, statistics: Any, sums: Any) -> tuple:
            part = tf.nest.map_structure(lambda x: x[i], parts)
            more, statistics, own = self._micro_batch(
                weights, statistics, factor, streams[i], *part
            )
            gradients = [a + b for a, b in zip(gradients, more)]
            return i + 1, gradients, statistics, sums + own

        sums = tf.zeros(len(self.task.measures))
        state = (0, [tf.zeros_like(w) for w in weights], statistics, sums)
        if self.norms:
            # Replicas cannot meet within a loop. One after the other saves memory.
            for _ in range(self.accumulate):
                with tf.control_dependencies([state[3]]):
                    state = body(*state)
        else:
            state = tf.while_loop(
                lambda i, *_: i < self.accumulate, body, state, parallel_iterations=1
            )
        return state[1:]

    def _micro_batch(
        self, weights, statistics, factor, states, images, targets, taught=None
    ):
        """Return the gradients, statistics and sums of one micro-batch."""
        mapping = [
            *zip(self.trainable, weights),
            *zip(self.statistics, statistics),
            *[
                (variable, tf.cast(states[i], variable.dtype))
                for i, variable in enumerate(self.generators)
            ],
        ]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            with keras.StatelessScope(state_mapping=mapping) as scope:
                losses, sums = self.task.training(self.model, images, targets, taught)
            loss = tf.reduce_sum(losses) * factor
        gradients = tape.gradient(
            loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        statistics = [scope.get_current_value(v) for v in self.statistics]
        return gradients, statistics, sums


def _tensors(variables):
    return [tf.convert_to_tensor(variable.value) for variable in variables]


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return all BatchNormalization layers that learn, within other layers too."""
    return [
        layer
        for layer in flat_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


@contextlib.contextmanager
def synchronized(
    norms: Sequence[keras.layers.BatchNormalization], replicas: int
) -> Iterator[None]:
    """Let norms that are traced inside take their statistics over all replicas."""
    # Set only meanwhile: configurations and exports are those of a single device.
    before = [norm.synchronized for norm in norms]
    try:
        for norm in norms:
            norm.synchronized, norm.replicas = True, replicas
        yield
    finally:
        for norm, value in zip(norms, before):
            norm.synchronized, norm.replicas = value, 1
