"""Segmentation: class maps and their mean intersection over union."""

import argparse
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.artifacts.agreement import MapAgreement
from kmlp.artifacts.locating import KERAS
from kmlp.data.dense.source import VOID
from kmlp.data.scoring import intersection_over_union
from kmlp.errors import InputError
from kmlp.layers.feature_pyramid import resize_bilinear
from kmlp.predicting.dense_network import DenseNetwork
from kmlp.predicting.dense_predictions import classes_of, way_of
from kmlp.predicting.drawing import draw_classes
from kmlp.segmentation.segmenter import confusion, pixel_loss
from kmlp.training.input.dense_examples import SegmentationExamples
from kmlp.training.job import Job
from kmlp.training.tasks.dense_task import DenseTask, check, resolve_dense
from kmlp.weights.grid_resizing import resize

__all__ = ["Segmentation", "check", "resolve"]


class Segmentation(DenseTask):
    """Learn class maps; the mean intersection over union says how well.

    Args:
        classes: Number of classes, void apart.
        size: Height and width of the validation pictures, `None` where they differ.
    """

    name = "segmentation"
    score = "mIoU"

    def __init__(self, classes: int, size: Iterable[int | None]):
        super().__init__()
        self.classes, self.size = classes, tuple(size)
        self._twin = None

    def of(self, model: keras.Model) -> "Segmentation":
        self._twin = at_size(model, self.size)
        super().of(model)
        return self

    def evaluation(
        self, model: keras.Model, images: Any, labels: Any, weights: Any
    ) -> Any:
        if self._twin is None:
            logits = model(images, training=False)
        else:
            # The same weights, as they are in the engine's scope.
            values = [weight.value for weight in model.weights]
            mapping = list(zip(self._twin.weights, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                logits = self._twin(images, training=False)
        logits = ops.cast(logits, "float32")
        logits = resize_bilinear(logits, ops.shape(labels)[1:3])
        counted = ops.reshape(weights > 0, (-1, 1, 1))
        labels = ops.where(counted, ops.cast(labels, "int32"), VOID)
        losses = pixel_loss(logits, labels)
        matrix = confusion(logits, labels, self.classes)
        # A picture of nothing finite is all wrong, not class 0.
        sums = [ops.sum(losses), ops.sum(weights)]
        return ops.concatenate([ops.stack(sums), ops.reshape(matrix, (-1,))])

    def result(self, sums: Any) -> dict[str, float]:
        """Return `{"loss", "mIoU", "pixel_accuracy", "count"}`."""
        sums = np.asarray(sums, "float64")
        loss, count = sums[:2]
        figures = intersection_over_union(sums[2:].reshape(self.classes, self.classes))
        return {
            "loss": float(loss / max(count, 1.0)),
            "mIoU": figures["mIoU"],
            "pixel_accuracy": figures["accuracy"],
            "count": float(count),
        }

    def agreement(self, job: Job) -> MapAgreement:
        return MapAgreement(self.classes)

    def comparison_batches(self, job: Job) -> Any:
        corner = functools.partial(_corner, job.recipe.image_size)
        return self.validation_batches(job).map(corner)

    def drawer(self, job: Job, model: keras.Model) -> Callable:
        names, palette = job.source.class_names, job.source.palette
        known = self.preprocessing(job)
        if job.recipe.test_mode == "whole":
            model = at_size(model, self.size) or model
        run = functools.partial(model, training=False)
        shape = tuple(model.inputs[0].shape)
        network = DenseNetwork(Path(), KERAS, known, shape, run)
        way = way_of(network)

        def _drawn(image, expected):
            maps = expected, classes_of(network, image, way)
            return [draw_classes(image, m, names, palette=palette) for m in maps]

        return _drawn


def resolve(options: argparse.Namespace, engine: Any) -> Job:
    """Bring recipe, data, weights and devices together."""

    def _make_task(source, recipe, indices):
        examples = SegmentationExamples(source.validation, recipe)
        (shape, _), _ = examples.evaluation_spec()
        return Segmentation(len(source.class_names), shape[:2])

    return resolve_dense(options, engine, _make_task)


def at_size(model: keras.Model, size: Iterable[int | None]) -> keras.Model | None:
    """Return a segmenter for pictures of another size than it is trained on.

    Args:
        model: Train form.
        size: Height and width, `None` where pictures differ.

    Returns:
        A model of the same weights in the same order, with values of its own; `None`
        where the model takes such pictures as it is.

    Raises:
        InputError: If pictures differ in size and the family has to know one.
    """
    if tuple(model.inputs[0].shape[1:3]) in (tuple(size), (None, None)):
        return None
    try:
        return resize(model, (*size, 3), "partition")
    except ValueError as error:
        raise InputError(
            "The pictures of the validation cannot be shown to this backbone as they "
            "are; choose convmlp or msmlp, which take any size, or pictures of one "
            f"size. {error}"
        ) from error


def _corner(size, images, labels, weights):
    """Return the upper left of pictures of any size, and of maps where they fit."""
    import tensorflow as tf

    if tuple(images.shape[1:3]) == tuple(size):
        return images, labels, weights
    own, (height, width) = tf.shape(images)[1:3], size
    missing = [[0, tf.maximum(side - own[i], 0)] for i, side in enumerate(size)]
    images = tf.pad(images[:, :height, :width], [[0, 0], *missing, [0, 0]])
    images = tf.ensure_shape(images, (None, height, width, 3))
    # Maps keep their own size: here they say nothing.
    void = tf.fill((tf.shape(images)[0], height, width), tf.constant(VOID, tf.uint8))
    return images, void, weights
