"""The interface of every engine, and of the task that it learns."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError, check_choice, check_positive
from kmlp.training.engine.rules import (
    FIRST_LOSS_SCALE,
    cut,
    filled,
    rows,
    seed_states,
    seeds,
    total,
)
from kmlp.training.engine.weight_names import (
    frozen,
    is_float,
    mismatch,
    optimizer_names,
    spec,
    weight_names,
)

PRECISIONS = ("float32", "bfloat16", "float16")
# A tree of tensors or arrays, with the images of a batch as their first axis.
Tree = Any
# A function to a `tf.data.Dataset`, or an iterable of tuples of arrays.
MakeDataset = Callable[[], Any]


class Task:
    """The questions that an engine asks about a model, whatever it is for.

    Measures and results whose names end in "loss" are numbers; the others are shares
    in 0…1, shown as percentages. All arrays are trees: a tensor, or dicts and tuples
    of tensors, with the images of the batch as their first axis.

    Attributes:
        measures: Names of what a training step measures, "loss" first.
        score: Name of the result by which the best weights are chosen, the larger the
            better.
    """

    measures: tuple[str, ...] = ("loss",)
    score = "score"

    def training(
        self, model: keras.Model, images: Tree, targets: Tree, taught: Tree = None
    ) -> tuple[Any, Any]:
        """Return the losses of a step, at the weights that the model holds.

        Args:
            model: Model, called as `model(images, training=True)`, whatever that gives;
                further layers of it may be called on the result.
            images, targets: Trees of a micro-batch, `(N, …)`.
            taught: A teacher's answer to the images, float32; `None`: no teacher.

        Returns:
            Losses `(N,)`, float32, whose mean is minimised; `(len(measures),)` float32
            sums over the batch, the losses' first.
        """
        raise NotImplementedError

    def evaluation(self, model: keras.Model, *batch: Tree) -> Any:
        """Return sums over a batch, float32 of any fixed shape.

        Args:
            model: Model, called as `model(images, training=False)`.
            *batch: Parts of the batch; the last is `(N,)` weights, 0 for rows that do
                not count and may hold anything.
        """
        raise NotImplementedError

    def result(self, sums: np.ndarray) -> dict[str, float]:
        """Return results by name from the sums of all batches, float64.

        `"count"`, the images measured, is not written into a run's history.
        """
        raise NotImplementedError

    def validate(self, engine: "Engine", make_dataset: MakeDataset) -> dict[str, float]:
        """Return the results of an engine's model; all processes must call.

        Args:
            engine: Engine whose `evaluate`, or `infer` and `gather`, see the data.
            make_dataset: Function to this process's share of the data.
        """
        return self.result(engine.evaluate(make_dataset))


class WorkerLost(Exception):
    """Another process of the job died or no longer answers.

    Args:
        cause: What the devices said.
    """

    def __init__(self, cause: str):
        super().__init__(
            "Another worker is gone or no longer answers: start all workers again "
            f"to go on from the last checkpoint. Received: {cause}"
        )


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a training step besides forward, backward and update.

    Attributes:
        clip_norm: Largest global norm of the gradient; `None`: not clipped.
        ema: Decay of the moving average of the weights; `None`: none is held.
        accumulate: Micro-batches into which a replica splits its batch.
        precision: One of `PRECISIONS`; the model is built with it already, here it
            decides on loss scaling.
        xla: Whether XLA compiles the step.
        steps_per_execution: Steps that run without coming back to Python.
        sync_batchnorm: Whether BatchNorm's statistics are taken over all replicas.
        seed: Seed of dropout and stochastic depth.
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
        check_choice(PRECISIONS, precision=self.precision)
        check_positive(
            accumulate=self.accumulate, steps_per_execution=self.steps_per_execution
        )


class Engine:
    """Take training steps on all replicas of all processes.

    Attributes:
        replicas: Replicas of all processes; `local_replicas` are this process's.
        workers: Number of processes; `worker` is this one's index, `chief` whether it
            is the one that writes.
        description: Devices for people, such as `"2 CPU devices, MirroredStrategy"`.
        step: Optimizer steps begun so far, which is the position in the data; it also
            counts steps that a non-finite gradient left without effect.
        losses: What collective operations raise where another process is gone.

    The calls, in order: model and optimizer are made inside `scope()` and handed to
    `prepare`; then `feed`, `train`, `evaluate`, `state` and `restore` as wished.
    """

    replicas = local_replicas = workers = 1
    worker = 0
    chief = True
    description = ""
    step = 0
    losses: tuple[type[Exception], ...] = ()

    def scope(self) -> AbstractContextManager:
        """Return the context in which model, optimizer and teacher are made."""
        return contextlib.nullcontext()

    def prepare(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        task: Task,
        options: Options,
        teacher: Callable[[Tree], Any] | None = None,
    ) -> None:
        """Take what is trained, and how.

        Args:
            model: Built model; the weights of layers whose `trainable` is false stay
                as they are, BatchNorm's statistics too.
            optimizer: Optimizer with a schedule of its own iterations as its learning
                rate; without clipping, EMA or accumulation of its own.
            task: What the model is to learn.
            options: What a step does besides.
            teacher: Function of images, whose answer the task is given, or `None`.
        """
        self.model, self.optimizer = model, optimizer
        self.task, self.options, self.teacher = task, options, teacher
        self.step = 0
        # Name without prefix -> the moving average of a weight.
        self.averages: dict[str, keras.Variable] = {}
        self.loss_scale: keras.Variable | None = None
        self.loss_scale_steps: keras.Variable | None = None
        self._generators = seed_states(model)
        weights = weight_names(model)
        with self.scope():
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            if options.ema is not None:
                still = frozen(model)  # rounding would move their average
                # Of arrays: a variable made of another one may share its memory.
                self.averages = {
                    name: keras.Variable(_array(w), trainable=False, dtype=w.dtype)
                    for name, w in weights.items()
                    if is_float(w) and id(w) not in still
                }
            if options.precision == "float16":
                self.loss_scale = replicated(FIRST_LOSS_SCALE, "float32")
                self.loss_scale_steps = replicated(0, "int32")
        self._averages = [(v, weights[name]) for name, v in self.averages.items()]

    def feed(self, make_dataset: MakeDataset) -> Iterator:
        """Return an iterator for `train`.

        Args:
            make_dataset: Function to this process's batches of one replica each,
                `(images, targets)`, where targets may be a tree of tensors; its
                replicas take them in turn.
        """
        raise NotImplementedError

    def train(self, iterator: Iterator, steps: int) -> dict[str, np.ndarray]:
        """Take steps.

        Returns:
            The task's measures by name, `"gradient_norm"` and `"finite"`, each a NumPy
            array of `steps` values over the global batch; the norm is that before
            clipping, `finite` says whether the step had an effect.

        Raises:
            WorkerLost: If another process is gone.
        """
        raise NotImplementedError

    def evaluate(self, make_dataset: MakeDataset) -> np.ndarray:
        """Return sums over the model as it stands, of which the task makes results.

        Args:
            make_dataset: Function to this process's batches as `Task.evaluation` takes
                them, weights last; as many in all processes.

        Returns:
            The task's sums over all batches of all processes, float64.

        Raises:
            InputError: If there are no batches.
        """
        with self._lost_workers():
            return total(self._batch_sums(make_dataset()))

    def infer(self, make_dataset: MakeDataset) -> Iterator[tuple[Tree, Tree]]:
        """Yield what the model as it stands answers to this process's batches.

        Other processes take no part, and may have another number of batches.

        Args:
            make_dataset: Function to batches, tuples whose first entry the model is
                called on and whose others may be trees; the last batch may be smaller
                than the first.

        Yields:
            Tuples `(batch, outputs)`, trees of NumPy arrays, in the order of the
            batches.
        """
        size = None
        for group in self._answerable(make_dataset()):
            size = size or rows(group[0])
            inputs = [filled(batch[0], size) for batch in group]
            inputs += inputs[:1] * (self.local_replicas - len(group))
            for batch, answer in zip(group, self._answers(inputs)):
                yield batch, cut(answer, rows(batch))

    def gather(self, data: bytes) -> list[bytes]:
        """Return what every process has to say, in their order; all must call.

        Args:
            data: Bytes of any length.
        """
        if self.workers == 1:
            return [data]
        with self._lost_workers():
            return self._gathered(data)

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on one of the processes; all must call."""
        if self.workers == 1:
            return bool(flag)
        with self._lost_workers():
            return self._any(flag)

    def broadcast(self, array: np.ndarray) -> np.ndarray:
        """Return the chief's array; all processes must call with equal shapes."""
        return self.broadcast_all([array])[0]

    def broadcast_all(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the chief's arrays; all processes must call with equal shapes."""
        arrays = [np.asarray(array) for array in arrays]
        if self.workers == 1:
            return arrays
        with self._lost_workers():
            return self._of_chief(arrays)

    def close(self) -> None:
        """Leave the other processes in agreement; all must call, when trained.

        Afterwards a process can end while another is still busy. What was trained can
        be read as before.
        """

    # Engines of several replicas or processes override these.

    def _batch_sums(self, dataset):
        """Yield the task's sums over batches, NumPy arrays."""
        raise NotImplementedError

    def _answers(self, inputs):
        """Return the model's answers to an input for each replica of this process."""
        raise NotImplementedError

    def _answerable(self, dataset):
        """Yield lists of batches that the replicas can answer at a time."""
        return self._groups(dataset)

    def _gathered(self, data):
        raise NotImplementedError

    def _any(self, flag):
        raise NotImplementedError

    def _of_chief(self, arrays):
        raise NotImplementedError

    def _cause(self, error):
        """Return the cause of one of `losses` in words; `None`: no process is lost."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _lost_workers(self):
        """Turn what collective operations raise into `WorkerLost`."""
        try:
            yield
        except self.losses as error:
            cause = None if self.workers == 1 else self._cause(error)
            if cause is None:
                raise
            raise WorkerLost(cause) from error

    # What they share.

    def _seeds(self, steps, streams):
        """Return the generators' states for the next steps on `streams` replicas."""
        streams *= self.options.accumulate
        count = len(self._generators)
        return seeds(self.options.seed, self.step, steps, streams, count)

    def _groups(self, dataset):
        """Yield lists of NumPy batches for this process's replicas, the last short."""
        batches = getattr(dataset, "as_numpy_iterator", dataset.__iter__)()
        while group := list(itertools.islice(batches, self.local_replicas)):
            yield group

    def _weighted(self, dataset):
        """Yield the same, the last list filled up with batches of weight 0."""
        for group in self._groups(dataset):
            *inputs, weights = group[0]
            empty = (*inputs, np.zeros_like(weights))
            yield group + [empty] * (self.local_replicas - len(group))

    def variables(self) -> dict[str, keras.Variable]:
        """Return `{name in the state: variable}` in a fixed order."""
        named = {f"model/{n}": v for n, v in weight_names(self.model).items()}
        for name, variable in optimizer_names(self.optimizer, self.model).items():
            named[f"optimizer/{name}"] = variable
        for name, variable in self.averages.items():
            named[f"ema/{name}"] = variable
        for name in ("loss_scale", "loss_scale_steps"):
            if (variable := getattr(self, name)) is not None:
                named[name] = variable
        return named

    def state(self) -> dict[str, np.ndarray]:
        """Return `{name: array}` that decides the future; alike on all processes."""
        arrays = {name: _array(v) for name, v in self.variables().items()}
        arrays["step"] = np.array(self.step, "int64")
        return arrays

    def restore(self, state: Mapping[str, np.ndarray] | None) -> None:
        """Continue from a state; the chief's reaches everyone.

        Args:
            state: What `state()` gave; on other processes than the chief it is not
                read and may be `None`. All processes must call.

        Raises:
            InputError: If names are missing or unknown, or shapes differ.
        """
        named = self.variables()
        state = state or {}
        problem = mismatch(state, named) if self.chief else ""
        if self.any(bool(problem)):
            raise InputError(problem or "The chief could not restore its checkpoint.")
        arrays = []
        for name, variable in [*named.items(), ("step", None)]:
            shape, dtype = ((), "int64") if variable is None else spec(variable)
            value = state[name] if self.chief else np.zeros(shape)
            arrays.append(np.asarray(value).astype(dtype))
        arrays = self.broadcast_all(arrays)
        for variable, array in zip(named.values(), arrays):
            self.assign(variable, array)
        self.step = int(arrays[-1])

    def assign(self, variable: keras.Variable, array: np.ndarray) -> None:
        """Set a variable on all replicas of this process."""
        variable.assign(array)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model hold the moving averages in place of its weights, inside.

        Raises:
            InputError: If no average is held.
        """
        if not self.averages:
            raise InputError(
                "There is no moving average of the weights: set `ema`. Received: "
                f"ema={self.options.ema}"
            )
        held = [_array(weight) for _, weight in self._averages]
        try:
            for average, weight in self._averages:
                self.assign(weight, _array(average))
            yield
        finally:
            for (_, weight), array in zip(self._averages, held):
                self.assign(weight, array)


def _array(variable):
    """Return a variable's value as an array with memory of its own."""
    return np.array(ops.convert_to_numpy(variable))


def replicated(value: float, dtype: str) -> keras.Variable:
    """Return a scalar variable that is alike on all replicas."""
    return keras.Variable(
        value, dtype=dtype, trainable=False, aggregation="only_first_replica"
    )
