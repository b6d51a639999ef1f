"""Runs of PyTorch's engine in a process of its own: `torch_jobs.py FOLDER`.

What comes of them is written to `FOLDER/results.npz`.
"""

import os

from kmlp.errors import KmlpError

os.environ["KERAS_BACKEND"] = "torch"

import sys
from pathlib import Path

import numpy as np
from engine_cases import (
    batches,
    few_images,
    inferred,
    place_batches,
    place_validation,
    prepared,
    prepared_places,
    validation,
)

from kmlp.training.engine.cluster import open_engine

FOLDER = Path(sys.argv[1])
CASES = ("repmlpnet",)


def named(prefix, results):
    return {f"{prefix}/{name}": value for name, value in results.items()}


def run(engine, case, steps, bad=()):
    return engine.train(engine.feed(lambda: batches(engine, case, bad)), steps)


def continued(engine):
    """Five steps and an evaluation, from the state that TensorFlow made."""
    results = {}
    for case in CASES:
        prepared(engine, case, clip_norm=1.0, ema=0.9)
        engine.restore(np.load(FOLDER / f"{case}.npz"))
        results |= named(case, run(engine, case, 5))
        results |= named(f"{case}/state", engine.state())
        with engine.averaged():
            found = engine.task.validate(
                engine, lambda case=case: validation(engine, case)
            )
        results |= named(f"{case}/averaged", found)
    return results


def resumed(engine):
    """Seven steps of dropout and micro-batches at once, and as three and four."""
    options = {"ema": 0.9, "accumulate": 2, "seed": 3}
    prepared(engine, "batch_norm", **options)
    results = named("whole", run(engine, "batch_norm", 7) | engine.state())
    prepared(engine, "batch_norm", **options)
    run(engine, "batch_norm", 3)
    state = engine.state()
    prepared(engine, "batch_norm", **options)
    engine.restore(state)
    run(engine, "batch_norm", 4)
    return results | named("parts", engine.state())


def accumulated(engine):
    results = {}
    for parts in (1, 4):
        prepared(engine, "resmlp", clip_norm=0.1, accumulate=parts)
        results[f"{parts}/loss"] = run(engine, "resmlp", 5)["loss"]
    return results


def overflowing(engine):
    """float16, where the last image of the third step overflows, and bfloat16."""
    case = "batch_norm"
    prepared(engine, case, ema=0.9, precision="float16", policy="mixed_float16")
    results = named("two", run(engine, case, 2))
    results |= named("before", engine.state())
    results |= named("bad", run(engine, case, 1, {2}))
    results |= named("after", engine.state())
    prepared(engine, case, precision="bfloat16", policy="mixed_bfloat16")
    return results | named("bfloat16", run(engine, case, 2))


def frozen(engine):
    prepared(engine, "batch_norm", frozen=("block0",))
    results = named("before", engine.state())
    run(engine, "batch_norm", 2)
    return results | named("after", engine.state())


def trees(engine):
    """A model with a tree of outputs, and targets that are one."""
    prepared_places(engine, accumulate=2)
    results = engine.train(engine.feed(lambda: place_batches(engine)), 3)
    results |= engine.task.validate(engine, lambda: place_validation(engine))
    return results | inferred(engine, lambda: few_images(engine))


def misused(engine):
    try:
        open_engine(devices=2)
    except KmlpError as error:
        return {"message": str(error)}


def main():
    engine = open_engine(tensorflow_reads=False)
    results = {"description": engine.description}
    for job in (continued, resumed, accumulated, overflowing, frozen, trees, misused):
        results |= named(job.__name__, job(engine))
    np.savez(FOLDER / "results.npz", **results)


if __name__ == "__main__":
    main()
