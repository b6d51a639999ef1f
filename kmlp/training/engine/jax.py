"""The engine on JAX: one compiled step over all devices of all processes.

Variables are laid out by `keras.distribution.DataParallel`, a copy on every device;
batches are split over the devices, and the compiler puts the sums between them. So
the step is written for the global batch, and what follows from it holds for it:

- BatchNorm's statistics are taken over the global batch (with accumulation, over the
  micro-batches of all replicas together), whatever `sync_batchnorm` says.
- Dropout is drawn for the global batch: a run draws alike on any number of devices.

XLA compiles every step, whatever `xla` says. `steps_per_execution` is how many steps
may wait in the devices' queue before Python waits for the oldest; the program is that
of a single step, so results do not depend on it.
"""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.experimental import multihost_utils

from kmlp.errors import InputError
from kmlp.training.engine import rules
from kmlp.training.engine.engine import Engine, MakeDataset
from kmlp.training.engine.meeting import cut_at_exec
from kmlp.training.engine.rules import cut, measurements, rows

PART = 2**24  # bytes that are broadcast at a time
# In the message of what fails where another process is gone.
LOST = ("gloo", "nccl", "peer", "socket", "connection", "unavailable", "deadline")


class JaxEngine(Engine):
    """Take data-parallel steps over all devices that JAX has, in all processes.

    Args:
        devices: Number of this process's devices that take part, where it is the only
            process; `None`: all.

    Raises:
        InputError: If there are not so many devices.
    """

    losses = (RuntimeError, ValueError)

    def __init__(self, devices: int | None = None):
        found = keras.distribution.list_devices()
        if devices is not None and not 1 <= devices <= len(found):
            raise InputError(
                f"There are {len(found)} devices ({', '.join(found[:4])} …): choose "
                f"1 to {len(found)}. Received: {devices}"
            )
        self.distribution = keras.distribution.DataParallel(
            devices=found[:devices], auto_shard_dataset=False
        )
        mesh = self.distribution.device_mesh.backend_mesh
        axis = self.distribution.batch_dim_name
        spec = jax.sharding.PartitionSpec
        self._copied = jax.sharding.NamedSharding(mesh, spec())
        self._split = jax.sharding.NamedSharding(mesh, spec(axis))
        self._micro_split = jax.sharding.NamedSharding(mesh, spec(None, axis))
        self._devices = list(mesh.local_devices)
        # Processes infer on their own, since they may have more or fewer batches.
        own = jax.sharding.Mesh(np.array(self._devices), [axis])
        self._own_copied = jax.sharding.NamedSharding(own, spec())
        self._own_split = jax.sharding.NamedSharding(own, spec(axis))
        self.replicas, self.local_replicas = mesh.size, len(self._devices)
        self.workers, self.worker = jax.process_count(), jax.process_index()
        self.chief = self.worker == 0
        platform = self._devices[0].platform.upper()
        self.description = ", ".join(
            [f"{self.replicas} {platform} device{'s' * (self.replicas > 1)}"]
            + [f"{self.workers} processes"] * (self.workers > 1)
            + ["keras.distribution.DataParallel on JAX"]
        )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        # Processes compare the first value of every variable.
        with self.distribution.scope(), self._lost_workers():
            yield

    def prepare(self, model: keras.Model, *others: Any, **more: Any) -> None:
        super().prepare(model, *others, **more)
        self._held = list(self.variables().values())
        self._trainable = model.trainable_weights
        self._statistics = model.non_trainable_weights
        own = self.teacher if isinstance(self.teacher, keras.Model) else None
        network = getattr(self.teacher, "model", own)
        self._taught = [] if network is None else network.variables
        # All processes begin alike, and no two variables share a buffer, as averages
        # do with the weights they began as: a step overwrites its arguments.
        variables = [*self._held, *self._taught]
        arrays = [np.asarray(variable.value) for variable in variables]
        for variable, array in zip(variables, self.broadcast_all(arrays)):
            self.assign(variable, array)
        self._step = jax.jit(
            self._take_step, donate_argnums=0, out_shardings=self._copied
        )
        self._measure = jax.jit(self._evaluate, out_shardings=self._copied)
        self._infer = jax.jit(self._answer, out_shardings=self._own_split)

    def feed(self, make_dataset: MakeDataset) -> Iterator:
        return (
            self._joined(parts, self._split)
            for parts in self._groups(make_dataset())
            if len(parts) == self.local_replicas
        )

    def train(self, iterator: Iterator, steps: int) -> dict[str, np.ndarray]:
        # A micro-batch is one draw over all replicas: its stream is the first one's.
        states = self._seeds(steps, streams=1)
        values, taught = _read(self._held), _read(self._taught)
        results: list[jax.Array] = []
        try:
            with self._lost_workers():
                for state in states.astype("uint32"):
                    batch = next(iterator, None)
                    if batch is None:
                        raise InputError(f"The data end before step {self.step + 1}.")
                    values, result = self._step(values, batch, state, taught)
                    self.step += 1
                    results.append(result)
                    self._wait(results)
                measured = np.array([np.asarray(result) for result in results])
        finally:
            for variable, value in zip(self._held, values):
                if not value.is_deleted():  # as after a step that failed
                    variable.assign(value)
        return measurements(self.task, measured)

    def _batch_sums(self, dataset):
        values = _read([*self._trainable, *self._statistics])
        queued = collections.deque()
        for parts in self._weighted(dataset):
            queued.append(self._measure(values, self._joined(parts, self._split)))
            if len(queued) > self.options.steps_per_execution:
                yield queued.popleft()
        yield from queued

    def _answers(self, inputs):
        values = [
            jax.make_array_from_single_device_arrays(
                value.shape,
                self._own_copied,
                [shard.data for shard in value.addressable_shards],
            )
            for value in _read([*self._trainable, *self._statistics])
        ]
        answers = self._infer(values, self._joined(inputs, self._own_split))
        answers, size = jax.tree.map(np.asarray, answers), rows(inputs[0])
        return [cut(answers, size, index * size) for index in range(len(inputs))]

    def _answerable(self, dataset):
        # Images of one size each: where sizes change, batches come alone.
        for group in self._groups(dataset):
            sizes = {jax.tree.leaves(batch[0])[0].shape[1:] for batch in group}
            yield from [group] if len(sizes) == 1 else [[batch] for batch in group]

    def _gathered(self, data):
        size = np.array(len(data), "int32")
        sizes = multihost_utils.process_allgather(size).tolist()
        found = _by_parts(multihost_utils.process_allgather, data, max(sizes))
        return [own.tobytes()[:size] for own, size in zip(found, sizes)]

    def _any(self, flag):
        return bool(multihost_utils.process_allgather(np.array(flag)).any())

    def _of_chief(self, arrays):
        # As bytes, since JAX would make 32 bits of 64.
        sent = b"".join(array.tobytes() for array in arrays)
        found = _by_parts(multihost_utils.broadcast_one_to_all, sent, len(sent))
        ends = np.cumsum([array.nbytes for array in arrays])
        return [
            np.frombuffer(piece.tobytes(), array.dtype).reshape(array.shape)
            for array, piece in zip(arrays, np.split(found, ends))
        ]

    def assign(self, variable: keras.Variable, array: np.ndarray) -> None:
        copies = [
            jax.device_put(np.asarray(array), device, may_alias=False)
            for device in self._devices
        ]
        variable.assign(
            jax.make_array_from_single_device_arrays(
                tuple(variable.shape), self._copied, copies
            )
        )

    def close(self) -> None:
        # Else a process that ends waits for the others, and JAX ends all of them
        # where one takes long to publish.
        if self.workers > 1:
            jax.distributed.shutdown()

    def _joined(self, batches, sharding):
        """Join a tree for each of this process's devices into one over all devices."""
        devices = len(sharding.device_set)

        def join(*arrays: np.ndarray) -> jax.Array:
            shape = (len(arrays[0]) * devices, *np.shape(arrays[0])[1:])
            placed = [jax.device_put(a, d) for a, d in zip(arrays, self._devices)]
            return jax.make_array_from_single_device_arrays(shape, sharding, placed)

        return jax.tree.map(join, *batches)

    def _wait(self, queued):
        """Wait until no more than `steps_per_execution` results are to come."""
        if len(queued) > self.options.steps_per_execution:
            queued[-1 - self.options.steps_per_execution].block_until_ready()

    # One step, as it is traced.

    def _take_step(self, values, batch, states, taught):
        """Return the held variables' new values, and the measures, norm, finite.

        Args:
            values: Values of the held variables.
            batch: Images and targets, global.
            states: States `(accumulate, generators, 2)` of the seed generators.
            taught: Values of the teacher's variables.
        """
        old = _by_variable(self._held, values)
        size = rows(batch)
        scale = 1.0 if self.loss_scale is None else old[id(self.loss_scale)]
        weights = [old[id(v)] for v in self._trainable]
        statistics = [old[id(v)] for v in self._statistics]
        gradients, statistics, sums = self._micro_batches(
            weights, statistics, scale / size, states, batch, taught
        )
        bound = self.options.clip_norm
        gradients, norm, finite = rules.clipped(gradients, scale, bound)
        slots = [old[id(v)] for v in self.optimizer.variables]
        weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)

        new = old | _by_variable(
            [*self._trainable, *self._statistics, *self.optimizer.variables],
            [*weights, *statistics, *slots],
        )
        for average, weight in self._averages:
            new[id(average)] = rules.next_average(
                old[id(average)], new[id(weight)], self.options.ema
            )
        for key, value in old.items():
            new[key] = jnp.where(finite, new[key], value)
        if self.loss_scale is not None:
            pair = [self.loss_scale, self.loss_scale_steps]
            scales = rules.next_loss_scale(*[old[id(v)] for v in pair], finite)
            new |= _by_variable(pair, scales)
        measured = jnp.stack([*sums / size, norm, finite.astype("float32")])
        return [new[id(v)] for v in self._held], measured

    def _micro_batches(self, weights, statistics, factor, states, batch, taught):
        """Return the gradients, statistics and sums over all micro-batches.

        The gradients are of the losses' sum times `factor`, the statistics those after
        the last micro-batch, the sums the task's.
        """
        count = self.options.accumulate
        if count == 1:
            return self._micro_batch(
                weights, statistics, factor, states[0], batch, taught
            )

        # (replicas·b, …) -> (count, replicas·b / count, …)
        def split(array: jax.Array) -> jax.Array:
            rest = array.shape[1:]
            array = array.reshape(self.replicas, count, -1, *rest).swapaxes(0, 1)
            array = array.reshape(count, -1, *rest)
            return jax.lax.with_sharding_constraint(array, self._micro_split)

        def add(carry: Any, part: Any) -> Any:
            gradients, statistics, sums = carry
            states, batch = part
            more, statistics, own = self._micro_batch(
                weights, statistics, factor, states, batch, taught
            )
            gradients = [a + b for a, b in zip(gradients, more)]
            return (gradients, statistics, sums + own), None

        sums = jnp.zeros(len(self.task.measures))
        start = ([jnp.zeros_like(w) for w in weights], statistics, sums)
        # Within a loop, XLA's convolutions on CPUs take ten times as long.
        unroll = self._devices[0].platform == "cpu"
        parts = (states, jax.tree.map(split, batch))
        return jax.lax.scan(add, start, parts, unroll=unroll)[0]

    def _micro_batch(self, weights, statistics, factor, states, batch, taught):
        images, targets = batch
        answers = None
        if self.teacher is not None:
            with keras.StatelessScope(state_mapping=[*zip(self._taught, taught)]):
                answers = self.teacher(images)
            answers = jax.lax.stop_gradient(answers.astype("float32"))

        def loss(weights: Any) -> Any:
            mapping = [
                *zip(self._trainable, weights),
                *zip(self._statistics, statistics),
                *zip(self._generators, states),
            ]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                losses, sums = self.task.training(self.model, images, targets, answers)
            left = [scope.get_current_value(v) for v in self._statistics]
            return jnp.sum(losses) * factor, (left, sums)

        gradients, (statistics, sums) = jax.grad(loss, has_aux=True)(weights)
        return gradients, statistics, sums

    def _evaluate(self, values, batch):
        with self._inference(values):
            return self.task.evaluation(self.model, *batch)

    def _answer(self, values, images):
        with self._inference(values):
            return self.model(images, training=False)

    def _inference(self, values):
        variables = [*self._trainable, *self._statistics]
        return keras.StatelessScope(state_mapping=[*zip(variables, values)])

    def _cause(self, error):
        first = (str(error).splitlines() or [""])[0]
        if not any(word in first.lower() for word in LOST):
            return None
        cut_at_exec()
        return first


def _by_parts(collective, data, size):
    """Apply a collective to bytes, of which processes have at most `size`, in parts.

    They are sent in parts of one size, since JAX compiles for every size.
    """
    count = max(1, -(-size // PART))
    sent = np.frombuffer(data + bytes(count * PART - len(data)), "uint8")
    parts = [collective(part) for part in sent.reshape(count, PART)]
    return np.concatenate(parts, axis=-1).astype("uint8")


def _read(variables):
    return [variable.value for variable in variables]


def _by_variable(variables, values):
    return dict(zip(map(id, variables), values))
