"""The engine on TensorFlow: `tf.distribute` with a loop of its own.

Each replica computes gradients, moving statistics and sums from its batch; they meet
in one all-reduce. What follows, clipping and update, every replica computes for its
own copies of the variables from equal numbers, so that they stay equal.
"""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from training.console import Stop
from training.engine.base import Engine, WorkerLost
from training.engine.gradients import Network, synchronized
from training.engine.naming import weight_names
from training.engine.rules import (
    clip_by_global_norm,
    evaluation_result,
    evaluation_sums,
    global_norm,
    next_average,
    next_loss_scale,
    seeds,
)

# What collective operations raise when a peer is gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


class TensorFlowEngine(Engine):
    """Trains under a `tf.distribute` strategy.

    Args:
        strategy: one-device, mirrored, multi-worker or TPU strategy.
        description: for people.
        workers, worker: processes, and this one's index.
    """

    def __init__(self, strategy, description, *, workers=1, worker=0):
        self.strategy = strategy
        self.description = description
        self.workers, self.worker = workers, worker
        self.chief = worker == 0
        self.replicas = strategy.num_replicas_in_sync
        self.local_replicas = self.replicas // workers
        self._reductions = {}  # dtype -> sum over processes

    @contextlib.contextmanager
    def scope(self):
        # Variables begin as the chief's, which is communication.
        with self._lost_workers(), self.strategy.scope():
            yield

    def prepare(self, model, optimizer, objective, options, teacher=None):
        """As in `Engine`.

        Raises:
            Stop: XLA together with synchronized BatchNorm on several replicas.
        """
        super().prepare(model, optimizer, objective, options, teacher)
        weights = weight_names(model)
        self._averages = [(v, weights[name]) for name, v in self.averages.items()]
        self._network = network = Network(
            model,
            objective,
            options.accumulate,
            options.sync_batchnorm and self.replicas > 1,
        )
        # A TPU compiles everything itself.
        tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
        compiled = options.xla and not tpu
        if compiled and network.norms:
            raise Stop(
                "XLA cannot compile BatchNorm that is synchronized over replicas: "
                "leave XLA out or set sync_batchnorm=false. Received: xla with "
                f"sync_batchnorm on {self.replicas} replicas"
            )
        self._step = self._replica_step
        self._gradients, self._logits = network.gradients, network.logits
        if compiled:
            self._logits = tf.function(network.logits, jit_compile=True)
            if self.replicas == 1:
                self._step = tf.function(self._replica_step, jit_compile=True)
            else:
                # What touches no variable and no other replica.
                self._gradients = tf.function(network.gradients, jit_compile=True)
        self._execute = tf.function(self._steps)
        self._measure = tf.function(self._evaluation_step)

    # Training.

    def feed(self, make_dataset):
        def dataset(context):
            # Known to be endless, no step asks all workers whether data remain.
            endless = tf.data.experimental.assert_cardinality(
                tf.data.experimental.INFINITE_CARDINALITY
            )
            hosts = context.num_input_pipelines // self.workers
            host = context.input_pipeline_id % hosts
            own = share(make_dataset(), self.local_replicas // hosts, hosts, host)
            return own.apply(endless)

        return iter(self.strategy.distribute_datasets_from_function(dataset))

    def train(self, iterator, steps):
        options = self.options
        table = seeds(
            options.seed,
            self.step,
            steps,
            self.replicas * options.accumulate,
            len(self._network.generators),
        )
        results = []
        with self._lost_workers():
            for start in range(0, steps, options.steps_per_execution):
                piece = table[start : start + options.steps_per_execution]
                count = len(piece)
                # One shape for all pieces, one trace.
                padding = [(0, options.steps_per_execution - count)] + [(0, 0)] * 3
                streams = tf.constant(np.pad(piece, padding))
                values = self._execute(iterator, streams, tf.constant(count))
                self.step += count
                results.append((values, count))
            # Only now, so that a GPU need not wait for Python between executions.
            values = np.concatenate([v.numpy()[:count] for v, count in results])
        return {
            "loss": values[:, 0],
            "accuracy": values[:, 1],
            "gradient_norm": values[:, 2],
            "finite": values[:, 3] > 0,
        }

    def _steps(self, iterator, streams, count):
        """`count` steps without Python between them; `(steps_per_execution, 4)`."""
        # A loop for a single step too: the same graph, so the same bits.
        size = self.options.steps_per_execution
        values = tf.TensorArray(tf.float32, size, element_shape=(4,))
        _, values = tf.while_loop(
            lambda i, _: i < count,
            lambda i, values: (
                i + 1,
                values.write(i, self._global_step(iterator, streams[i])),
            ),
            (0, values),
            parallel_iterations=1,
        )
        return values.stack()

    def _global_step(self, iterator, streams):
        """One step on all replicas; loss, accuracy, gradient norm, finite."""
        with synchronized(self._network.norms):
            values = self.strategy.run(self._step, args=(*iterator.get_next(), streams))
        # Every replica has the same.
        values = self.strategy.experimental_local_results(values)[0]
        finite = values[3] > 0
        iterations = self.optimizer.iterations
        iterations.assign_add(tf.cast(finite, iterations.dtype))
        if self.loss_scale is not None:
            scale, steps = next_loss_scale(
                self.loss_scale.value, self.loss_scale_steps.value, finite
            )
            self.loss_scale.assign(scale)
            self.loss_scale_steps.assign(steps)
        return values

    def _replica_step(self, images, targets, streams):
        """A replica's part of a step, from its batch to its updated copies."""
        context = tf.distribute.get_replica_context()
        global_batch = images.shape[0] * self.replicas
        shape = (self.replicas, self.options.accumulate, *streams.shape[1:])
        streams = tf.reshape(streams, shape)[context.replica_id_in_sync_group]
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value
        taught = None
        if self.teacher is not None:
            taught = tf.stop_gradient(tf.cast(self.teacher(images), tf.float32))
        gradients, statistics, sums = self._gradients(
            *self._network.values(),
            tf.constant(1.0 / global_batch) * scale,
            streams,
            images,
            targets,
            taught,
        )
        statistics = statistics[: self._network.moving]
        sums /= global_batch
        if self.replicas > 1:
            means = [s / self.replicas for s in statistics]
            gradients, statistics, sums = context.all_reduce(
                tf.distribute.ReduceOp.SUM, [gradients, means, sums]
            )
        if self.loss_scale is not None:
            gradients = [g / scale for g in gradients]
        norm = global_norm(gradients)
        finite = tf.math.is_finite(norm)
        gradients = clip_by_global_norm(gradients, norm, self.options.clip_norm)

        def update():
            self._update(gradients, statistics)
            return True

        tf.cond(finite, update, lambda: False)
        return tf.concat([sums, [norm, tf.cast(finite, tf.float32)]], axis=0)

    def _update(self, gradients, statistics):
        """Assigns this replica's copies of everything a step changes.

        Variables without aggregation are assigned where they are used, so neither
        communication nor Keras' own all-reduce takes part.
        """
        optimizer, network = self.optimizer, self._network
        for variable, value in zip(network.statistics, statistics):
            variable.assign(value)
        rate = optimizer.learning_rate
        decay_weights(optimizer, network.trainable, rate)
        for gradient, variable in zip(gradients, network.trainable):
            optimizer.update_step(gradient, variable.value, rate)
        for average, weight in self._averages:
            average.assign(next_average(average.value, weight.value, self.options.ema))

    # Evaluation.

    def evaluate(self, make_dataset):
        total = np.zeros(4)
        with self._lost_workers():
            local = []
            for batch in make_dataset():
                local.append(batch)
                if len(local) == self.local_replicas:
                    total += self._measured(local)
                    local = []
            if local:
                images, labels, weights = local[0]
                empty = (images, labels, tf.zeros_like(weights))
                local += [empty] * (self.local_replicas - len(local))
                total += self._measured(local)
            if self.workers > 1:
                (total,) = self._sum([total])
        return evaluation_result(total)

    def _measured(self, batches):
        """Sums over a batch for each replica of this process."""
        batch = batches[0]
        if self.replicas > 1:
            first = self.worker * self.local_replicas
            batch = self.strategy.experimental_distribute_values_from_function(
                lambda context: batches[context.replica_id_in_sync_group - first]
            )
        sums = [values.numpy() for values in self._measure(batch)]
        return np.sum(sums, axis=0, dtype=np.float64)

    def _evaluation_step(self, batch):
        def replica(images, labels, weights):
            logits = self._logits(*self._network.values(), images)
            return evaluation_sums(logits, labels, weights)

        sums = self.strategy.run(replica, args=batch)
        return self.strategy.experimental_local_results(sums)

    # Between processes.

    def any(self, flag):
        if self.workers == 1:
            return bool(flag)
        with self._lost_workers():
            return bool(self._sum([np.float32(flag)])[0] > 0)

    def broadcast_all(self, arrays):
        arrays = [np.asarray(a) for a in arrays]
        if self.workers == 1:
            return arrays
        with self._lost_workers():
            return self._sum([a if self.chief else np.zeros_like(a) for a in arrays])

    def _sum(self, arrays):
        """Sums of arrays over processes, in one collective per dtype."""
        sums = [None] * len(arrays)
        arrays = [np.asarray(a) for a in arrays]
        # In one order on all processes.
        for dtype in dict.fromkeys(a.dtype for a in arrays):
            chosen = [i for i, a in enumerate(arrays) if a.dtype == dtype]
            flat = np.concatenate([arrays[i].ravel() for i in chosen])
            flat = self._reduction(dtype)(flat).numpy()
            ends = np.cumsum([arrays[i].size for i in chosen])
            for i, part in zip(chosen, np.split(flat, ends[:-1])):
                sums[i] = part.reshape(arrays[i].shape)
        return sums

    def _reduction(self, dtype):
        """The compiled sum over processes of a flat array."""
        if dtype in self._reductions:
            return self._reductions[dtype]

        def replica(values):
            context = tf.distribute.get_replica_context()
            # One replica of a process speaks for it.
            speaks = context.replica_id_in_sync_group % self.local_replicas == 0
            values = tf.where(speaks, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        # For any length, so that it is traced once.
        @tf.function(input_signature=[tf.TensorSpec((None,), dtype)])
        def reduction(values):
            values = self.strategy.run(replica, args=(values,))
            return self.strategy.experimental_local_results(values)[0]

        self._reductions[dtype] = reduction
        return reduction

    @contextlib.contextmanager
    def _lost_workers(self):
        """Turns what collective operations raise into `WorkerLost`."""
        try:
            yield
        except _LOST as error:
            if self.workers == 1:
                raise
            # The line with the cause stands among many.
            lines = [line for line in str(error).splitlines() if "aborted by" in line]
            raise WorkerLost(
                "Another worker is gone or no longer answers: start all workers again "
                "to go on from the last checkpoint. Received: "
                + ": ".join([type(error).__name__, *lines[:1]])
            ) from error


def share(batches, replicas, hosts, host):
    """A host's batches of a data set: `replicas` consecutive ones of every step."""
    if hosts == 1:
        return batches
    numbered = batches.enumerate()
    own = numbered.filter(lambda i, _: i // replicas % hosts == host)
    return own.map(lambda _, batch: batch)


def decay_weights(optimizer, variables, rate):
    """Decoupled weight decay as Keras' optimizers do it, within a replica."""
    if type(optimizer)._apply_weight_decay is not keras.Optimizer._apply_weight_decay:
        optimizer._apply_weight_decay(variables)  # it has a way of its own
        return
    if optimizer.weight_decay is None:
        return
    # Keras' method would leave the replica.
    for variable in variables:
        if optimizer._use_weight_decay(variable):
            decay = tf.cast(rate * optimizer.weight_decay, variable.dtype)
            variable.value.assign_sub(variable.value * decay)
