"""Batches of images in memory: to train on, and to test on.

A training image is a function of the seed and of its position in the run, by the
rules and the random numbers of `kmlp.training.input.pipeline`: the same recipe shows
the same images in the same order there and here. What costs more than a copy, such as
random areas, policies and mixing, is only there.
"""

import numpy as np

from kmlp.errors import InputError
from kmlp.training.input import array_randomness
from kmlp.training.input.background import Ahead

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
