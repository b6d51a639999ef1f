"""The rules of a step that all engines follow, their seeds and their batches."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.training.input.order import scrambled
from kmlp.typing import Tensor

# The loss scale of float16: where it starts, how many finite steps double it, and
# the limits within which it can neither vanish nor overflow itself.
FIRST_LOSS_SCALE = 2.0**15
GROWTH_STEPS = 2000
LOSS_SCALES = (1.0, 2.0**32)


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all gradients together, float32."""
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients]
    return ops.sqrt(ops.sum(ops.stack(squares)))


def clipped(
    gradients: Sequence[Tensor], scale: Tensor | float, clip_norm: float | None
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the gradients to apply, their norm, and whether it is finite.

    Args:
        gradients: Gradients of the scaled loss.
        scale: Loss scale; a plain 1.0 where there is none.
        clip_norm: Bound of the global norm; `None`: unbounded. The norm that is
            returned is the one before clipping.
    """
    if not isinstance(scale, float):
        gradients = [g / scale for g in gradients]
    norm = global_norm(gradients)
    if clip_norm is not None:
        factor = clip_norm / ops.maximum(norm, clip_norm)
        gradients = [g * ops.cast(factor, g.dtype) for g in gradients]
    return list(gradients), norm, ops.isfinite(norm)


def next_average(average: Tensor, weight: Tensor, decay: float) -> Tensor:
    """Return the moving average after an update; it starts as the first weights."""
    return decay * average + (1.0 - decay) * weight


def next_loss_scale(
    scale: Tensor, steps: Tensor, finite: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the float16 loss scale after a step, and the finite steps since.

    Args:
        scale: Loss scale, a float32 scalar.
        steps: Finite steps since it changed, an int32 scalar.
        finite: Whether the gradient was finite on all replicas, a boolean scalar.
    """
    grows = ops.logical_and(finite, steps + 1 >= GROWTH_STEPS)
    change = ops.where(finite, ops.where(grows, 2.0, 1.0), 0.5)
    kept = ops.logical_and(finite, ops.logical_not(grows))
    return (
        ops.clip(scale * ops.cast(change, "float32"), *LOSS_SCALES),
        ops.where(kept, steps + 1, ops.zeros_like(steps)),
    )


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Return the states of a model's `keras.random.SeedGenerator`s, in fixed order."""
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


def seeds(
    seed: int, first_step: int, steps: int, streams: int, generators: int
) -> np.ndarray:
    """Return states for seed generators: a pure function of all indices.

    No random state needs saving, and replicas draw differently.

    Args:
        seed: Seed of the run.
        first_step, steps: Range of steps, `first_step … first_step + steps - 1`.
        streams: Number of streams, one per replica and micro-batch; replica `r`'s
            micro-batch `m` takes `r * accumulate + m`.
        generators: Number of seed generators.

    Returns:
        Seeds `(steps, streams, generators, 2)`, int32, not negative, with room above
        for the increments of repeated draws.
    """
    with np.errstate(over="ignore"):
        state = scrambled(np.uint64(seed))
        for start, count in ((first_step, steps), (0, streams), (0, generators)):
            index = np.arange(start, start + count, dtype=np.uint64)
            state = scrambled(state[..., None] ^ scrambled(index))
    halves = np.stack([state >> np.uint64(33), state & np.uint64(2**30 - 1)], axis=-1)
    return halves.astype(np.int32)


def measurements(task: Any, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return what `Engine.train` does, from rows of measures, norm and finite."""
    columns = {name: values[:, i] for i, name in enumerate(task.measures)}
    return columns | {"gradient_norm": values[:, -2], "finite": values[:, -1] > 0}


def total(sums: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of the sums of batches, float64; they are held one at a time.

    Raises:
        InputError: If there are none.
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


def filled(batch: Any, size: int) -> Any:
    """Return a batch whose last row is repeated up to `size` rows."""
    if rows(batch) == size:
        return batch
    return keras.tree.map_structure(
        lambda array: np.concatenate(
            [array, np.repeat(array[-1:], size - len(array), axis=0)]
        ),
        batch,
    )


def cut(batch: Any, size: int, start: int = 0) -> Any:
    """Return `size` rows of a batch."""
    return keras.tree.map_structure(lambda array: array[start : start + size], batch)


def rows(batch: Any) -> int:
    """Return how many rows a tree of arrays has."""
    return len(keras.tree.flatten(batch)[0])
