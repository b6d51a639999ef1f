"""The rules of a step that all engines follow, and their random seeds."""

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.training.input.order import scrambled

# The loss scale of float16: where it starts, how many finite steps double it, and
# the limits within which it can neither vanish nor overflow itself.
FIRST_LOSS_SCALE = 2.0**15
GROWTH_STEPS = 2000
LOSS_SCALES = (1.0, 2.0**32)


def global_norm(gradients):
    """Euclidean norm of all gradients together, float32."""
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients]
    return ops.sqrt(ops.sum(ops.stack(squares)))


def clip_by_global_norm(gradients, norm, clip_norm):
    """Scales gradients of global norm `norm` down to at most `clip_norm`."""
    if clip_norm is None:
        return gradients
    scale = clip_norm / ops.maximum(norm, clip_norm)
    return [g * ops.cast(scale, g.dtype) for g in gradients]


def next_average(average, weight, decay):
    """The moving average after an update; it starts as the first weights."""
    return decay * average + (1.0 - decay) * weight


def next_loss_scale(scale, steps, finite):
    """The float16 loss scale after a step, and the finite steps since it changed.

    Args:
        scale: float32 scalar.
        steps: int32 scalar.
        finite: bool scalar, whether the gradient was finite on all replicas.
    """
    grows = ops.logical_and(finite, steps + 1 >= GROWTH_STEPS)
    change = ops.where(finite, ops.where(grows, 2.0, 1.0), 0.5)
    kept = ops.logical_and(finite, ops.logical_not(grows))
    return (
        ops.clip(scale * ops.cast(change, "float32"), *LOSS_SCALES),
        ops.where(kept, steps + 1, ops.zeros_like(steps)),
    )


def seed_states(model):
    """The states of the model's `keras.random.SeedGenerator`s, in a fixed order."""
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


def seeds(seed, first_step, steps, streams, generators):
    """States for seed generators: a pure function of all indices.

    No random state needs saving, and replicas draw differently.

    Args:
        seed: of the run.
        first_step, steps: the steps `first_step … first_step + steps - 1`.
        streams: one per replica and micro-batch; replica `r`'s micro-batch `m` takes
            `r * accumulate + m`.
        generators: how many seed generators there are.

    Returns:
        int32 `(steps, streams, generators, 2)`, not negative, with room above for the
        increments of repeated draws.
    """
    with np.errstate(over="ignore"):
        state = scrambled(np.uint64(seed))
        for start, count in ((first_step, steps), (0, streams), (0, generators)):
            index = np.arange(start, start + count, dtype=np.uint64)
            state = scrambled(state[..., None] ^ scrambled(index))
    halves = np.stack([state >> np.uint64(33), state & np.uint64(2**30 - 1)], axis=-1)
    return halves.astype(np.int32)


def measurements(task, values):
    """What `Engine.train` returns, from rows of measures, norm and finite."""
    columns = {name: values[:, i] for i, name in enumerate(task.measures)}
    return columns | {"gradient_norm": values[:, -2], "finite": values[:, -1] > 0}


def total(sums):
    """The sum of the sums of batches, float64; they are held one at a time.

    Raises:
        InputError: there are none.
    """
    found = None
    for own in sums:
        own = np.asarray(own, "float64")
        found = own if found is None else found + own
    if found is None:
        raise InputError(
            "There is nothing to validate on. Received: data without a batch"
        )
    return found


def filled(batch, size):
    """A batch whose last row is repeated up to `size` rows."""
    if rows(batch) == size:
        return batch
    return keras.tree.map_structure(
        lambda array: np.concatenate(
            [array, np.repeat(array[-1:], size - len(array), axis=0)]
        ),
        batch,
    )


def cut(batch, size, start=0):
    """`size` rows of a batch."""
    return keras.tree.map_structure(lambda array: array[start : start + size], batch)


def rows(batch):
    """How many rows a tree of arrays has."""
    return len(keras.tree.flatten(batch)[0])
