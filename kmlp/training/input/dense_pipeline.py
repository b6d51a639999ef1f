"""The batches that detectors and segmenters train on and are tested on.

As in classification, a training image is a function of the seed and of its position in
the run: a run goes on at any step, and its images do not depend on how many workers and
devices share them.
"""

import os

import numpy as np
import tensorflow as tf

from kmlp.training.input import detection_examples, segmentation_examples
from kmlp.training.input.graph_calls import in_graph
from kmlp.training.input.guarding import guarded
from kmlp.training.input.order import visits

# What an image's random numbers are for, besides those of
# `kmlp.training.input.randomness`.
_PURPOSE = 0xDE45E
_TASKS = {"detection": detection_examples, "segmentation": segmentation_examples}
# Batches that are prepared ahead: some have hundreds of megabytes.
_AHEAD = 2


def training_batches(
    source,
    recipe,
    *,
    batch_size,
    global_batch,
    start_step=0,
    worker=0,
    workers=1,
    seed=0,
):
    """Shuffled, augmented batches without end.

    Position p of the run is image `p % global_batch` of step `p // global_batch`.
    Worker w of W prepares positions w, w + W, w + 2W, …. An epoch has as many steps as
    there are full global batches, and an order of its own.

    Args:
        source: `DenseSource`.
        recipe: `DenseRecipe`.
        batch_size: of a replica; the replicas of a worker take successive batches.
        global_batch: images per step over all workers.
        start_step: first step.
        worker, workers: which of how many processes asks.
        seed: integer.

    Returns:
        A `tf.data.Dataset` of `(images, targets)` of static shapes: float32
        `(batch_size, H, W, 3)` with the recipe's `image_size`, and the targets of
        `detection_examples` or `segmentation_examples`.

    Raises:
        InputError: fewer images than a batch.
        InputError: a global batch that does not divide into the workers' batches.
    """
    split, task = source.train, _TASKS[source.task]

    def prepared(index, position):
        generator = np.random.default_rng((seed, _PURPOSE, position))
        return task.training_example(split, index, recipe, generator)

    sample = _sampler(guarded(split, prepared), task.training_spec(recipe))

    def of_task(index, position):
        image, *targets = sample(index, position)[:-1]
        return image, task.named(targets, recipe)

    steps = visits(
        split.count,
        batch_size=batch_size,
        global_batch=global_batch,
        start_step=start_step,
        worker=worker,
        workers=workers,
        seed=seed,
    )
    return _batched(steps.unbatch(), of_task, split, batch_size)


def evaluation_batches(
    source, recipe, *, batch_size, worker=0, workers=1, replicas=1, split=None
):
    """Whole pictures in order, padded to full batches, as many for every worker.

    Args:
        source: `DenseSource`.
        recipe: `DenseRecipe`.
        batch_size: of a replica. Class maps of several sizes come one by one.
        worker, workers: which of how many processes asks; worker w takes images w,
            w + W, ….
        replicas: of a worker; the number of its batches is a multiple of it.
        split: of `source`; `None`: its validation.

    Returns:
        A `tf.data.Dataset` of `(images, targets, weights)`. Weights are 1, and 0 for
        padding and for what was skipped as unreadable.
    """
    split = split or source.validation
    task = _TASKS[source.task]
    spec = task.evaluation_spec(split, recipe)
    if None in spec[0][0]:
        batch_size = 1
    rounds = -(-split.count // (workers * batch_size * replicas))
    last = workers * rounds * batch_size * replicas

    def prepared(index):
        return task.evaluation_example(split, index, recipe)

    sample = _sampler(guarded(split, prepared), spec)

    def of_task(index):
        image, *targets, itself = sample(tf.minimum(index, split.count - 1))
        weight = tf.cast(itself & (index < split.count), tf.float32)
        return image, task.named_evaluation(targets, recipe), weight

    dataset = tf.data.Dataset.range(worker, last, workers)
    return _batched(dataset, of_task, split, batch_size)


def _sampler(read, spec):
    """A function of tensors to an example's and whether it is the one asked for."""

    def flat(*numbers):
        example, itself = read(*numbers)
        return *example, itself

    return in_graph(flat, [*spec, ((), "bool")])


def _batched(dataset, sample, split, batch_size):
    calls = os.cpu_count() * (1 if split.in_memory else 2)  # some wait for the disk
    dataset = dataset.map(sample, num_parallel_calls=calls)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(_AHEAD)
    options = tf.data.Options()
    options.deterministic = True
    # Workers divide the images here already.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return dataset.with_options(options)
