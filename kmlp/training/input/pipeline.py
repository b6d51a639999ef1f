"""The batches that a model trains on.

A training image is a function of the seed and of its position in the run: nothing is
remembered from one to the next. So a run goes on at any step, and its images do not
depend on how many workers and devices share them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kmlp.data.batches import batched, finished, statistics
from kmlp.data.decode import normalise
from kmlp.data.reading import guarded
from kmlp.training.input import order, policies
from kmlp.training.input.crops import (
    ATTEMPTS,
    crop_shapes,
    mirror,
    resized_crop,
    shift,
    square,
)
from kmlp.training.input.mixing import erase, mix
from kmlp.training.input.order import visits

# Random numbers of an image: its crop, then shift, mirroring, interpolation.
_DRAWS = 4 * ATTEMPTS + 4


def training_batches(
    source,
    recipe,
    *,
    image_size,
    batch_size,
    global_batch,
    start_step=0,
    worker=0,
    workers=1,
    seed=0,
):
    """Shuffled, augmented, mixed batches without end.

    Position p of the run is image `p % global_batch` of step `p // global_batch`.
    Worker w of W prepares positions w, w + W, w + 2W, …. An epoch has as many steps as
    there are full global batches, and an order of its own; where the recipe repeats
    images, they follow each other, so that an epoch shows the first part of its order.
    All is drawn from seed and position, and mixing from those of a batch's first
    image: it alone depends on the number of replicas.

    Args:
        source: `Source`.
        recipe: `Recipe`.
        image_size: height and width of the images.
        batch_size: of a replica; the replicas of a worker take successive batches.
        global_batch: images per step over all workers.
        start_step: first step.
        worker, workers: which of how many processes asks.
        seed: integer.

    Returns:
        A `tf.data.Dataset` of `(images, targets)`, float32 `(batch_size, image_size,
        image_size, 3)` and `(batch_size, classes)`.

    Raises:
        InputError: fewer images than a batch, or no mean and deviation.
        InputError: a global batch that does not divide into the workers' batches.
    """
    split, classes = source.train, len(source.class_names)
    sample = _sampler(source, recipe, image_size)
    steps = visits(
        split.count,
        batch_size=batch_size,
        global_batch=global_batch,
        start_step=start_step,
        worker=worker,
        workers=workers,
        seed=seed,
        repeats=recipe.repeats,
    )

    def drawn(indices, positions):
        return indices, *draw(seed, positions, recipe)

    dataset = batched(steps.map(drawn).unbatch(), sample, split, batch_size)
    return finished(
        dataset.map(mixer(recipe, classes), num_parallel_calls=tf.data.AUTOTUNE), split
    )


def mixer(recipe: Any, classes: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return a function of a batch of what a sampler gives to `(images, targets)`."""

    def mixed(images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor) -> Any:
        return mix(
            images,
            labels,
            classes,
            order.seeds(key[0]),
            smoothing=recipe.label_smoothing,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            probability=recipe.mix_probability,
            switch_probability=recipe.switch_probability,
        )

    return mixed


def draw(seed: int, positions: tf.Tensor, recipe: Any) -> tuple[tf.Tensor, ...]:
    """Draw the random part of images: `(crops, draws, seeds, keys)`."""
    bits = order.bits(seed, order.SAMPLE, positions, _DRAWS + 2)
    draws = order.uniform(bits[:, :_DRAWS])
    crops = tf.reshape(draws[:, 4:], (-1, ATTEMPTS, 4))
    return (
        crop_shapes(crops, recipe.crop_scale, recipe.crop_ratio),
        draws[:, :4],
        order.seeds(bits[:, _DRAWS:]),
        order.bits(seed, order.BATCH, positions, 1)[:, 0],
    )


def _sampler(source, recipe, size):
    """A function of what `draw` gives to `(image, label, key)`."""
    split = source.train
    part, augmented = preparation(
        recipe, size, *statistics(split, recipe), flips=source.flip
    )
    read = guarded(split, part)

    def sample(index, crops, draws, seeds, key):
        image, label, _ = read(index, crops, draws)
        return augmented(image, draws, seeds), tf.cast(label, tf.int32), key

    return sample


def preparation(
    recipe: Any,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    flips: bool = True,
) -> tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]:
    """Return the two halves of a training image's way: crop, then augmentation.

    Args:
        recipe: `ClassificationRecipe`.
        size: Height and width of the images.
        mean, std: Statistics that the images are normalised by.
        flips: Whether a mirrored image is as good an example.

    Returns:
        `part(image, crops, draws)`, the crop of an encoded or decoded image, uint8,
        and `augmented(crop, draws, seeds)`, float32; their arguments are `draw`'s.
    """
    flip = 0.5 if recipe.flip is None else recipe.flip
    flip *= flips
    policy = _policy(recipe, mean)
    ratio, interpolation = recipe.crop_ratio, recipe.interpolation

    def part(image: tf.Tensor, crops: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if recipe.crop == "resized":
            cubic = draws[3] < 0.5
            return resized_crop(image, size, crops, ratio, interpolation, cubic)
        if image.shape != (size, size, 3):
            image = square(image, size, interpolation)
        return image if recipe.crop == "none" else shift(image, draws[:2])

    def augmented(image: tf.Tensor, draws: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        if flip:
            image = mirror(image, draws[2] < flip)
        if policy is not None:
            image = policy(image, seeds[0])
        image = normalise(image, mean, std)
        if recipe.erasing:
            image = erase(image, seeds[1], recipe.erasing)
        return image

    return part, augmented


def _policy(recipe, mean):
    if recipe.policy is None:
        return None
    return policies.policy(recipe.policy, mean=mean, interpolation=recipe.interpolation)
