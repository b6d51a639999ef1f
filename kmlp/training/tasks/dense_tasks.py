"""Detection and segmentation as tasks of the engines."""

import json
import re

import keras
import numpy as np
from keras import ops

from kmlp.data.dense import VOID, results
from kmlp.data.dense.results import coco_results
from kmlp.data.dense.scoring import (
    average_precision,
    intersection_over_union,
    truth,
)
from kmlp.errors import InputError
from kmlp.layers.feature_pyramid import resize_bilinear
from kmlp.segmentation.segmenter import confusion, pixel_loss
from kmlp.training.engine.engine import Task
from kmlp.training.input.segmentation_examples import evaluation_spec
from kmlp.weights import resize


def task_of(source, recipe, *, indices=None):
    """The task of a data set under a recipe.

    Args:
        source: `DenseSource`.
        recipe: `DenseRecipe`.
        indices: pictures of the validation that are scored; `None`: all.
    """
    if source.task == "detection":
        return Detection(source, masks="mask" in recipe.head, indices=indices)
    (shape, _), _ = evaluation_spec(source.validation, recipe)
    return Segmentation(len(source.class_names), shape[:2])


class _Dense(Task):
    """Learns from the losses that a dense model names."""

    def __init__(self, names=()):
        self.measures = ("loss", *names)

    def of(self, model):
        """The task with all that it takes from the model that is to be trained."""
        self.measures = ("loss", *(f"{name}_loss" for name in model.loss_names))
        return self

    def training(self, model, images, targets, taught=None):
        losses = model.losses_of(model(images, training=True), targets)
        parts = ops.stack([losses[name] for name in model.loss_names])  # (L, N)
        total = ops.sum(parts, axis=0)
        sums = [ops.sum(total)[None], ops.sum(parts, axis=1)]
        return total, ops.concatenate(sums)


class Segmentation(_Dense):
    """Learns class maps; the mean intersection over union says how well.

    Args:
        classes: their number, void apart.
        size: height and width of the pictures of the validation, `None` where they
            differ.
    """

    score = "mIoU"

    def __init__(self, classes, size):
        super().__init__()
        self.classes, self.size = classes, tuple(size)
        self._twin = None

    def of(self, model):
        self._twin = at_size(model, self.size)
        return super().of(model)

    def evaluation(self, model, images, labels, weights):
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

    def result(self, sums):
        """`{"loss", "mIoU", "pixel_accuracy", "count"}`."""
        sums = np.asarray(sums, "float64")
        loss, count = sums[:2]
        figures = intersection_over_union(sums[2:].reshape(self.classes, self.classes))
        return {
            "loss": float(loss / max(count, 1.0)),
            "mIoU": figures["mIoU"],
            "pixel_accuracy": figures["accuracy"],
            "count": float(count),
        }


def at_size(model, size):
    """A segmenter for pictures of another size than it is trained on.

    Args:
        model: a train form.
        size: height and width, `None` where pictures differ.

    Returns:
        A model of the same weights in the same order, with values of its own; `None`
        where the model takes such pictures as it is.

    Raises:
        InputError: pictures of several sizes, and a family that has to know one.
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


class Detection(_Dense):
    """Learns boxes, and masks where the head has them; COCO's AP says how well.

    Args:
        source: `DenseSource` with the truth.
        masks: whether masks are scored.
        indices: of the pictures that are scored; `None`: all of the validation.

    Raises:
        InputError: pycocotools is not installed.
    """

    def __init__(self, source, *, masks, indices=None):
        super().__init__()
        results.library()  # what is missing is said before anything is trained
        self.source, self.masks = source, masks
        self.score = "mask_AP" if masks else "AP"
        self._truth = truth(source.validation, source, indices)

    def validate(self, engine, make_dataset):
        found = self.found(engine, make_dataset)
        own = [entry for _, entries in found for entry in entries]
        parts = engine.gather(json.dumps(own).encode())
        entries = [entry for part in parts for entry in json.loads(part)]
        return self.scores(entries)

    def scores(self, entries, seen=None):
        """COCO's figures of a file of results.

        Args:
            entries: of the file.
            seen: ids of the pictures that they are of; `None`: all that are scored.
        """
        known = self._truth
        if seen is not None:
            chosen = set(seen)
            known = {
                **known,
                "images": [i for i in known["images"] if i["id"] in chosen],
                "annotations": [
                    a for a in known["annotations"] if a["image_id"] in chosen
                ],
            }
        figures = average_precision(known, entries, masks=self.masks)
        if self.score not in figures:
            figures[self.score] = 0.0
        # Sizes that do not occur have no figure; the history has one set of columns.
        return {k: v for k, v in figures.items() if not re.search("small|med|large", k)}

    def found(self, engine, make_dataset):
        """Yields `(index, entries of a file of results)` of this process's pictures."""
        for (_, targets, weights), outputs in engine.infer(make_dataset):
            yield from results_of(self.source, outputs, targets, weights)


def results_of(source, outputs, targets, weights):
    """Yields `(index, entries)` of the pictures of a batch that count."""
    split = source.validation
    for row in np.flatnonzero(weights > 0):
        index = int(targets["index"][row])
        detections = {name: part[row] for name, part in outputs.items()}
        yield (
            index,
            coco_results(
                detections,
                image_id=split.image_id(index),
                size=tuple(map(int, targets["size"][row])),
                shape=tuple(map(int, targets["shape"][row])),
                category_ids=source.category_ids,
            ),
        )
