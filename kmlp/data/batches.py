"""The batches that a model is tested on."""

import os

import tensorflow as tf

from kmlp.data.decode import centre_crop, normalise
from kmlp.data.reading import guarded, reason
from kmlp.errors import InputError


def evaluation_batches(
    split, recipe, *, image_size, batch_size, worker=0, workers=1, replicas=1
):
    """Centre crops in order, padded to full batches, as many for every worker.

    Args:
        split: `Split`.
        recipe: `Recipe`; its `test_crop`, `test_interpolation`, `mean` and `std`
            count.
        image_size: height and width of the images.
        batch_size: of a replica.
        worker, workers: which of how many processes asks; worker w takes images w,
            w + W, ….
        replicas: of a worker; the number of its batches is a multiple of it.

    Returns:
        A `tf.data.Dataset` of `(images, labels, weights)`, float32 `(batch_size,
        image_size, image_size, 3)`, int32 and float32 `(batch_size,)`. Weights are 1,
        and 0 for padding and for what was skipped as unreadable.

    Raises:
        InputError: no mean and deviation.
    """
    mean, std = statistics(split, recipe)
    rounds = -(-split.count // (workers * batch_size * replicas))
    size = image_size

    def prepared(image):
        crop, method = recipe.test_crop, recipe.test_interpolation
        return normalise(centre_crop(image, size, crop, method), mean, std)

    read = guarded(split, prepared)

    def sample(index):
        image, label, itself = read(tf.minimum(index, split.count - 1))
        weight = tf.cast(itself & (index < split.count), tf.float32)
        return image, tf.cast(label, tf.int32), weight

    last = workers * rounds * batch_size * replicas
    dataset = tf.data.Dataset.range(worker, last, workers)
    return finished(batched(dataset, sample, split, batch_size), split)


def statistics(split, recipe):
    """`(mean, std)` per channel, of the recipe or else of the data.

    Raises:
        InputError: neither knows them.
    """
    mean = split.mean if recipe.mean is None else recipe.mean
    std = split.std if recipe.std is None else recipe.std
    if mean is None or std is None:
        raise InputError(
            "Neither recipe nor data say how images are normalised: set mean and std, "
            "three numbers each, of images in 0…1. "
            f"Received: mean={mean}, std={std}, data {split.name}".replace(
                "None", "none"
            )
        )
    return mean, std


def threads(split):
    """As many as the processor has; more where some wait for the disk."""
    return os.cpu_count() * (1 if split.store.in_memory else 2)


def batched(dataset, sample, split, batch_size):
    return dataset.map(sample, num_parallel_calls=threads(split)).batch(
        batch_size, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE
    )


def finished(dataset, split):
    options = tf.data.Options()
    options.deterministic = True
    # Workers divide the images here already.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    if not split.store.in_memory:
        options.threading.private_threadpool_size = threads(split)
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def read(batches, remedy="replace or remove it"):
    """The batches of `evaluation_batches` as arrays.

    Args:
        batches: a `tf.data.Dataset`.
        remedy: what to do about an image that cannot be read.

    Raises:
        InputError: an image that cannot be read or decoded.
    """
    try:
        yield from batches.as_numpy_iterator()
    except tf.errors.OpError as error:
        found = reason(error)
        if found is None:
            raise
        place = str(found).rpartition("Received: ")[2]
        raise InputError(
            f"An image cannot be read or decoded: {remedy}. Received: {place}"
        ) from error
