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

import contextlib
import itertools

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.experimental import multihost_utils

from training.console import Stop
from training.engine import rules
from training.engine.base import Engine, WorkerLost
from training.engine.meeting import cut_at_exec, meet
from training.engine.naming import weight_names

SILENCE = 60  # seconds after which a process is given up
PART = 2**24  # bytes that are broadcast at a time
# In the message of what fails where another process is gone.
LOST = ("gloo", "nccl", "peer", "socket", "connection", "unavailable", "deadline")


def prepare_devices(count):
    """Splits the CPU into logical devices; before anything else asks JAX for one.

    Args:
        count: devices of this process.

    Raises:
        Stop: JAX has made its devices already.
    """
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise Stop(
            "The number of logical CPU devices is chosen before JAX is used. "
            f"Received: {count}"
        ) from error


def join(addresses, index):
    """Connects the processes of a job; before anything else asks JAX for a device.

    Where one of them dies, the others raise `WorkerLost` if their devices notice, as
    CPUs do; JAX itself ends them, with SIGABRT, at once if it was the first and else
    after `SILENCE`. All leave together by `JaxEngine.close`; a process that ends
    otherwise must do so by `os._exit`, or it waits for the others as long.

    Args:
        addresses: `["host:port", …]`, alike on all processes; they meet at the first.
        index: of this process.

    Raises:
        Stop: the others do not come.
    """
    meet(addresses, index)
    # Its handler would replace the one that saves the run at SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        addresses[0],
        num_processes=len(addresses),
        process_id=index,
        heartbeat_timeout_seconds=SILENCE,
        shutdown_timeout_seconds=SILENCE,
    )


class JaxEngine(Engine):
    """Data-parallel steps over all devices that JAX has, in all processes.

    Args:
        devices: how many of this process's devices take part, where it is the only
            process; `None`: all.

    Raises:
        Stop: there are not so many devices.
    """

    def __init__(self, devices=None):
        found = keras.distribution.list_devices()
        if devices is not None and not 1 <= devices <= len(found):
            raise Stop(
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
    def scope(self):
        # Processes compare the first value of every variable.
        with self.distribution.scope(), self._lost_workers():
            yield

    def prepare(self, model, optimizer, objective, options, teacher=None):
        super().prepare(model, optimizer, objective, options, teacher)
        self._held = list(self.variables().values())
        self._trainable = model.trainable_weights
        self._statistics = model.non_trainable_weights
        self._generators = rules.seed_states(model)
        weights = weight_names(model)
        self._averages = [(v, weights[name]) for name, v in self.averages.items()]
        own = teacher if isinstance(teacher, keras.Model) else None
        network = getattr(teacher, "model", own)
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

    def feed(self, make_dataset):
        return self._batches(make_dataset())

    def train(self, iterator, steps):
        # A micro-batch is one draw over all replicas: its stream is the first one's.
        states = rules.seeds(
            self.options.seed,
            self.step,
            steps,
            self.options.accumulate,
            len(self._generators),
        )
        values, taught = _read(self._held), _read(self._taught)
        measured = []
        try:
            with self._lost_workers():
                for state in states.astype("uint32"):
                    batch = next(iterator, None)
                    if batch is None:
                        raise Stop(f"The data end before step {self.step + 1}.")
                    values, result = self._step(values, batch, state, taught)
                    self.step += 1
                    measured.append(result)
                    self._wait(measured)
                measured = np.array([np.asarray(result) for result in measured])
        finally:
            for variable, value in zip(self._held, values):
                if not value.is_deleted():  # as after a step that failed
                    variable.assign(value)
        return {
            "loss": measured[:, 0],
            "accuracy": measured[:, 1],
            "gradient_norm": measured[:, 2],
            "finite": measured[:, 3] > 0,
        }

    def evaluate(self, make_dataset):
        values = _read([*self._trainable, *self._statistics])
        measured = []
        with self._lost_workers():
            for batch in self._batches(make_dataset(), pads=True):
                measured.append(self._measure(values, batch))
                self._wait(measured)
            measured = [np.asarray(sums, "float64") for sums in measured]
        return rules.evaluation_result(np.sum([np.zeros(4), *measured], axis=0))

    def any(self, flag):
        if self.workers == 1:
            return bool(flag)
        with self._lost_workers():
            return bool(multihost_utils.process_allgather(np.array(flag)).any())

    def broadcast_all(self, arrays):
        arrays = [np.asarray(array) for array in arrays]
        if self.workers == 1:
            return arrays
        # As bytes, since JAX would make 32 bits of 64; in parts of one size, since
        # it compiles for every size.
        sent = np.frombuffer(b"".join(a.tobytes() for a in arrays), "uint8")
        parts = np.pad(sent, (0, -len(sent) % PART)).reshape(-1, PART)
        with self._lost_workers():
            parts = [multihost_utils.broadcast_one_to_all(part) for part in parts]
        received = np.concatenate(parts).astype("uint8")
        ends = np.cumsum([array.nbytes for array in arrays])
        return [
            np.frombuffer(piece.tobytes(), array.dtype).reshape(array.shape)
            for array, piece in zip(arrays, np.split(received, ends))
        ]

    def assign(self, variable, array):
        copies = [
            jax.device_put(np.asarray(array), device, may_alias=False)
            for device in self._devices
        ]
        variable.assign(
            jax.make_array_from_single_device_arrays(
                tuple(variable.shape), self._copied, copies
            )
        )

    def close(self):
        # Else a process that ends waits for the others, and JAX ends all of them
        # where one takes long to publish.
        if self.workers > 1:
            jax.distributed.shutdown()

    # Batches.

    def _batches(self, dataset, pads=False):
        """Global batches from this process's batches of one replica each.

        Args:
            dataset: a `tf.data.Dataset`, or an iterable of tuples of arrays that are
                not changed afterwards.
            pads: whether a last batch that not all devices have gets rows of weight
                0; else it is left out.
        """
        numpy = getattr(dataset, "as_numpy_iterator", dataset.__iter__)()
        while parts := list(itertools.islice(numpy, self.local_replicas)):
            missing = self.local_replicas - len(parts)
            if missing and not pads:
                return
            images, *others, last = parts[0]
            parts += [(images, *others, np.zeros_like(last))] * missing
            yield tuple(self._joined(arrays) for arrays in zip(*parts))

    def _joined(self, arrays):
        """One array over all devices from an array for each of this process's."""
        shape = (len(arrays[0]) * self.replicas, *np.shape(arrays[0])[1:])
        placed = [jax.device_put(a, d) for a, d in zip(arrays, self._devices)]
        return jax.make_array_from_single_device_arrays(shape, self._split, placed)

    def _wait(self, queued):
        """Waits until no more than `steps_per_execution` results are to come."""
        if len(queued) > self.options.steps_per_execution:
            queued[-1 - self.options.steps_per_execution].block_until_ready()

    # One step, as it is traced.

    def _take_step(self, values, batch, states, taught):
        """New values of the held variables, and loss, accuracy, norm, finite.

        Args:
            values: of the held variables.
            batch: images and targets, global.
            states: `(accumulate, generators, 2)`, of the seed generators.
            taught: values of the teacher's variables.
        """
        old = _by_variable(self._held, values)
        scale = 1.0 if self.loss_scale is None else old[id(self.loss_scale)]
        weights = [old[id(v)] for v in self._trainable]
        statistics = [old[id(v)] for v in self._statistics]
        gradients, statistics, sums = self._micro_batches(
            weights, statistics, scale / len(batch[0]), states, batch, taught
        )
        gradients = [g / scale for g in gradients]
        norm = rules.global_norm(gradients)
        finite = jnp.isfinite(norm)
        gradients = rules.clip_by_global_norm(gradients, norm, self.options.clip_norm)
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
        measured = jnp.stack([*sums / len(batch[0]), norm, finite.astype("float32")])
        return [new[id(v)] for v in self._held], measured

    def _micro_batches(self, weights, statistics, factor, states, batch, taught):
        """Gradients of the losses' sum times `factor`, the statistics after the last
        micro-batch, and `rules.training_sums`."""
        count = self.options.accumulate
        if count == 1:
            return self._micro_batch(
                weights, statistics, factor, states[0], batch, taught
            )

        def split(array):  # (replicas·b, …) -> (count, replicas·b / count, …)
            rest = array.shape[1:]
            array = array.reshape(self.replicas, count, -1, *rest).swapaxes(0, 1)
            array = array.reshape(count, -1, *rest)
            return jax.lax.with_sharding_constraint(array, self._micro_split)

        def add(carry, part):
            gradients, statistics, sums = carry
            more, statistics, own = self._micro_batch(
                weights, statistics, factor, part[0], part[1:], taught
            )
            gradients = [a + b for a, b in zip(gradients, more)]
            return (gradients, statistics, sums + own), None

        start = ([jnp.zeros_like(w) for w in weights], statistics, jnp.zeros(2))
        # Within a loop, XLA's convolutions on CPUs take ten times as long.
        unroll = self._devices[0].platform == "cpu"
        parts = (states, *map(split, batch))
        return jax.lax.scan(add, start, parts, unroll=unroll)[0]

    def _micro_batch(self, weights, statistics, factor, states, batch, taught):
        images, targets = batch
        answers = None
        if self.teacher is not None:
            with keras.StatelessScope(state_mapping=[*zip(self._taught, taught)]):
                answers = self.teacher(images)
            answers = jax.lax.stop_gradient(answers.astype("float32"))

        def loss(weights):
            mapping = [
                *zip(self._trainable, weights),
                *zip(self._statistics, statistics),
                *zip(self._generators, states),
            ]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                logits = self.model(images, training=True)
            logits = logits.astype("float32")
            losses = self.objective(logits, targets, answers)
            left = [scope.get_current_value(v) for v in self._statistics]
            sums = rules.training_sums(losses, logits, targets)
            return sums[0] * factor, (left, sums)

        gradients, (statistics, sums) = jax.grad(loss, has_aux=True)(weights)
        return gradients, statistics, sums

    def _evaluate(self, values, batch):
        images, labels, weights = batch
        variables = [*self._trainable, *self._statistics]
        with keras.StatelessScope(state_mapping=[*zip(variables, values)]):
            logits = self.model(images, training=False)
        return rules.evaluation_sums(logits, labels, weights)

    @contextlib.contextmanager
    def _lost_workers(self):
        """Turns what collective operations raise into `WorkerLost`."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            first = (str(error).splitlines() or [""])[0]
            if self.workers == 1 or not any(w in first.lower() for w in LOST):
                raise
            cut_at_exec()
            raise WorkerLost(
                "Another worker is gone or no longer answers: start all workers again "
                f"to go on from the last checkpoint. Received: {first}"
            ) from error


def _read(variables):
    return [variable.value for variable in variables]


def _by_variable(variables, values):
    return dict(zip(map(id, variables), values))
