"""Work ahead: an iterator whose next entries a thread prepares."""

import queue
import threading

import numpy as np

from kmlp.errors import InputError
from kmlp.training.input import array_randomness

_END = object()


class Ahead:
    """An iterable's entries, some of them prepared before they are asked for.

    What the iterable raises is raised where its entry would have come. The thread ends
    with the entries, at `close`, or when the iterator is no longer held.

    Args:
        entries: an iterable that only the thread uses from now on.
        depth: how many entries wait at most.
    """

    def __init__(self, entries, depth=8):
        self._waiting = queue.Queue(depth)
        self._closed = threading.Event()
        arguments = entries, self._waiting, self._closed
        threading.Thread(target=_fill, args=arguments, daemon=True).start()

    def __iter__(self):
        return self

    def __next__(self):
        if self._closed.is_set():
            raise StopIteration
        entry, error = self._waiting.get()
        if entry is not _END:
            return entry
        self._closed.set()
        raise StopIteration if error is None else error

    def close(self):
        """Ends the thread after the entry it is at."""
        self._closed.set()

    __del__ = close


def _fill(entries, waiting, closed):
    """Puts entries in line until they end or nobody wants more."""
    error = None
    try:
        for entry in entries:
            if not _put((entry, None), waiting, closed):
                return
    except BaseException as raised:
        error = raised
    _put((_END, error), waiting, closed)


def _put(entry, waiting, closed):
    """Whether the entry was taken before all was closed."""
    while not closed.is_set():
        try:
            waiting.put(entry, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False


# Windows of whole images, as `kmlp.training.input.crops` has them.
WHOLE_CROPS = ("pad", "shift", "none")
SHIFT = 1 / 8  # what they uncover at most, as a share of the side


def check(recipe):
    """Checks that a recipe's images can be made here.

    Raises:
        InputError: they cannot; the message names the field.
    """
    off = {
        "crop": recipe.crop in WHOLE_CROPS,
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
    images, labels, recipe, *, classes, batch_size, global_batch, start_step, seed
):
    """Shuffled, augmented batches without end, prepared ahead by a thread.

    Args:
        images: `(N, S, S, 3)` uint8.
        labels: `(N,)` class numbers.
        recipe: a resolved `Recipe` that `check` has seen.
        classes: how many there are.
        batch_size: of a replica; the replicas take successive batches.
        global_batch: images per step.
        start_step: first step.
        seed: integer.

    Returns:
        An iterator of `(images, targets)`, float32 `(batch_size, S, S, 3)` and
        `(batch_size, classes)`; `close()` ends its thread.
    """

    def batches():
        off = recipe.label_smoothing / classes
        shares = np.full((classes, classes), off, np.float32)
        np.fill_diagonal(shares, np.float32(1 - recipe.label_smoothing + off))
        normal = Normal(images.shape[2], recipe)
        steps = len(labels) // global_batch
        epoch, step = divmod(start_step, steps)
        while True:
            order = array_randomness.permutation(seed, epoch, len(labels))
            for number in range(step * global_batch, steps * global_batch, batch_size):
                places = np.arange(number, number + batch_size)
                chosen = order[places // recipe.repeats]
                positions = epoch * (steps * global_batch) + places
                shown = augmented(images, chosen, positions, recipe, seed)
                yield normal(shown), shares[labels[chosen]]
            epoch, step = epoch + 1, 0

    return Ahead(batches())


def validation_batches(images, labels, recipe, batch_size, replicas=1):
    """The images in order, the last batches filled up with rows of weight 0.

    Args:
        replicas: the number of batches is a multiple of it.

    Yields:
        `(images, labels, weights)`, float32 `(batch_size, S, S, 3)`, int32 and
        float32 `(batch_size,)`.
    """
    normal = Normal(images.shape[2], recipe)
    rounds = -(-len(labels) // (batch_size * replicas))
    for start in range(0, rounds * replicas * batch_size, batch_size):
        places = np.arange(start, start + batch_size)
        chosen = np.minimum(places, len(labels) - 1)
        weights = (places < len(labels)).astype(np.float32)
        yield normal(images[chosen]), labels[chosen].astype(np.int32), weights


def augmented(images, chosen, positions, recipe, seed):
    """Shifts and mirrors images.

    Args:
        images: `(N, S, S, 3)` uint8.
        chosen: `(B,)` indices.
        positions: `(B,)` of them in the run.
        recipe: `crop` and `flip` count.
        seed: integer.

    Returns:
        `(B, S, S, 3)` uint8; what a shift uncovers is black.
    """
    bits = array_randomness.bits(seed, array_randomness.SAMPLE, positions, 3)
    draws = array_randomness.uniform(bits)
    if recipe.crop == "none":
        shown = images[chosen]
    else:
        size = images.shape[1]
        reach = int(size * SHIFT)
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
    """uint8 images as the model takes them, float32.

    Args:
        width: of the images.
        recipe: its `mean` and `std` count.
    """

    def __init__(self, width, recipe):
        mean, std = (np.array(v, np.float32) for v in (recipe.mean, recipe.std))
        # Rows of colours: broadcasting over the last axis of three is slow.
        self._mean = np.tile(np.float32(255) * mean, width)
        self._factor = np.tile(1 / (np.float32(255) * std), width)

    def __call__(self, images):
        rows = images.reshape(-1, len(self._mean)).astype(np.float32)
        rows -= self._mean
        rows *= self._factor
        return rows.reshape(images.shape)
