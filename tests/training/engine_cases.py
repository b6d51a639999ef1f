"""The smallest networks of the five families, and runs of some steps on any engine."""

import json

import keras
import numpy as np
from keras import ops

import kmlp
from kmlp.training.distillation import Objective
from kmlp.training.engine.engine import Options, Task
from kmlp.training.engine.rules import cut
from kmlp.training.fine_tuning import freeze
from kmlp.training.optimization import SGD, LinearWarmup, Polynomial
from kmlp.training.tasks.classification import Classification

CLASSES, GLOBAL_BATCH, STEPS = 6, 8, 20
TINY = {
    "repmlpnet": (
        kmlp.RepMLPNet,
        {
            "input_shape": (16, 16, 3),
            "depths": (1,),
            "widths": (8,),
            "share_sets": (2,),
        },
    ),
    "resmlp": (
        kmlp.ResMLP,
        {"input_shape": (16, 16, 3), "patch_size": 8, "width": 8, "depth": 1},
    ),
    "convmlp": (
        kmlp.ConvMLP,
        {
            "input_shape": (32, 32, 3),
            "stem_width": 4,
            "conv_blocks": 1,
            "widths": (8,),
            "depths": (1,),
            "mlp_ratios": (1,),
            "drop_path_rate": 0.0,
        },
    ),
    "msmlp": (
        kmlp.MSMLP,
        {
            "input_shape": (16, 16, 3),
            "width": 6,
            "depths": (1,),
            "regions": ((3, 1),),
            "shifts": (0, 1),
            "layer_scale": 0.5,
            "drop_path_rate": 0.0,
        },
    ),
    "smlpnet": (
        kmlp.SMLPNet,
        {
            "input_shape": (16, 16, 3),
            "width": 4,
            "depths": (1,),
            "mlp_ratio": 1,
        },
    ),
    "batch_norm": (
        kmlp.ResMLP,
        {
            "input_shape": (16, 16, 3),
            "patch_size": 8,
            "width": 8,
            "depth": 2,  # the first block drops nothing
            "norm": "batch",
            "drop_path_rate": 0.5,
        },
    ),
}


def prepared(
    engine,
    case,
    *,
    optimizer="adamw",
    teacher=None,
    policy=None,
    frozen=(),
    **options,
):
    """The engine itself, ready to train a network of `TINY`."""
    family, arguments = TINY[case]
    keras.utils.set_random_seed(0)
    with engine.scope():
        model = family(CLASSES, **arguments, dtype=policy)
        freeze(model, frozen)
        if optimizer == "sgd":
            chosen = keras.optimizers.SGD(0.1)
        else:
            schedule = keras.optimizers.schedules.CosineDecay(1e-3, 100)
            # A bias before a norm has no gradient but rounding, which an epsilon of
            # 1e-8 would make steps of.
            chosen = keras.optimizers.AdamW(schedule, 0.05, epsilon=1e-4)
    task = Classification(Objective("soft" if teacher else "none"))
    engine.prepare(model, chosen, task, Options(**options), teacher)
    return engine


def images(case, step, bad=False):
    """Images and targets of a global batch; `bad`: its last overflows float16."""
    random = np.random.default_rng(step)
    shape = (GLOBAL_BATCH, *TINY[case][1]["input_shape"])
    batch = random.normal(size=shape).astype("float32")
    if bad:
        batch[-1] = 1e6
    targets = random.dirichlet(np.ones(CLASSES), GLOBAL_BATCH).astype("float32")
    return batch, targets


def batches(engine, case, bad=()):
    """Batches of one replica each for this worker, from the engine's step on."""
    step = engine.step
    while True:
        yield from shares(engine, images(case, step, step in bad))
        step += 1


def shares(engine, arrays):
    """What this worker's replicas get of a global batch, one after the other."""
    size = GLOBAL_BATCH // engine.replicas
    for replica in range(engine.local_replicas):
        start = (engine.worker * engine.local_replicas + replica) * size
        yield cut(arrays, size, start)


def validation(engine, case):
    """Images, labels and weights of 4 global batches, and one batch of padding."""
    for step in range(1000, 1004):
        for inputs, targets in shares(engine, images(case, step)):
            labels = targets.argmax(-1).astype("int32")
            yield inputs, labels, np.ones(len(labels), "float32")
    yield np.full_like(inputs, np.nan), labels, np.zeros(len(labels), "float32")


class Places(Task):
    """A model with a tree of outputs, whose last layer only the losses call."""

    measures = ("loss", "place_loss", "found")
    score = "found"

    def training(self, model, images, targets, taught=None):
        features = model(images, training=True)["features"]
        places = model.late(features, training=True)
        drawn = keras.random.uniform((1,), seed=model.draws)
        missed = ops.sum(ops.square(places - targets["places"]), axis=-1)
        losses = missed * ops.cast(targets["known"], "float32") * (1 + drawn)
        found = ops.cast(missed < 6, "float32")
        return losses, ops.stack([ops.sum(x) for x in (losses, missed, found)])

    def evaluation(self, model, images, targets, weights):
        maps = model(images, training=False)["maps"][0]
        values = ops.mean(maps, axis=(1, 2, 3)) + targets["places"][:, 0]
        values = ops.where(weights > 0, values, 0.0)
        # (N,) -> (1, 2): sums may have any shape.
        return ops.stack([ops.sum(values), ops.sum(weights)])[None]

    def result(self, sums):
        return {"found": float(sums[0, 0] / sums[0, 1]), "count": float(sums[0, 1])}


def place_model():
    """`images -> {"features": (N, 6), "maps": (map, )}` with a layer apart."""
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    maps = keras.layers.BatchNormalization(name="norm")(maps)
    features = keras.layers.Flatten()(maps)
    features = keras.layers.Dense(6, activation="tanh", name="dense")(features)
    model = keras.Model(inputs, {"features": features, "maps": (maps,)})
    model.late = keras.Sequential(
        [keras.layers.Dense(4, name="last"), keras.layers.BatchNormalization()]
    )
    model.late.build((None, 6))
    model.draws = keras.random.SeedGenerator(0)
    return model


def prepared_places(engine, **options):
    """The engine, ready to train `place_model`."""
    keras.utils.set_random_seed(0)
    with engine.scope():
        model = place_model()
        schedule = LinearWarmup(Polynomial(0.02, steps=10), steps=3, ratio=0.5)
        optimizer = SGD(schedule, momentum=0.5, weight_decay=0.01)
        engine.prepare(model, optimizer, Places(), Options(**options))
    return engine


def place_batch(step):
    """Images and a tree of targets, of a global batch."""
    random = np.random.default_rng(step)
    batch = random.normal(size=(GLOBAL_BATCH, 8, 8, 3)).astype("float32")
    places = random.normal(size=(GLOBAL_BATCH, 4)).astype("float32")
    known = random.integers(0, 2, (GLOBAL_BATCH, 1)).astype("uint8")[:, 0]
    return batch, {"places": places, "known": known}


def place_batches(engine):
    """Batches of one replica each, on and on."""
    step = engine.step
    while True:
        yield from shares(engine, place_batch(step))
        step += 1


def place_validation(engine):
    """Two global batches, and rows of padding that hold NaN."""
    for step in (100, 101):
        for images, targets in shares(engine, place_batch(step)):
            yield images, targets, np.ones(len(images), "float32")
    empty = keras.tree.map_structure(lambda x: x * 0, targets)
    yield np.full_like(images, np.nan), empty, np.zeros(len(images), "float32")


def few_images(engine):
    """Seven batches of three images and one of two, a share for each worker.

    Workers have numbers of batches that differ; an image's number is beside it.
    """
    numbers = np.split(np.arange(23, dtype="int32"), range(3, 23, 3))
    for own in numbers[engine.worker :: engine.workers]:
        yield one_image(own), {"number": own}


def one_image(numbers):
    """Images that follow from their numbers."""
    grid = np.arange(8 * 8 * 3, dtype="float32").reshape(8, 8, 3)
    return np.sin(grid + numbers[:, None, None, None].astype("float32"))


def inferred(engine, make_dataset):
    """What `infer` and `gather` bring together: sorted numbers, and their answers."""
    numbers, features, places = [], [], []
    for batch, outputs in engine.infer(make_dataset):
        np.testing.assert_array_equal(batch[0], one_image(batch[1]["number"]))
        numbers += batch[1]["number"].tolist()
        features.append(outputs["features"])
        places.append(outputs["maps"][0])
        assert len(features[-1]) == len(places[-1]) == len(batch[0])
    rows = np.concatenate(features).astype("float32")
    # The workers' messages have lengths that differ, and are no multiple of four.
    message = json.dumps([numbers, rows.tolist()]).encode() + b" " * engine.worker
    gathered = [json.loads(own) for own in engine.gather(message)]
    assert len(gathered) == engine.workers
    return {
        "own": numbers,
        "numbers": np.concatenate([own[0] for own in gathered]),
        "features": np.concatenate([own[1] for own in gathered]),
        "empty": len(engine.gather(b"" if engine.chief else b"12345")[-1]),
    }
