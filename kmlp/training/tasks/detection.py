"""Detection: boxes, masks where the head has them, COCO's average precision."""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.artifacts.agreement import DetectionAgreement
from kmlp.data.dense import results
from kmlp.data.dense.geometry import prepared
from kmlp.data.dense.results import coco_results, to_picture
from kmlp.data.scoring import average_precision, truth
from kmlp.errors import InputError
from kmlp.predicting.dense_predictions import Detected
from kmlp.predicting.drawing import draw_detections
from kmlp.training.job import Job
from kmlp.training.tasks.dense_task import DenseTask, check, resolve_dense

__all__ = ["Detection", "check", "resolve"]

RESULTS, SHOWN_SCORE = "results.json", 0.5


class Detection(DenseTask):
    """Learn boxes, and masks where the head has them; COCO's AP says how well.

    Args:
        source: Data, a `DenseSource` with the truth.
        masks: Whether masks are scored.
        indices: Pictures that are scored; `None`: all of the validation.

    Raises:
        InputError: If pycocotools is not installed, or masks are to be learned or
            scored where no object has one.
    """

    name = "detection"

    def __init__(
        self, source: Any, *, masks: bool, indices: Iterable[int] | None = None
    ):
        super().__init__()
        results.library()  # refuse before anything is trained
        for split in (source.train, source.validation):
            if masks and not split.masks:
                raise InputError(
                    "The head learns masks, and no object has one here: choose a head "
                    "of boxes alone, --head retinanet. "
                    f"Received: {split.name}"
                )
        self.source, self.masks = source, masks
        self.score = "mask_AP" if masks else "AP"
        self._truth = truth(source.validation, source, indices)

    def validate(self, engine: Any, make_dataset: Callable) -> dict[str, float]:
        found = self.found(engine, make_dataset)
        own = [entry for _, entries in found for entry in entries]
        parts = engine.gather(json.dumps(own).encode())
        entries = [entry for part in parts for entry in json.loads(part)]
        return self.scores(entries)

    def scores(
        self, entries: list[dict], seen: Iterable[int] | None = None
    ) -> dict[str, float]:
        """Return COCO's figures of a file of results.

        Args:
            entries: Entries of the file.
            seen: Ids of the pictures that they are of; `None`: all that are scored.
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

    def found(self, engine: Any, make_dataset: Callable) -> Iterator[tuple[int, list]]:
        """Yield `(index, entries of a file of results)` of this process's pictures."""
        for (_, targets, weights), outputs in engine.infer(make_dataset):
            yield from results_of(self.source, outputs, targets, weights)

    def agreement(self, job: Job) -> DetectionAgreement:
        split = self.source.validation

        def _entries_of(found, targets, weights):
            for index, entries in results_of(self.source, found, targets, weights):
                yield split.image_id(index), entries

        return DetectionAgreement(_entries_of, self.scores)

    def extras(
        self, job: Job, model: keras.Model, reference: Any, folder: Path
    ) -> list[str]:
        (folder / RESULTS).write_text(json.dumps(reference.entries) + "\n", "utf-8")
        return super().extras(job, model, reference, folder)

    def drawer(self, job: Job, model: keras.Model) -> Callable:
        known, palette = self.preprocessing(job), self.source.palette
        names = self.source.class_names

        def _drawn(image, objects):
            canvas, shape = prepared(image, known)
            outputs = model(canvas[None], training=False)
            outputs = {
                name: keras.ops.convert_to_numpy(part)[0]
                for name, part in outputs.items()
            }
            found = Detected("", image, to_picture(outputs, shape, image.shape[:2]))
            expected = {"boxes": objects.boxes, "classes": objects.classes}
            if "masks" in outputs:
                expected["masks"] = objects.masks()
            truth = draw_detections(image, expected, names, palette=palette)
            return truth, found.overlay(names, SHOWN_SCORE, palette)

        return _drawn


def resolve(options: argparse.Namespace, engine: Any) -> Job:
    """Bring recipe, data, weights and devices together."""
    return resolve_dense(
        options,
        engine,
        lambda source, recipe, indices: Detection(
            source, masks="mask" in recipe.head, indices=indices
        ),
    )


def results_of(
    source: Any, outputs: dict, targets: dict, weights: np.ndarray
) -> Iterator[tuple[int, list]]:
    """Yield `(index, entries)` of the pictures of a batch that count."""
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
