"""Runs of the TensorFlow engine in a process of its own.

`engine_worker.py FOLDER STRATEGY DEVICES ADDRESSES INDEX JOB…`: each job is a function
below, with its argument behind a colon where it takes one; what it returns is written
to `FOLDER/JOB.STRATEGY.INDEX.npz`.
"""

import os

from kmlp.errors import KmlpError

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")

import json
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from engine_cases import (
    GLOBAL_BATCH,
    STEPS,
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

from kmlp.training.engine.cluster import open_engine
from kmlp.training.engine.engine import WorkerLost
from kmlp.training.engine.gradient_steps import batch_norms
from kmlp.training.engine.tensorflow import TensorFlowEngine

FOLDER, INDEX = Path(sys.argv[1]), int(sys.argv[5])
RESUMED = {
    "convmlp": {},
    "repmlpnet": {},
    "resmlp": {"precision": "float16", "policy": "mixed_float16"},
    "batch_norm": {"accumulate": 2},
}


def dataset(generate):
    """A data set of what a generator function gives."""
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), next(generate())
    )
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def run(engine, case, steps, bad=()):
    """The measurements of some steps, by name."""
    iterator = engine.feed(lambda: dataset(lambda: batches(engine, case, bad)))
    return engine.train(iterator, steps)


def evaluated(engine, case):
    """What the engine measures on the validation batches."""
    data = dataset(lambda: validation(engine, case))
    return engine.task.validate(engine, lambda: data)


def named(prefix, values):
    """The values with a prefix before their names."""
    return {f"{prefix}/{name}": value for name, value in values.items()}


def save(name, values):
    """Writes a file that is whole when it is there."""
    with open(FOLDER / f"{name}.part", "wb") as file:
        np.savez(file, **{key: np.asarray(value) for key, value in values.items()})
    os.replace(FOLDER / f"{name}.part", FOLDER / f"{name}.npz")


def one_device():
    """An engine beside the one of several devices."""
    return TensorFlowEngine(tf.distribute.OneDeviceStrategy("/cpu:0"), "one device")


def families(engine, cases):
    """Families: 20 steps and the weights after them, and an evaluation."""
    results = {}
    for case in cases.split(","):
        prepared(engine, case, clip_norm=1.0, ema=0.9, sync_batchnorm=True)
        results |= named(case, run(engine, case, STEPS))
        results |= named(f"{case}/state", engine.state())
        results[f"{case}/synchronized"] = [
            norm.synchronized for norm in batch_norms(engine.model)
        ]
    return results | named("evaluated", evaluated(engine, case))


def alone(engine, cases):
    """The same on one device."""
    return families(one_device(), cases)


def replicas(engine):
    """One step of plain gradient descent, and what Keras makes of either half."""
    prepared(engine, "convmlp", optimizer="sgd", clip_norm=0.01)
    model, before = engine.model, engine.state()
    results = named("before", before)
    for half in (0, 1):
        rows = slice(half * GLOBAL_BATCH // 2, (half + 1) * GLOBAL_BATCH // 2)
        batch, targets = (array[rows] for array in images("convmlp", 0))
        weights = [weight.value for weight in model.trainable_weights]
        with tf.GradientTape() as tape:
            logits = model(batch, training=True)
            loss = tf.reduce_mean(
                keras.losses.categorical_crossentropy(targets, logits, from_logits=True)
            )
        gradients = tape.gradient(loss, weights)
        paths = [f"model/{weight.path}" for weight in model.trainable_weights]
        results |= named(f"gradient{half}", dict(zip(paths, gradients)))
        results |= named(f"moved{half}", engine.state())
        engine.restore(before)
    results |= run(engine, "convmlp", 1)
    return results | named("after", engine.state())


def overflowing(engine):
    """float16, where the last image of the third step overflows."""
    case = "batch_norm"
    prepared(engine, case, ema=0.9, precision="float16", policy="mixed_float16")
    results = named("two", run(engine, case, 2))
    results |= named("before", engine.state())
    results |= named("bad", run(engine, case, 1, {2}))
    results |= named("after", engine.state())
    # The copies of the replica that met the overflow.
    copies = {
        name: engine.strategy.experimental_local_results(variable.value)[-1].numpy()
        for name, variable in engine.variables().items()
    }
    return results | named("copies", copies) | named("next", run(engine, case, 2))


def accumulated(engine):
    """Micro-batches on two replicas, and those of both together on one device."""
    results = {}
    for chosen in (engine, one_device()):
        prepared(chosen, "convmlp", accumulate=2, sync_batchnorm=True, clip_norm=1.0)
        order = np.arange(GLOBAL_BATCH)
        if chosen.replicas == 1:
            # (replica, micro-batch, image) -> (micro-batch, replica, image)
            order = order.reshape(2, 2, -1).swapaxes(0, 1).ravel()

        def generate(chosen=chosen, order=order):
            step = 0
            while True:
                arrays = [array[order] for array in images("convmlp", step)]
                yield from zip(*(np.split(a, chosen.replicas) for a in arrays))
                step += 1

        data = dataset(generate)
        values = chosen.train(chosen.feed(lambda data=data: data), STEPS)
        results |= named(chosen.replicas, values)
    return results


def compiled(engine):
    """Steps as they are, and with XLA and several in one execution."""
    results = {}
    for name, options in {
        "plain": {},
        "xla": {"xla": True, "steps_per_execution": 3},
    }.items():
        prepared(engine, "resmlp", clip_norm=1.0, ema=0.9, **options)
        results |= named(name, run(engine, "resmlp", 7))
        results |= named(f"{name}/evaluated", evaluated(engine, "resmlp"))
    try:
        prepared(engine, "convmlp", xla=True, sync_batchnorm=True)
    except KmlpError as stop:
        results["message"] = str(stop)
    return results


def whole(engine):
    """Runs of 8 steps and their states at last, after 4 they are written."""
    results = {}
    for case, options in RESUMED.items():
        prepared(engine, case, clip_norm=1.0, ema=0.9, seed=3, **options)
        run(engine, case, 4)
        save(f"{case}.half", engine.state())
        results |= named(f"{case}/loss", run(engine, case, 4))
        results |= named(case, engine.state())
    return results


def resumed(engine):
    """The second halves of these runs, in another process."""
    results = {}
    for case, options in RESUMED.items():
        prepared(engine, case, clip_norm=1.0, ema=0.9, seed=3, **options)
        path = FOLDER / f"{case}.half.npz"
        while not path.exists():
            time.sleep(0.1)
        engine.restore(np.load(path))
        results |= named(f"{case}/loss", run(engine, case, 4))
        results |= named(case, engine.state())
    return results


def trees(engine):
    """Targets and outputs that are trees, in training, evaluation and inference."""
    results = {}
    for parts in (1, 2):
        options = {"accumulate": parts, "sync_batchnorm": True}
        prepared_places(engine, **options)
        data = dataset(lambda: place_batches(engine))
        values = engine.train(engine.feed(lambda data=data: data), 5)
        results |= named(parts, values) | named(f"{parts}/state", engine.state())
    return results | asked(engine)


def asked(engine):
    """What a fresh network of places answers."""
    prepared_places(engine)
    data = dataset(lambda: place_validation(engine))
    results = named("evaluated", engine.task.validate(engine, lambda: data))
    number = {"number": tf.TensorSpec((None,), tf.int32)}
    data = tf.data.Dataset.from_generator(
        lambda: few_images(engine),
        output_signature=(tf.TensorSpec((None, 8, 8, 3)), number),
    )
    return results | named("inferred", inferred(engine, lambda: data))


def trees_alone(engine):
    """The same on one device."""
    return trees(one_device())


def together(engine):
    """What processes tell each other, and a state that only the chief has."""
    prepared(engine, "batch_norm", ema=0.9)
    own = np.float64([engine.worker, 2**40 + 0.5 + engine.worker])
    results = {
        "any": [engine.any(engine.worker == 1), engine.any(False)],
        "broadcast": engine.broadcast(own),
    }
    results |= named("before", engine.state())
    state = {name: array + 1 for name, array in engine.state().items()}
    engine.restore(state if engine.chief else None)
    return results | named("after", engine.state())


def lost(engine):
    """Whether the loss of the other process is noticed, and after how long."""
    prepared(engine, "batch_norm", sync_batchnorm=True)
    run(engine, "batch_norm", 2)
    if INDEX == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.monotonic()
    try:
        while True:
            run(engine, "batch_norm", 1)
    except WorkerLost as error:
        return {"seconds": time.monotonic() - started, "message": str(error)}


def main():
    """Runs the jobs on one engine."""
    strategy, devices, addresses = sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
    task = {"type": "worker", "index": INDEX}
    config = {"cluster": {"worker": addresses}, "task": task}
    os.environ["TF_CONFIG"] = json.dumps(config) if len(addresses) > 1 else ""
    if strategy != "single":
        # It optimizes for seconds what runs for milliseconds.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    engine = open_engine(strategy, devices)
    for job in sys.argv[6:]:
        name, *cases = job.split(":")
        save(f"{name}.{strategy}.{INDEX}", globals()[name](engine, *cases))


if __name__ == "__main__":
    main()
