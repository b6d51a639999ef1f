"""Batches of images in memory, without TensorFlow: shifted, mirrored, made ahead."""

import collections
import functools
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from kmlp.errors import InputError
from kmlp.training.input import order

_END: Any = object()
Entry = TypeVar("Entry")
Batch = tuple[np.ndarray, ...]


def ahead(entries: Iterable[Entry], depth: int = 8) -> Generator[Entry, None, None]:
    """Yield an iterable's entries, some prepared by a thread before they are wanted.

    What the iterable raises is raised where its entry would have come. The thread ends
    with the entries, at `close`, or when the generator is no longer held.

    Args:
        entries: Iterable that only the thread uses from now on.
        depth: Entries that wait at most.
    """
    pool = ThreadPoolExecutor(1)
    prepare = functools.partial(pool.submit, next, iter(entries), _END)
    try:
        waiting = collections.deque(prepare() for _ in range(depth))
        while (entry := waiting.popleft().result()) is not _END:
            waiting.append(prepare())
            yield entry
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def check(recipe: Any) -> None:
    """Check that a recipe's images can be made here.

    Raises:
        InputError: If they cannot; the message names the field.
    """
    off = {
        "crop": recipe.crop in order.WHOLE_CROPS,
        "policy": recipe.policy is None,
        "erasing": not recipe.erasing,
        "mixup": not recipe.mixup,
        "cutmix": not recipe.cutmix,
        "teacher": recipe.teacher is None,
        "test_crop": recipe.test_crop == 1,
    }
    for field, fits in off.items():
        if not fits:
            raise InputError(
                "Images in memory are shifted and mirrored, and nothing more: train "
                "each row by --arch, or set "
                f"{field}={'pad' if field == 'crop' else 'none or 0'}. "
                f"Received: {field}={getattr(recipe, field)}"
            )


def training_batches(
    images: np.ndarray,
    labels: np.ndarray,
    recipe: Any,
    *,
    classes: int,
    batch_size: int,
    global_batch: int,
    start_step: int,
    seed: int,
) -> Generator[Batch, None, None]:
    """Return shuffled, augmented batches without end, prepared ahead by a thread.

    Args:
        images: Images `(N, S, S, 3)`, uint8.
        labels: Class numbers `(N,)`.
        recipe: Resolved `ClassificationRecipe` that `check` has seen.
        classes: Number of classes.
        batch_size: Images per replica; the replicas take successive batches.
        global_batch: Images per step.
        start_step: First step.
        seed: Seed of order and augmentation.

    Returns:
        A generator of `(images, targets)`, float32 `(batch_size, S, S, 3)` and
        `(batch_size, classes)`; `close()` ends its thread.
    """

    def batches() -> Iterator[Batch]:
        off = recipe.label_smoothing / classes
        shares = np.full((classes, classes), off, np.float32)
        np.fill_diagonal(shares, np.float32(1 - recipe.label_smoothing + off))
        normal = Normal(images.shape[2], recipe)
        steps = len(labels) // global_batch
        epoch, step = divmod(start_step, steps)
        while True:
            shown = order.permutation(seed, epoch, len(labels))
            for number in range(step * global_batch, steps * global_batch, batch_size):
                places = np.arange(number, number + batch_size)
                chosen = shown[places // recipe.repeats]
                positions = epoch * (steps * global_batch) + places
                batch = augmented(images, chosen, positions, recipe, seed)
                yield normal(batch), shares[labels[chosen]]
            epoch, step = epoch + 1, 0

    return ahead(batches())


def validation_batches(
    images: np.ndarray,
    labels: np.ndarray,
    recipe: Any,
    batch_size: int,
    replicas: int = 1,
) -> Iterator[Batch]:
    """Yield the images in order, the last batches filled up with rows of weight 0.

    Args:
        images: Images `(N, S, S, 3)`, uint8.
        labels: Class numbers `(N,)`.
        recipe: A `ClassificationRecipe`; its `mean` and `std` count.
        batch_size: Images per replica.
        replicas: Number of which the number of batches is a multiple.

    Yields:
        Tuples `(images, labels, weights)`, float32 `(batch_size, S, S, 3)`, int32 and
        float32 `(batch_size,)`.
    """
    normal = Normal(images.shape[2], recipe)
    rounds = -(-len(labels) // (batch_size * replicas))
    for start in range(0, rounds * replicas * batch_size, batch_size):
        places = np.arange(start, start + batch_size)
        chosen = np.minimum(places, len(labels) - 1)
        weights = (places < len(labels)).astype(np.float32)
        yield normal(images[chosen]), labels[chosen].astype(np.int32), weights


def augmented(
    images: np.ndarray,
    chosen: np.ndarray,
    positions: np.ndarray,
    recipe: Any,
    seed: int,
) -> np.ndarray:
    """Shift and mirror images.

    Args:
        images: Images `(N, S, S, 3)`, uint8.
        chosen: Indices `(B,)` of the chosen images.
        positions: Positions `(B,)` of those images in the run.
        recipe: A `ClassificationRecipe`; its `crop` and `flip` count.
        seed: Seed of the augmentation.

    Returns:
        Images `(B, S, S, 3)` uint8; what a shift uncovers is black.
    """
    draws = order.uniform(order.bits(seed, order.SAMPLE, positions, 3))
    if recipe.crop == "none":
        shown = images[chosen]
    else:
        size = images.shape[1]
        reach = int(size * order.SHIFT)
        # (B, 2): the window's corner in the padded image
        corners = np.floor(draws[:, :2] * np.float32(2 * reach + 1)).astype(int)
        shown = np.zeros((len(chosen), *images.shape[1:]), np.uint8)
        for out, index, (top, left) in zip(shown, chosen, (corners - reach).tolist()):
            out[max(-top, 0) : size - top, max(-left, 0) : size - left] = images[
                index, max(top, 0) : size + top, max(left, 0) : size + left
            ]
    mirrored = draws[:, 2] < np.float32(recipe.flip)
    shown[mirrored] = shown[mirrored, :, ::-1]
    return shown


class Normal:
    """A function of uint8 images to float32 ones as the model takes them.

    Args:
        width: Width of the images.
        recipe: A `ClassificationRecipe`; its `mean` and `std` count.
    """

    def __init__(self, width: int, recipe: Any):
        mean, std = (np.array(v, np.float32) for v in (recipe.mean, recipe.std))
        # Rows of colours: broadcasting over the last axis of three is slow.
        self._mean = np.tile(np.float32(255) * mean, width)
        self._factor = np.tile(1 / (np.float32(255) * std), width)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        rows = images.reshape(-1, len(self._mean)).astype(np.float32)
        rows -= self._mean
        rows *= self._factor
        return rows.reshape(images.shape)
