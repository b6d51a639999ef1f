"""The life of a run, from the command's options to a published version.

Classification, detection and segmentation run through the same lines; a `RunTask` says
what differs: its recipe, data, network, loss, score and pictures.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras

from kmlp.analysis.complexity import count_parameters
from kmlp.artifacts.origin import versions
from kmlp.atomic import check_writable
from kmlp.console import first_line
from kmlp.errors import InputError
from kmlp.recipes.wording import to_json
from kmlp.training.checkpoints import RunFolder, about_output
from kmlp.training.engine.cluster import open_engine, per_replica_batch
from kmlp.training.engine.engine import Options, Task
from kmlp.training.engine.meeting import difference
from kmlp.training.fine_tuning import Initial, freeze
from kmlp.training.loop import train
from kmlp.training.optimization import make_optimizer
from kmlp.training.publishing import check_dense, publish
from kmlp.version import code_mark


class RunTask(Task):
    """The questions that a run asks of its task besides the engine's.

    Attributes:
        name: Name of the task, `"classification"`, `"detection"` or `"segmentation"`.
        rehearsal: Extent `(epochs, steps of each, images per device and micro-batch)`
            of a rehearsal.
        averages: Whether averaged weights are validated where the recipe says so.
        least_steps: Steps that go without coming back to Python, at least.
    """

    name = ""
    rehearsal = (2, 4, 8)
    averages = True
    least_steps = 1

    def of(self, model: keras.Model) -> "RunTask":
        """Return the task with all that it takes from the model to be trained."""
        return self

    def schedule(self, job: "Job") -> Any:
        """Return the schedule of the learning rate."""
        raise NotImplementedError

    def teacher(self, job: "Job") -> Any:
        """Return the teacher whose answers the loss takes, `None` without one."""

    def training_data(self, job: "Job", step: int) -> Callable:
        """Return a function that makes this worker's data set from `step` on."""
        raise NotImplementedError

    def validation_batches(self, job: "Job", **share: int) -> Any:
        """Return the validation images, or a worker's share of them.

        Args:
            job: The run.
            **share: Share of the worker: `worker`, `workers` and `replicas`.
        """
        raise NotImplementedError

    def comparison_batches(self, job: "Job") -> Any:
        """Return the validation images in the size that the artifacts take."""
        return self.validation_batches(job)

    def network(self, job: "Job", precision: str) -> keras.Model:
        """Return the network under the recipe, with fresh weights."""
        raise NotImplementedError

    def home(self, job: "Job") -> str:
        """Return the name of the folder of the run's versions."""
        raise NotImplementedError

    def identity(self, job: "Job") -> dict[str, Any]:
        """Return what of the task decides the result of a run."""
        raise NotImplementedError

    def data_summary(self, job: "Job") -> dict[str, Any]:
        """Return what a report says of the data."""
        source = job.source
        return {
            "name": source.name,
            "class_names": list(source.class_names),
            "training_images": source.train.count,
            "validation_images": source.validation.count,
        }

    def announcement(self, job: "Job") -> list[str]:
        """Return lines that say what is about to happen."""
        raise NotImplementedError

    def estimate(self, job: "Job", speed: float) -> str:
        """Return how long the whole run would take at a speed in images per second."""
        raise NotImplementedError

    def preprocessing(self, job: "Job") -> Any:
        """Return how the validation images become inputs."""
        raise NotImplementedError

    def agreement(self, job: "Job") -> Any:
        """Return a new measure of how well a form does and agrees with another."""
        raise NotImplementedError

    def extras(
        self, job: "Job", model: keras.Model, reference: Any, folder: Path
    ) -> list[str]:
        """Write what a version holds beside its forms; return lines about it.

        Args:
            job: The run.
            model: Trained model.
            reference: Measure of the trained model, from `agreement`.
            folder: Folder of the version.
        """
        return []


@dataclasses.dataclass(frozen=True)
class Job:
    """A run, resolved: nothing is left to decide.

    Attributes:
        task: Task with its data, a `RunTask`.
        options: Options of the command line.
        recipe: Recipe with all that the command line changed.
        base: The recipe before that.
        source: Images by split.
        engine: Engine on the devices.
        epochs: Validations of the run, cool-down included.
        steps_per_epoch: Updates before each of them.
        batch_size: Images per replica and micro-batch.
        initial: Weights that training begins with; `None`: fresh ones.
        frozen: Names of the parts that keep them.
    """

    task: Any
    options: argparse.Namespace
    recipe: Any
    base: Any
    source: Any
    engine: Any
    epochs: int
    steps_per_epoch: int
    batch_size: int
    initial: Initial | None = None
    frozen: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Return whether the averaged weights are validated and kept as best."""
        chosen = getattr(self.recipe, "evaluate", "raw")
        return self.task.averages and chosen == "ema"

    def training_data(self, step: int) -> Callable:
        """Return a function that makes this worker's data set from `step` on."""
        return self.task.training_data(self, step)

    def share(self, step: int) -> dict[str, int]:
        """Return which part of the training images is this worker's from `step` on."""
        return {
            "batch_size": self.batch_size,
            "global_batch": self.recipe.batch_size,
            "start_step": step,
            "worker": self.engine.worker,
            "workers": self.engine.workers,
            "seed": self.options.seed,
        }

    def validation_data(self) -> Iterable:
        """Return this worker's share of the validation images, in a rehearsal a few."""
        engine = self.engine
        batches = self.task.validation_batches(
            self,
            worker=engine.worker,
            workers=engine.workers,
            replicas=engine.local_replicas,
        )
        if self.options.rehearse:
            batches = batches.take(self.task.rehearsal[1] * engine.local_replicas)
        return batches

    def network(self, precision: str) -> keras.Model:
        """Return the network under the recipe, with fresh weights."""
        return self.task.network(self, precision)

    def prepare(self) -> Any:
        """Give the engine all that a step needs; return the schedule of the rate."""
        recipe, options = self.recipe, self.options
        schedule = self.task.schedule(self)
        steps = max(options.steps_per_execution, self.task.least_steps)
        with self.engine.scope():
            model = self.network(options.precision)
            if self.initial is not None:
                self.initial.fill(model, self.engine)
                if self.frozen:
                    freeze(model, self.frozen)
            teacher = self.task.teacher(self)
            self.engine.prepare(
                model,
                make_optimizer(recipe, model, schedule),
                self.task.of(model),
                Options(
                    clip_norm=recipe.clip_norm,
                    ema=getattr(recipe, "ema", None),
                    accumulate=recipe.accumulate,
                    precision=options.precision,
                    xla=options.xla,
                    steps_per_execution=steps,
                    sync_batchnorm=recipe.sync_batchnorm,
                    seed=options.seed,
                ),
                teacher,
            )
        return schedule

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; another number of devices does not."""
        model = json.dumps(self.engine.model.get_config(), default=str)
        return {
            "architecture": self.options.arch,
            "model": json.loads(model),
            "recipe": to_json(self.recipe),
            "data": self.source.name,
            "class_names": list(self.source.class_names),
            "seed": self.options.seed,
            "precision": self.options.precision,
            # Runs that began before there was a choice go on.
            **({"exif": "apply"} if self.options.exif == "apply" else {}),
            **self.task.identity(self),
        }

    def begun(self) -> dict[str, Any]:
        """Return where training began and what of the network kept what it had."""
        if self.initial is None:
            return {}
        return {"initial_weights": self.initial.described, "frozen": list(self.frozen)}

    def written(self) -> dict[str, Any]:
        """Return `recipe.json`: the recipe as it was resolved, and what it ran on."""
        return {
            "architecture": self.options.arch,
            **self.begun(),
            "recipe": to_json(self.recipe),
            "seed": self.options.seed,
            "precision": self.options.precision,
            "xla": self.options.xla,
            "engine": self.engine.description,
            "data": self.task.data_summary(self),
        }


def run(options: argparse.Namespace, task: Any) -> None:
    """Train, publish and report.

    Args:
        options: Options of the command line.
        task: Module of a task, with `check(options)` and `resolve(options, engine)`.

    Raises:
        InputError: If the options, data or weights cannot be worked with.
        RunError: If the run ends before its time; what it reached is kept.
    """
    started = time.monotonic()
    # Validate the options before any data is read or any worker waited for.
    task.check(options)
    check_results(options)
    engine = open_engine(
        options.strategy,
        options.devices,
        # One process has nobody to compare its code with.
        about=_command(options) if os.environ.get("TF_CONFIG") else None,
        patience=options.patience,
    )
    job = _resolved(task, options, engine)
    check_dense(job)
    keras.utils.set_random_seed(options.seed)
    schedule = job.prepare()
    parent = options.output / ("rehearsals" if options.rehearse else "")
    parent = parent / job.task.home(job)
    folder = RunFolder(parent, job.identity())
    if not engine.chief:
        print(f"Worker {engine.worker} of {engine.workers}, {engine.description}")
        train(job, schedule, None)
        engine.close()
        return
    with folder.open(options.fresh):
        _announce(job, folder)
        folder.write("recipe.json", job.written())
        history = train(job, schedule, folder.path)
        engine.close()  # the others need not wait for the export
        path = publish(job, folder.path, parent, history)
        folder.remove()
    if options.rehearse:
        print(job.task.estimate(job, history[-1]["images_per_second"]))
    print(f"Published {path} after {time.monotonic() - started:.0f} s")


# What may differ between workers: where things lie on a host, and what the chief alone
# heeds. Of data and weights it is the contents that must be alike.
_OWN_OPTIONS = {"output", "data", "data_dir", "download", "weights", "fresh"}
_OWN_OPTIONS |= {"patience"}
_OWN_DATA = {"name", "skipped_images", "ignored_files", "notes"}
_OWN_VERSIONS = {"python", "ai-edge-litert"}


def _command(options):
    """Return what all workers must have alike before anything is read, by name."""
    installed = {n: v for n, v in versions().items() if n not in _OWN_VERSIONS}
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in vars(options).items()
        if name not in _OWN_OPTIONS and not callable(value)
    }
    return {**installed, "the code of kmlp": code_mark(), **given}


def _resolved(task, options, engine):
    """Return the job, which all workers must have resolved alike.

    Raises:
        InputError: If this worker cannot work with its input, or another not with its
            own, or they differ.
    """
    if engine.workers == 1:
        return task.resolve(options, engine)
    job, failed, told = None, None, {}
    try:
        job = task.resolve(options, engine)
        told = _flat("", _compared(job))
    except Exception as error:
        failed = error
    own = {"failed": failed and first_line(failed), "told": told}
    said = engine.gather(json.dumps(own, default=str).encode())
    if failed is not None:
        raise failed
    tables = dict(enumerate(map(json.loads, said)))
    for index, table in tables.items():
        if table["failed"]:
            raise InputError(f"Worker {index} cannot begin: {table['failed']}")
    if problem := difference({i: table["told"] for i, table in tables.items()}):
        raise InputError(problem)
    return job


def _compared(job):
    """Return what of a job must be alike in all workers, besides their commands."""
    data = job.task.data_summary(job)
    return {
        "recipe": to_json(job.recipe),
        "data": {name: data[name] for name in data if name not in _OWN_DATA},
        "steps of an epoch": job.steps_per_epoch,
        "initial weights": None if job.initial is None else job.initial.identity,
        "devices": job.engine.local_replicas,
    }


def _flat(name, value):
    """Return `{name: value}` of what is in a value, such as `recipe.model.depth`."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {name.removeprefix("."): value}
    return {k: v for key, one in items for k, v in _flat(f"{name}.{key}", one).items()}


def check_results(options: argparse.Namespace) -> None:
    """Check that the results can be written, where their folder exists.

    Raises:
        InputError: If they cannot.
    """
    try:
        str(options.output).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "TensorFlow writes to folders with names of UTF-8: pass another --output. "
            f"Received: {os.fsencode(options.output)!r}"
        ) from error
    with about_output():
        if options.output.exists():
            check_writable(options.output)


def divided_batch(recipe: Any, engine: Any) -> int:
    """Return the images per replica and micro-batch.

    Raises:
        InputError: If the recipe's batch does not divide.
    """
    return per_replica_batch(recipe.batch_size, engine.replicas, recipe.accumulate)


def _announce(job, folder):
    """Say what is about to happen."""
    lines = job.task.announcement(job)
    if job.initial is not None:
        lines.insert(1, job.initial.text)
        lines[2:2] = _begun_otherwise(job, folder)
    if job.frozen:
        trained = count_parameters(job.engine.model.trainable_weights)
        frozen = f"Frozen: {' '.join(job.frozen)}; {trained:,} parameters are trained"
        lines.insert(2, frozen)
    print("\n".join(lines), flush=True)


def _begun_otherwise(job, folder):
    """Say which unfinished runs began with other weights of the same path."""
    own, lines = job.initial.described, []
    for other in folder.others():
        begun = other.get("initial_weights")
        if not isinstance(begun, dict) or begun.get("name") != own["name"]:
            continue
        if begun.get("sha256") != own["sha256"]:
            lines.append(
                f"{own['name']} holds other weights than the unfinished run "
                f"{other['folder']} began with: this run starts over."
            )
    return lines
