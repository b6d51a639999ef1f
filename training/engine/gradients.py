"""What a replica computes without touching a variable: gradients and logits.

Everything is a function of the weights' values, so XLA can compile it on any number
of replicas, and a step that comes to nothing has changed nothing.
"""

import contextlib

import keras
import tensorflow as tf

from training.engine.naming import frozen, is_float
from training.engine.rules import seed_states, training_sums


class Network:
    """A model's forward and backward passes as pure functions.

    Args:
        model: a built `keras.Model` that gives logits.
        objective: as `Engine.prepare` takes it.
        accumulate: micro-batches of a batch.
        synchronized: BatchNorm's statistics are taken over all replicas.

    Attributes:
        trainable: weights that are learned.
        statistics: the other float weights; the first `moving` of them move in a
            forward pass, the others are frozen.
        generators: states of seed generators.
    """

    def __init__(self, model, objective, accumulate, synchronized):
        self.model, self.objective = model, objective
        self.accumulate = accumulate
        self.trainable = model.trainable_weights
        others = [w for w in model.non_trainable_weights if is_float(w)]
        still = frozen(model)
        self.statistics = sorted(others, key=lambda weight: id(weight) in still)
        self.moving = sum(id(weight) not in still for weight in others)
        self.generators = seed_states(model)
        self.norms = batch_norms(model) if synchronized else []

    def values(self):
        """`(weights, statistics)` as tensors, this replica's."""
        return tuple(
            [tf.convert_to_tensor(variable.value) for variable in variables]
            for variables in (self.trainable, self.statistics)
        )

    def logits(self, weights, statistics, images):
        """The model's answer in inference."""
        mapping = [*zip(self.trainable, weights), *zip(self.statistics, statistics)]
        with keras.StatelessScope(state_mapping=mapping):
            return self.model(images, training=False)

    def gradients(
        self, weights, statistics, factor, streams, images, targets, taught=None
    ):
        """Gradients over all micro-batches of a batch.

        Args:
            weights, statistics: as `values` gives them.
            factor: of the loss.
            streams: `(accumulate, generators, 2)`, states of the seed generators.
            images, targets: of this replica.
            taught: a teacher's logits, or `None`.

        Returns:
            gradients of the losses' sum times `factor`; the statistics after the last
            micro-batch; `training_sums`.
        """
        batch = [x for x in (images, targets, taught) if x is not None]
        if self.accumulate == 1:
            return self._micro_batch(weights, statistics, factor, streams[0], *batch)
        # (accumulate·b, …) -> (accumulate, b, …)
        batch = [tf.reshape(x, (self.accumulate, -1, *x.shape[1:])) for x in batch]

        def body(i, gradients, statistics, sums):
            more, statistics, own = self._micro_batch(
                weights, statistics, factor, streams[i], *[x[i] for x in batch]
            )
            gradients = [a + b for a, b in zip(gradients, more)]
            return i + 1, gradients, statistics, sums + own

        state = (0, [tf.zeros_like(w) for w in weights], statistics, tf.zeros(2))
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
        """Gradients, statistics and sums of one micro-batch."""
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
                logits = self.model(images, training=True)
            logits = tf.cast(logits, tf.float32)
            losses = self.objective(logits, targets, taught)
            loss = tf.reduce_sum(losses) * factor
        gradients = tape.gradient(
            loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        statistics = [scope.get_current_value(v) for v in self.statistics]
        return gradients, statistics, training_sums(losses, logits, targets)


def batch_norms(model):
    """All BatchNormalization layers that learn, within other layers too."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


@contextlib.contextmanager
def synchronized(norms):
    """Inside, the norms take their statistics over all replicas when traced."""
    # Set only meanwhile: configurations and exports are those of a single device.
    before = [norm.synchronized for norm in norms]
    try:
        for norm in norms:
            norm.synchronized = True
        yield
    finally:
        for norm, value in zip(norms, before):
            norm.synchronized = value
