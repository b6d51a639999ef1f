"""The rules of a step that all engines follow, and their random seeds."""

import keras
import numpy as np
from keras import ops

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


def training_sums(losses, logits, targets):
    """`(2,)` float32: the sum of losses, and how many classes were guessed right."""
    right = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1))
    return ops.stack([ops.sum(losses), ops.sum(ops.cast(right, "float32"))])


def evaluation_sums(logits, labels, weights):
    """`(4,)` float32: sums of cross-entropy, top-1, top-5 and weights over a batch.

    Args:
        logits: `(N, classes)`; of equal logits the first class is ranked first, and a
            row with NaN is wrong.
        labels: `(N,)` integers.
        weights: `(N,)`, 0 for rows that do not count.
    """
    logits = ops.cast(logits, "float32")
    weights = ops.cast(weights, "float32")
    labels = ops.cast(labels, "int32")
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    own = ops.take_along_axis(logits, labels[:, None], axis=-1)
    before = ops.arange(logits.shape[-1], dtype="int32")[None] < labels[:, None]
    ahead = ops.logical_or(logits > own, ops.logical_and(logits == own, before))
    rank = ops.sum(ops.cast(ahead, "int32"), axis=-1)
    sound = ops.logical_not(ops.any(ops.isnan(logits), axis=-1))
    right = [ops.cast(ops.logical_and(rank < k, sound), "float32") for k in (1, 5)]
    # Padded rows may hold anything, NaN too.
    counts = weights > 0
    sums = [
        ops.sum(ops.where(counts, values * weights, 0.0)) for values in (losses, *right)
    ]
    return ops.stack([*sums, ops.sum(weights)])


def evaluation_result(sums):
    """The result of `Engine.evaluate` from the sums of all batches, float64."""
    loss, top1, top5, count = (float(value) for value in sums)
    share = max(count, 1.0)
    return {
        "loss": loss / share,
        "top1": top1 / share,
        "top5": top5 / share,
        "count": count,
    }


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
        state = _scramble(np.uint64(seed))
        for start, count in ((first_step, steps), (0, streams), (0, generators)):
            index = np.arange(start, start + count, dtype=np.uint64)
            state = _scramble(state[..., None] ^ _scramble(index))
    halves = np.stack([state >> np.uint64(33), state & np.uint64(2**30 - 1)], axis=-1)
    return halves.astype(np.int32)


def _scramble(x):
    """The finaliser of SplitMix64 (Steele et al., 2014): every bit moves every bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
