"""Runs of the JAX engine in a process of its own.

`jax_jobs.py FOLDER DEVICES ADDRESSES INDEX JOB…`: each job is a function below; what
it returns is written to `FOLDER/JOB.PROCESSES.DEVICES.INDEX.npz`.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from engine_cases import (
    CLASSES,
    STEPS,
    TINY,
    batches,
    few_images,
    images,
    inferred,
    place_batches,
    place_validation,
    prepared,
    prepared_places,
    validation,
)

from kmlp.errors import KmlpError
from kmlp.recipes import dense_recipes
from kmlp.training.engine.engine import WorkerLost
from kmlp.training.engine.jax import JaxEngine
from kmlp.training.engine.meeting import join_jax, prepare_jax_devices
from kmlp.training.optimization import make_dense_schedule

FAMILIES = [name for name in TINY if name != "batch_norm"]
FOLDER = Path(sys.argv[1])
PER_EPOCH, EDGES = 7392, (0, 1, 499, 500, 59_135, 59_136, 79_999, 159_999, 270_000)
RESUMED = 7  # the step from which a run is taken up


def run(engine, case, steps, bad=()):
    """The measurements of some steps, by name."""
    return engine.train(engine.feed(lambda: batches(engine, case, bad)), steps)


def evaluated(engine, case):
    return engine.task.validate(engine, lambda: validation(engine, case))


def named(prefix, results):
    return {f"{prefix}/{name}": value for name, value in results.items()}


def families(engine):
    """Every family from the state that TensorFlow made: 20 steps and the end."""
    results = {}
    for case in FAMILIES:
        prepared(engine, case, clip_norm=1.0, ema=0.9)
        engine.restore(np.load(FOLDER / f"{case}.npz"))
        results |= named(case, run(engine, case, STEPS))
        results |= named(f"{case}/state", engine.state())
        if case == "resmlp":
            results |= named("evaluated", evaluated(engine, case))
            with engine.averaged():
                results |= named("averaged", evaluated(engine, case))
        results[f"{case}/next"] = run(engine, case, 2)["loss"]
    return results


def replicas(engine):
    """BatchNorm and stochastic depth, which look at the batch as a whole."""
    prepared(engine, "batch_norm", clip_norm=1.0, ema=0.9, seed=3)
    results = run(engine, "batch_norm", STEPS)
    return (
        results | engine.state() | named("evaluated", evaluated(engine, "batch_norm"))
    )


def resumed(engine):
    """The second part of the run `step_by_step`, from the file of its first."""
    prepared(engine, "batch_norm", ema=0.9, accumulate=2, seed=3)
    engine.restore(np.load(FOLDER / "first_part.npz"))
    return run(engine, "batch_norm", STEPS - RESUMED) | engine.state()


def step_by_step(engine):
    """Weights and averages after every step; 20 steps in two parts."""
    prepared(engine, "batch_norm", ema=0.9, accumulate=2, seed=3)
    iterator = engine.feed(lambda: batches(engine, "batch_norm"))
    states, losses = [engine.state()], []
    for _ in range(RESUMED):
        losses.append(engine.train(iterator, 1)["loss"])
        states.append(engine.state())
    np.savez(FOLDER / "first_part.npz", **states[-1])
    results = run(engine, "batch_norm", STEPS - RESUMED) | engine.state()
    for name in states[0]:
        results[f"each/{name}"] = np.array([state[name] for state in states])
    return results


def queued(engine):
    """The run `step_by_step` in one go, with three steps on their way at a time."""
    prepared(engine, "batch_norm", ema=0.9, accumulate=2, seed=3, steps_per_execution=3)
    return run(engine, "batch_norm", STEPS) | engine.state()


def accumulated(engine):
    """Losses and weights with 1 and with 4 micro-batches."""
    results = {}
    for parts in (1, 4 // engine.replicas):
        prepared(engine, "resmlp", clip_norm=0.1, accumulate=parts)
        results[f"{parts > 1}/loss"] = run(engine, "resmlp", STEPS)["loss"]
        results |= named(f"{parts > 1}", engine.state())
    return results


def clipped(engine):
    """A step of plain gradient descent, clipped and not."""
    results = {}
    for clip_norm in (None, 0.01):
        prepared(engine, "resmlp", optimizer="sgd", clip_norm=clip_norm)
        results |= named(f"{clip_norm}/before", engine.state())
        results |= named(f"{clip_norm}", run(engine, "resmlp", 1))
        results |= named(f"{clip_norm}/after", engine.state())
    return results


def overflowing(engine):
    """float16, where the last image of the third step overflows, and bfloat16."""
    case = "batch_norm"
    prepared(engine, case, ema=0.9, precision="float16", policy="mixed_float16")
    results = named("two", run(engine, case, 2))
    results |= named("before", engine.state())
    results |= named("bad", run(engine, case, 1, {2}))
    results |= named("after", engine.state())
    results |= named("next", run(engine, case, 2))
    prepared(engine, case, precision="bfloat16", policy="mixed_bfloat16")
    return results | named("bfloat16", run(engine, case, 2))


def frozen(engine):
    """The state around two steps in which the first block learns nothing."""
    prepared(engine, "batch_norm", ema=0.9, frozen=("block0",))
    before = named("before", engine.state())
    run(engine, "batch_norm", 2)
    return before | named("after", engine.state())


class Teacher:
    """A network that answers, as `kmlp.training.distillation` hands it over."""

    def __init__(self, model):
        self.model = model

    def __call__(self, images):
        return 100.0 * self.model(images, training=False)


def taught(engine):
    """Losses under a teacher, before and after its weights are replaced."""
    with engine.scope():
        family, arguments = TINY["resmlp"]
        teacher = Teacher(family(CLASSES, **arguments))
    prepared(engine, "resmlp", teacher=teacher)
    student, batch = engine.model, images("resmlp", 0)
    results = {
        "targets": batch[1],
        "student": student(batch[0]),
        "teacher": teacher(batch[0]),
        "loss": run(engine, "resmlp", 1)["loss"],
    }
    results["student_after"] = student(batch[0])
    for weight in teacher.model.weights:
        weight.assign(-weight.value)
    results["teacher_after"] = teacher(batch[0])
    engine.step = 0  # the same images again
    results["loss_after"] = run(engine, "resmlp", 1)["loss"]
    return results


def together(engine):
    """What processes tell each other."""
    own = np.float64([engine.worker, 2**40 + 0.5 + engine.worker])
    return {
        "any": [engine.any(engine.worker == 1), engine.any(False)],
        "broadcast": engine.broadcast(own),
    }


def trees(engine):
    """Targets and outputs that are trees, in training, evaluation and inference."""
    results = {}
    for parts in (1, 2):
        prepared_places(engine, accumulate=parts)
        values = engine.train(engine.feed(lambda: place_batches(engine)), 5)
        results |= named(parts, values) | named(f"{parts}/state", engine.state())
    return results | asked(engine)


def rates(engine):
    """Rates of the dense recipes, compiled."""
    return {
        name: jax.jit(make_dense_schedule(recipe, PER_EPOCH))(np.int32(EDGES))
        for name, recipe in dense_recipes().items()
    }


def asked(engine):
    """What a fresh network of places answers, and its weights."""
    prepared_places(engine)
    results = named("weights", dict(enumerate(engine.model.get_weights())))
    found = engine.task.validate(engine, lambda: place_validation(engine))
    results |= named("evaluated", found)
    return results | named("inferred", inferred(engine, lambda: few_images(engine)))


def parting(engine):
    """The end of a job, in which the chief is busy for longer."""
    prepared(engine, "resmlp")
    engine.close()
    if engine.chief:
        time.sleep(1)
    return engine.state()


def lost(engine):
    """Whether the loss of the second process is noticed."""
    prepared(engine, "resmlp")
    iterator = engine.feed(lambda: batches(engine, "resmlp"))
    engine.train(iterator, 2)
    if not engine.chief:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        while True:
            engine.train(iterator, 1)
    except WorkerLost as error:
        np.savez(FOLDER / "lost.2.1.0.npz", message=str(error))
        os._exit(0)  # else it waits for the other


def misused(engine):
    """What is said about devices that cannot be had, and data that end."""
    prepared(engine, "resmlp")
    attempts = {
        "late": lambda: prepare_jax_devices(3),
        "many": lambda: JaxEngine(devices=2),
        "short": lambda: engine.train(engine.feed(lambda: iter(())), 1),
    }
    messages = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except KmlpError as stop:
            messages[name] = str(stop)
    return messages


def main():
    devices, addresses, index = int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4]
    prepare_jax_devices(devices)
    if len(addresses) > 1:
        join_jax(addresses, int(index))
    engine = JaxEngine()
    for job in sys.argv[5:]:
        results = globals()[job](engine) | {"description": engine.description}
        results = {name: np.asarray(value) for name, value in results.items()}
        name = f"{job}.{len(addresses)}.{devices}.{index}.npz"
        np.savez(FOLDER / name, **results)


if __name__ == "__main__":
    main()
