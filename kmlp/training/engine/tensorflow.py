"""The engine on TensorFlow: `tf.distribute` with a loop of its own.

Each replica computes gradients, moving statistics and sums from its batch; they meet
in one all-reduce. What follows, clipping and update, every replica computes for its
own copies of the variables from equal numbers, so that they stay equal.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp import keras_internals
from kmlp.errors import InputError
from kmlp.training.engine.engine import Engine, MakeDataset
from kmlp.training.engine.gradient_steps import Network, synchronized
from kmlp.training.engine.rules import (
    clipped,
    measurements,
    next_average,
    next_loss_scale,
)


class TensorFlowEngine(Engine):
    """Train under a `tf.distribute` strategy.

    Args:
        strategy: One-device, mirrored, multi-worker or TPU strategy.
        description: Devices for people.
        workers, worker: Number of processes, and this one's index.
    """

    losses = (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    )

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        description: str,
        *,
        workers: int = 1,
        worker: int = 0,
    ):
        self.strategy = strategy
        self.description = description
        self.workers, self.worker = workers, worker
        self.chief = worker == 0
        self.replicas = strategy.num_replicas_in_sync
        self.local_replicas = self.replicas // workers
        self._reductions: dict[Any, Any] = {}  # dtype -> sum over processes

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        # Variables begin as the chief's, which is communication.
        with self._lost_workers(), self.strategy.scope():
            yield

    def prepare(self, model: keras.Model, *others: Any, **more: Any) -> None:
        """Take what is trained, as in `Engine`.

        Raises:
            InputError: If XLA is to compile synchronized BatchNorm on several replicas.
        """
        super().prepare(model, *others, **more)
        options = self.options
        self._network = network = Network(
            model,
            self.task,
            options.accumulate,
            options.sync_batchnorm and self.replicas > 1,
        )
        # A TPU compiles everything itself.
        tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)
        compiled = options.xla and not tpu
        if compiled and network.norms:
            raise InputError(
                "XLA cannot compile BatchNorm that is synchronized over replicas: "
                "leave XLA out or set sync_batchnorm=false. Received: xla with "
                f"sync_batchnorm on {self.replicas} replicas"
            )
        self._step: Any = self._replica_step
        self._gradients: Any = network.gradients
        self._evaluated, self._answered = network.evaluated, network.answers
        if compiled:
            self._evaluated = tf.function(network.evaluated, jit_compile=True)
            self._answered = tf.function(network.answers, jit_compile=True)
            if self.replicas == 1:
                self._step = tf.function(self._replica_step, jit_compile=True)
            else:
                # This touches no variable and no other replica.
                self._gradients = tf.function(network.gradients, jit_compile=True)
        self._execute = tf.function(self._steps)
        self._measure = tf.function(self._evaluation_step)
        self._infer = tf.function(self._inference_step)

    # Training.

    def feed(self, make_dataset: MakeDataset) -> Iterator:
        def dataset(context: Any) -> tf.data.Dataset:
            # An infinite cardinality spares a collective per step that would ask
            # every worker for more data.
            endless = tf.data.experimental.assert_cardinality(
                tf.data.experimental.INFINITE_CARDINALITY
            )
            hosts = context.num_input_pipelines // self.workers
            host = context.input_pipeline_id % hosts
            own = share(make_dataset(), self.local_replicas // hosts, hosts, host)
            return own.apply(endless)

        return iter(self.strategy.distribute_datasets_from_function(dataset))

    def train(self, iterator: Iterator, steps: int) -> dict[str, np.ndarray]:
        options = self.options
        table = self._seeds(steps, self.replicas)
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
        return measurements(self.task, values)

    def _steps(self, iterator, streams, count):
        """Take `count` steps without Python in between; return a row of values each."""
        # A loop for a single step too: the same graph, so the same bits.
        size = self.options.steps_per_execution
        width = len(self.task.measures) + 2
        values = tf.TensorArray(tf.float32, size, element_shape=(width,))
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
        """Take one step on all replicas; return the measures, gradient norm, finite."""
        with synchronized(self._network.norms, self.replicas):
            values = self.strategy.run(self._step, args=(*iterator.get_next(), streams))
        # Every replica has the same.
        values = self.strategy.experimental_local_results(values)[0]
        finite = values[-1] > 0
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
        """Take a replica's part of a step, from its batch to its updated copies."""
        context = tf.distribute.get_replica_context()
        global_batch = tf.nest.flatten(images)[0].shape[0] * self.replicas
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
        bound = self.options.clip_norm
        gradients, norm, finite = clipped(gradients, scale, bound)

        def update() -> bool:
            self._update(gradients, statistics)
            return True

        tf.cond(finite, update, lambda: False)
        return tf.concat([sums, [norm, tf.cast(finite, tf.float32)]], axis=0)

    def _update(self, gradients, statistics):
        """Assign this replica's copies of everything that a step changes.

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

    def evaluate(self, make_dataset: MakeDataset) -> np.ndarray:
        sums = super().evaluate(make_dataset)
        if self.workers > 1:
            with self._lost_workers():
                (sums,) = self._sum([sums])
        return sums

    def _batch_sums(self, dataset):
        for group in self._weighted(dataset):
            yield from (own.numpy() for own in self._measure(self._spread(group)))

    def _answers(self, inputs):
        with self._lost_workers():
            answers = self._infer(self._spread([(image,) for image in inputs]))
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), answers)

    def _spread(self, values):
        """Give each replica of this process its value, as `strategy.run` takes it."""
        values = tf.nest.map_structure(tf.constant, values)
        if self.replicas == 1:
            return values[0]
        first = self.worker * self.local_replicas
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group - first]
        )

    def _evaluation_step(self, batch):
        def replica(*batch: Any) -> tf.Tensor:
            return self._evaluated(*self._network.values(), *batch)

        sums = self.strategy.run(replica, args=batch)
        return self.strategy.experimental_local_results(sums)

    def _inference_step(self, inputs):
        def replica(images: Any) -> Any:
            return self._answered(*self._network.values(), images)

        answers = self.strategy.run(replica, args=inputs)
        return tuple(
            tf.nest.map_structure(
                lambda x, i=i: self.strategy.experimental_local_results(x)[i], answers
            )
            for i in range(self.local_replicas)
        )

    # Between processes.

    def _any(self, flag):
        return bool(self._sum([np.float32(flag)])[0] > 0)

    def _of_chief(self, arrays):
        return self._sum([a if self.chief else np.zeros_like(a) for a in arrays])

    def _gathered(self, data):
        sizes = np.zeros(self.workers, "int64")
        sizes[self.worker] = len(data)
        (sizes,) = self._sum([sizes])
        gathered = []
        for worker, size in enumerate(sizes):
            # Collectives take no bytes: four of them make an integer.
            sent = np.zeros(-(-int(size) // 4), "int32")
            if worker == self.worker:
                sent = np.frombuffer(data + bytes(-len(data) % 4), "int32")
            (received,) = self._sum([sent])
            gathered.append(received.tobytes()[:size])
        return gathered

    def _cause(self, error):
        # The line with the cause stands among many.
        lines = [line for line in str(error).splitlines() if "aborted by" in line]
        return ": ".join([type(error).__name__, *lines[:1]])

    def _sum(self, arrays):
        """Sum arrays over processes, in one collective per dtype."""
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
        """Return the compiled sum over processes of a flat array."""
        if dtype in self._reductions:
            return self._reductions[dtype]

        def replica(values: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # One replica of a process speaks for it.
            speaks = context.replica_id_in_sync_group % self.local_replicas == 0
            values = tf.where(speaks, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        # For any length, so that it is traced once.
        @tf.function(input_signature=[tf.TensorSpec((None,), dtype)])
        def reduction(values: tf.Tensor) -> tf.Tensor:
            values = self.strategy.run(replica, args=(values,))
            return self.strategy.experimental_local_results(values)[0]

        self._reductions[dtype] = reduction
        return reduction


def share(
    batches: tf.data.Dataset, replicas: int, hosts: int, host: int
) -> tf.data.Dataset:
    """Return a host's batches of a data set: `replicas` consecutive ones a step."""
    if hosts == 1:
        return batches
    numbered = batches.enumerate()
    own = numbered.filter(lambda i, _: i // replicas % hosts == host)
    return own.map(lambda _, batch: batch)


def decay_weights(
    optimizer: keras.Optimizer, variables: list[keras.Variable], rate: Any
) -> None:
    """Decay weights, decoupled, as Keras' optimizers do, within a replica."""
    if keras_internals.decay_weights(optimizer, variables):
        return
    if optimizer.weight_decay is None:
        return
    # Keras' method would leave the replica.
    for variable in variables:
        if keras_internals.decays(optimizer, variable):
            decay = tf.cast(rate * optimizer.weight_decay, variable.dtype)
            variable.value.assign_sub(variable.value * decay)
