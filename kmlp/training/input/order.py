"""Which images a worker sees, and when: a function of the seed and the step alone."""

import numpy as np
import tensorflow as tf

from kmlp.errors import InputError
from kmlp.training.input import randomness


def visits(
    count, *, batch_size, global_batch, start_step, worker, workers, seed, repeats=1
):
    """The images of a run without end, step by step.

    Position p of the run is image `p % global_batch` of step `p // global_batch`.
    Worker w of W prepares positions w, w + W, w + 2W, …. An epoch has as many steps as
    there are full global batches, and an order of its own.

    Args:
        count: images there are.
        batch_size: of a replica.
        global_batch: images per step over all workers.
        start_step: first step.
        worker, workers: which of how many processes asks.
        seed: integer.
        repeats: how often an image follows itself; an epoch then shows the first part
            of its order.

    Returns:
        A `tf.data.Dataset` of `(indices, positions)`, int64 `(global_batch /
        workers,)` each.

    Raises:
        InputError: fewer images than a batch.
        InputError: a global batch that does not divide into the workers' batches.
    """
    steps = steps_per_epoch(count, global_batch)
    share, rest = divmod(global_batch, workers)
    if rest or share % batch_size:
        raise InputError(
            "global_batch must be a multiple of workers * batch_size. Received: "
            f"global_batch={global_batch}, workers={workers}, batch_size={batch_size}"
        )
    start_epoch, start_step = divmod(start_step, steps)

    def epoch(number):
        order = randomness.permutation(seed, number, count)
        first = tf.where(number == start_epoch, np.int64(start_step), np.int64(0))

        def step(index):
            places = index * global_batch + worker
            places += workers * tf.range(share, dtype=tf.int64)
            positions = number * (steps * global_batch) + places
            return tf.gather(order, places // repeats), positions

        return tf.data.Dataset.range(first, steps).map(step)

    return tf.data.Dataset.range(start_epoch, np.iinfo(np.int64).max).flat_map(epoch)


def steps_per_epoch(images, global_batch):
    """Full batches in a number of images.

    Raises:
        InputError: there is none.
    """
    steps = images // global_batch
    if not steps:
        raise InputError(
            f"A batch takes more images than there are to train on, {images:,} images: "
            f"lower batch_size. Received: batch_size={global_batch}"
        )
    return steps
