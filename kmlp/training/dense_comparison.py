"""A trained detector or segmenter against what was made of it."""

import numpy as np

from kmlp.data.dense.scoring import confusion, intersection_over_union
from kmlp.errors import RunError
from kmlp.training.tasks.dense_tasks import results_of

# Class scores this near to each other, relative to the largest, are a tie.
TIE = 1e-4
# Detections from this score on must be found by every form: the same class, nearly
# the same box, nearly the same score.
SCORE, OVERLAP, NEAR = 0.1, 0.95, 0.01


def compare(forms, batches, job):
    """Runs all forms on pictures and holds them against the first.

    Args:
        forms: `{name: function}` of images `(N, H, W, 3)` to `{name: array}`.
        batches: of the validation, `(images, targets, weights)`, of the forms' size.
        job: `DenseJob`.

    Returns:
        `{name: {"images", figures of the task, "largest_difference",
        "relative_difference", "disagreements", "ties", "compared"}}`, and the first
        form's entries of COCO's file of results, none of segmenters.
    """
    measure = {"detection": _Detections, "segmentation": _Maps}[job.recipe.task]
    measures = {name: measure(job) for name in forms}
    for images, targets, weights in batches:
        weights = np.asarray(weights)
        targets = _arrays(targets)
        expected = None
        for name, function in forms.items():
            found = function(np.asarray(images))
            expected = found if expected is None else expected
            measures[name].take(found, expected, targets, weights)
    results = {name: measure.result() for name, measure in measures.items()}
    return results, next(iter(measures.values())).entries


def _arrays(tree):
    if isinstance(tree, dict):
        return {name: np.asarray(part) for name, part in tree.items()}
    return np.asarray(tree)


def check_agreement(results):
    """Raises `InputError` where a form does not answer as the trained model does."""
    for name, result in results.items():
        # A threshold may cut between two nearly equal numbers.
        allowed = result["compared"] // 1000
        if result["disagreements"] > allowed or not np.isfinite(
            result["largest_difference"]
        ):
            raise RunError(
                f"{name} and the trained model disagree in "
                f"{result['disagreements']:,} of {result['compared']:,} "
                f"{result['unit']}; nothing was published. This is a fault of the "
                "export: please report it.",
            )


class _Maps:
    """Class maps of one form: how good, and how far from the trained model's."""

    def __init__(self, job):
        self.classes = len(job.source.class_names)
        self.matrix = np.zeros((self.classes, self.classes), "int64")
        self.images = self.disagreements = self.ties = self.compared = 0
        self.difference = self.magnitude = 0.0
        self.entries = []

    def take(self, found, expected, labels, weights):
        real = weights > 0
        (found,), (expected,) = found.values(), expected.values()
        found, expected = found[real], expected[real]
        classes = found.argmax(-1)
        if labels.shape[1:3] == found.shape[1:3]:
            self.matrix += confusion(labels[real], classes, self.classes)
        self.images += int(real.sum())
        self.difference = np.maximum(
            self.difference, np.abs(found - expected).max(initial=0)
        )
        self.magnitude = max(self.magnitude, np.abs(expected).max(initial=0))
        second, first = np.moveaxis(np.sort(expected, axis=-1)[..., -2:], -1, 0)
        differs = classes != expected.argmax(-1)
        tie = first - second <= TIE * max(self.magnitude, 1e-30)
        self.disagreements += int(np.sum(differs & ~tie))
        self.ties += int(np.sum(differs & tie))
        self.compared += differs.size

    def result(self):
        figures = {}
        if self.matrix.sum():
            figures = intersection_over_union(self.matrix)
        return {
            "images": self.images,
            **figures,
            "unit": "pixels",
            "compared": self.compared,
            "largest_difference": float(self.difference),
            "relative_difference": float(self.difference / max(self.magnitude, 1e-30)),
            "disagreements": self.disagreements,
            "ties": self.ties,
        }


class _Detections:
    """Detections of one form: how good, and whether the trained model's are there."""

    def __init__(self, job):
        self.job, self.entries, self.seen = job, [], []
        self.images = self.compared = self.disagreements = 0
        self.difference = 0.0

    def take(self, found, expected, targets, weights):
        source = self.job.source
        for index, entries in results_of(source, found, targets, weights):
            self.entries += entries
            self.seen.append(source.validation.image_id(index))
        for row in np.flatnonzero(weights > 0):
            self.images += 1
            self._match(*({k: v[row] for k, v in x.items()} for x in (found, expected)))

    def _match(self, found, expected):
        for k in np.flatnonzero(expected["scores"] >= SCORE):
            self.compared += 1
            overlap = _iou(expected["boxes"][k], found["boxes"])
            apart = np.abs(found["scores"] - expected["scores"][k])
            fits = (found["classes"] == expected["classes"][k]) & (overlap >= OVERLAP)
            fits &= apart <= NEAR
            if not fits.any():
                self.disagreements += 1
                continue
            best = np.flatnonzero(fits)[apart[fits].argmin()]
            self.difference = max(self.difference, float(apart[best]))

    def result(self):
        return {
            "images": self.images,
            **self.job.task.scores(self.entries, self.seen),
            "unit": "detections",
            "compared": self.compared,
            "largest_difference": self.difference,
            "relative_difference": self.difference,
            "disagreements": self.disagreements,
        }


def _iou(box, boxes):
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    inner = np.clip(high - low, 0, None).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return inner / np.maximum(areas - inner, 1e-9)
