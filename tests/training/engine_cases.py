"""The smallest networks of the five families, and runs of some steps on any engine."""

import keras
import numpy as np

import kmlp
from training.distillation.objective import Objective
from training.engine.base import Options
from training.freezing import freeze

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
    objective = Objective("soft" if teacher else "none")
    engine.prepare(model, chosen, objective, Options(**options), teacher)
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
        yield tuple(array[start : start + size] for array in arrays)


def validation(engine, case):
    """Images, labels and weights of 4 global batches, and one batch of padding."""
    for step in range(1000, 1004):
        for inputs, targets in shares(engine, images(case, step)):
            labels = targets.argmax(-1).astype("int32")
            yield inputs, labels, np.ones(len(labels), "float32")
    yield np.full_like(inputs, np.nan), labels, np.zeros(len(labels), "float32")
