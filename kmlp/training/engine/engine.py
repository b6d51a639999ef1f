"""What is learned: the losses of a step and the figures of an evaluation."""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.training.engine.rules import FIRST_LOSS_SCALE
from kmlp.training.engine.weight_names import (
    frozen,
    is_float,
    mismatch,
    optimizer_names,
    spec,
    weight_names,
)


class Task:
    """What an engine asks about a model, whatever it is for.

    Measures and results whose names end in "loss" are numbers; the others are shares
    in 0…1, shown as percentages. All arrays are trees: a tensor, or dicts and tuples
    of tensors, with the images of the batch as their first axis.

    Attributes:
        measures: names of what a training step measures, "loss" first.
        score: name of the result by which the best weights are chosen, the larger the
            better.
    """

    measures: tuple[str, ...] = ("loss",)
    score = "score"

    def training(self, model, images, targets, taught=None):
        """Losses of a step; the model's weights have the values to be learned from.

        Args:
            model: called as `model(images, training=True)`, whatever that gives;
                further layers of it may be called on the result.
            images, targets: of a micro-batch, `(N, …)`.
            taught: a teacher's answer to the images, float32; `None`: no teacher.

        Returns:
            `(N,)` float32 losses, whose mean is minimised; `(len(measures),)` float32
            sums over the batch, the losses' first.
        """
        raise NotImplementedError

    def evaluation(self, model, *batch):
        """Sums over a batch, float32 of any fixed shape.

        Args:
            model: called as `model(images, training=False)`.
            batch: as the data set gives it; its last array is `(N,)` weights, 0 for
                rows that do not count and may hold anything.
        """
        raise NotImplementedError

    def result(self, sums):
        """Results by name from the sums of all batches, float64.

        `"count"`, the images measured, is not written into a run's history.
        """
        raise NotImplementedError

    def validate(self, engine, make_dataset):
        """The results of an engine's model as it stands; all processes must call.

        Args:
            engine: whose `evaluate`, or `infer` and `gather`, see the data.
            make_dataset: of this process's share of the data.
        """
        return self.result(engine.evaluate(make_dataset))


PRECISIONS = ("float32", "bfloat16", "float16")


class WorkerLost(Exception):
    """Another process of the job died or no longer answers."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a training step does besides forward, backward and update.

    Attributes:
        clip_norm: largest global norm of the gradient; `None`: not clipped.
        ema: decay of the moving average of the weights; `None`: none is held.
        accumulate: micro-batches into which a replica splits its batch.
        precision: one of `PRECISIONS`; the model is built with it already, here it
            decides on loss scaling.
        xla: whether the step is compiled by XLA.
        steps_per_execution: steps that run without coming back to Python.
        sync_batchnorm: BatchNorm's statistics are taken over all replicas.
        seed: of dropout and stochastic depth.
    """

    clip_norm: float | None = None
    ema: float | None = None
    accumulate: int = 1
    precision: str = "float32"
    xla: bool = False
    steps_per_execution: int = 1
    sync_batchnorm: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision must be one of {', '.join(PRECISIONS)}. "
                f"Received: {self.precision!r}"
            )
        for name in ("accumulate", "steps_per_execution"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be a positive integer. "
                    f"Received: {getattr(self, name)}"
                )


class Engine:
    """Takes training steps on all replicas of all processes.

    Attributes:
        replicas: over all processes; `local_replicas` are this process's.
        workers: processes; `worker` is this one's index, `chief` whether it is the
            one that writes.
        description: for people, such as `"2 CPU devices, MirroredStrategy"`.
        step: optimizer steps begun so far, which is the position in the data; it also
            counts steps that a non-finite gradient left without effect.

    The calls, in order: model and optimizer are made inside `scope()` and handed to
    `prepare`; then `feed`, `train`, `evaluate`, `state` and `restore` as wished.
    """

    replicas = local_replicas = workers = 1
    worker = 0
    chief = True
    description = ""
    step = 0

    def scope(self):
        """Context in which model, optimizer and teacher are made."""
        return contextlib.nullcontext()

    def prepare(self, model, optimizer, task, options, teacher=None):
        """Takes what is trained, and how.

        Args:
            model: a built `keras.Model`; the weights of layers whose `trainable` is
                false stay as they are, BatchNorm's statistics too.
            optimizer: of Keras, with a schedule of its own iterations as its
                learning rate; without clipping, EMA or accumulation of its own.
            task: `Task`, what the model is to learn.
            options: `Options`.
            teacher: `teacher(images)`, whose answer the task is given, or `None`.
        """
        self.model, self.optimizer = model, optimizer
        self.task, self.options, self.teacher = task, options, teacher
        self.step = 0
        self.averages = {}  # name without prefix -> the moving average of a weight
        self.loss_scale = self.loss_scale_steps = None
        with self.scope():
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            if options.ema is not None:
                still = frozen(model)  # rounding would move their average
                self.averages = {
                    name: keras.Variable(weight, trainable=False, dtype=weight.dtype)
                    for name, weight in weight_names(model).items()
                    if is_float(weight) and id(weight) not in still
                }
            if options.precision == "float16":
                self.loss_scale = replicated(FIRST_LOSS_SCALE, "float32")
                self.loss_scale_steps = replicated(0, "int32")

    def feed(self, make_dataset):
        """An iterator for `train`.

        Args:
            make_dataset: `() -> tf.data.Dataset` of this process's batches of one
                replica each, `(images, targets)`, where targets may be a tree of
                tensors; its replicas take them in turn.
        """
        raise NotImplementedError

    def train(self, iterator, steps):
        """Takes steps.

        Returns:
            the task's measures by name, `"gradient_norm"` and `"finite"`, each a NumPy
            array of `steps` values over the global batch; the norm is that before
            clipping, `finite` says whether the step had an effect.

        Raises:
            WorkerLost: another process is gone.
        """
        raise NotImplementedError

    def evaluate(self, make_dataset):
        """Sums over the model as it stands, of which the task makes results.

        Args:
            make_dataset: `() -> tf.data.Dataset` of this process's batches as
                `Task.evaluation` takes them, weights last; as many in all processes.

        Returns:
            the task's sums over all batches of all processes, float64.

        Raises:
            InputError: there are no batches.
        """
        raise NotImplementedError

    def infer(self, make_dataset):
        """Yields what the model as it stands answers to this process's batches.

        Other processes take no part, and may have another number of batches.

        Args:
            make_dataset: `() -> tf.data.Dataset` of batches, tuples whose first entry
                the model is called on and whose others may be trees; the last batch
                may be smaller than the first.

        Yields:
            `(batch, outputs)`, trees of NumPy arrays, in the order of the batches.
        """
        raise NotImplementedError

    def gather(self, data):
        """What every process has to say, in their order; all must call.

        Args:
            data: bytes of any length.

        Returns:
            a list of bytes, alike on all processes.
        """
        raise NotImplementedError

    def any(self, flag):
        """Whether `flag` is true on one of the processes; all must call it."""
        raise NotImplementedError

    def broadcast(self, array):
        """The chief's array, on all processes; all must call it with equal shapes."""
        return self.broadcast_all([array])[0]

    def broadcast_all(self, arrays):
        """`broadcast` of a list of arrays."""
        raise NotImplementedError

    def close(self):
        """Parts from the other processes in agreement; all must call, when trained.

        Afterwards a process can end while another is still busy. What was trained can
        be read as before.
        """

    def variables(self):
        """`{name in the state: keras.Variable}` in a fixed order."""
        named = {f"model/{n}": v for n, v in weight_names(self.model).items()}
        for name, variable in optimizer_names(self.optimizer, self.model).items():
            named[f"optimizer/{name}"] = variable
        for name, variable in self.averages.items():
            named[f"ema/{name}"] = variable
        if self.loss_scale is not None:
            named["loss_scale"] = self.loss_scale
            named["loss_scale_steps"] = self.loss_scale_steps
        return named

    def state(self):
        """All that decides the future, as `{name: array}`; alike on all processes."""
        arrays = {
            name: np.array(ops.convert_to_numpy(variable))
            for name, variable in self.variables().items()
        }
        arrays["step"] = np.array(self.step, "int64")
        return arrays

    def restore(self, state):
        """Continues from a state; the chief's reaches everyone.

        Args:
            state: as `state()` gave it; on other processes than the chief it is not
                read and may be `None`. All processes must call.

        Raises:
            InputError: names are missing or unknown, or shapes differ.
        """
        named = self.variables()
        problem = mismatch(state, named) if self.chief else ""
        if self.any(bool(problem)):
            raise InputError(problem or "The chief could not restore its checkpoint.")
        arrays = []
        for name, variable in [*named.items(), ("step", None)]:
            shape, dtype = ((), "int64") if variable is None else spec(variable)
            value = state[name] if self.chief else np.zeros(shape)
            arrays.append(np.asarray(value).astype(dtype))
        if self.workers > 1:
            arrays = self.broadcast_all(arrays)
        for variable, array in zip(named.values(), arrays):
            self.assign(variable, array)
        self.step = int(arrays[-1])

    def assign(self, variable, array):
        """Sets a variable on all replicas of this process."""
        variable.assign(array)

    @contextlib.contextmanager
    def averaged(self):
        """Inside, the model holds the moving averages in place of its weights.

        Raises:
            ValueError: no average is held.
        """
        if not self.averages:
            raise InputError(
                "There is no moving average of the weights: set `ema`. Received: "
                f"ema={self.options.ema}"
            )
        weights = weight_names(self.model)
        held = {n: np.array(ops.convert_to_numpy(weights[n])) for n in self.averages}
        try:
            for name, average in self.averages.items():
                self.assign(weights[name], ops.convert_to_numpy(average))
            yield
        finally:
            for name, array in held.items():
                self.assign(weights[name], array)


def replicated(value, dtype):
    """A scalar variable that is alike on all replicas."""
    return keras.Variable(
        value, dtype=dtype, trainable=False, aggregation="only_first_replica"
    )
