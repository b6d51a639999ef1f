"""Whether the forms of a network agree: what a tie is, a disagreement, a tolerance.

Every maker of an artifact asks here, so that all origins say the same of all forms.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.artifacts.operation_audit import audit
from kmlp.data.dense.results import library
from kmlp.data.scoring import confusion, intersection_over_union
from kmlp.errors import RunError

# Class scores this near to each other, relative to the largest, are a tie.
TIE = 1e-4
# Largest difference of an exact artifact from the trained model, over the largest
# output.
TOLERANCE = 1e-4
# Detections from this score on must be found by every form: the same class, nearly
# the same box, nearly the same score.
SCORE, OVERLAP, NEAR = 0.1, 0.95, 0.01
_TINY = 1e-30


class _Agreement:
    """How well a form does, and how far it is from the trained model.

    Attributes:
        unit: Name of what is compared.
    """

    unit = ""

    def __init__(self):
        self.images = self.compared = self.disagreements = self.ties = 0
        self.difference = self.magnitude = 0.0

    def add(
        self, found: dict, expected: dict, targets: Any, weights: np.ndarray
    ) -> None:
        """Take a batch.

        Args:
            found: Outputs of the form by name.
            expected: Those of the trained model.
            targets: Labels of the batch.
            weights: `(N,)`; rows of weight 0 are padding.
        """
        raise NotImplementedError

    def figures(self) -> dict[str, Any]:
        """Return the figures of the task."""
        raise NotImplementedError

    def result(self) -> dict[str, Any]:
        """Return the figures and the agreement, with the same keys for every task."""
        return {
            "images": self.images,
            **self.figures(),
            "unit": self.unit,
            "compared": self.compared,
            "largest_difference": float(self.difference),
            "relative_difference": float(self.difference / max(self.magnitude, _TINY)),
            "disagreements": self.disagreements,
            "ties": self.ties,
        }

    def _compare_scores(self, found, expected):
        """Count other likeliest classes than the trained model's, ties apart."""
        classes = found.argmax(-1)
        error = np.abs(found - expected).max(initial=0)
        self.difference = np.maximum(self.difference, error)  # which lets NaN through
        self.magnitude = max(self.magnitude, np.abs(expected).max(initial=0))
        # A difference of d in every output closes a margin of 2 d.
        second, first = np.moveaxis(np.sort(expected, axis=-1)[..., -2:], -1, 0)
        differs = classes != expected.argmax(-1)
        tie = first - second <= TIE * max(self.magnitude, _TINY)
        if not np.isfinite(error):
            differs, tie = np.ones_like(differs), np.zeros_like(tie)
        self.disagreements += int(np.sum(differs & ~tie))
        self.ties += int(np.sum(differs & tie))
        self.compared += differs.size
        return classes


class ClassAgreement(_Agreement):
    """Classes of images: accuracy, and other classes than the trained model's."""

    unit = "validation images"

    def __init__(self):
        super().__init__()
        self.right = 0
        self._found, self._expected = [], []

    def add(
        self, found: dict, expected: dict, targets: Any, weights: np.ndarray
    ) -> None:
        real = weights > 0
        (found,), (expected,) = found.values(), expected.values()
        self._found.append(np.asarray(found)[real])
        self._expected.append(np.asarray(expected)[real])
        self.right += int(np.sum(self._found[-1].argmax(-1) == targets[real]))
        self.images += int(real.sum())

    def figures(self) -> dict[str, Any]:
        return {"accuracy": self.right / max(self.images, 1)}

    def result(self) -> dict[str, Any]:
        # All at once: a tie is told by the largest output of all images.
        if self._found:
            found, expected = map(np.concatenate, (self._found, self._expected))
            self._found, self._expected = [], []
            self._compare_scores(found, expected)
        return super().result()


class MapAgreement(_Agreement):
    """Class maps: intersection over union, and other classes of pixels.

    Args:
        classes: Number of classes, void apart.
    """

    unit = "pixels"

    def __init__(self, classes: int):
        super().__init__()
        self.matrix = np.zeros((classes, classes), "int64")

    def add(
        self, found: dict, expected: dict, targets: Any, weights: np.ndarray
    ) -> None:
        real = weights > 0
        (found,), (expected,) = found.values(), expected.values()
        classes = self._compare_scores(found[real], expected[real])
        if targets.shape[1:3] == found.shape[1:3]:
            self.matrix += confusion(targets[real], classes, len(self.matrix))
        self.images += int(real.sum())

    def figures(self) -> dict[str, Any]:
        return intersection_over_union(self.matrix) if self.matrix.sum() else {}


class DetectionAgreement(_Agreement):
    """Detections: average precision, and whether the trained model's are there.

    Args:
        entries_of: Function of outputs, targets and weights that yields `(image id,
            entries of COCO's file of results)`.
        scores: Function of entries and image ids to figures.

    Attributes:
        entries: All entries, as COCO's file of results has them.
    """

    unit = "detections"

    def __init__(self, entries_of: Callable, scores: Callable):
        super().__init__()
        self.magnitude = 1.0  # of scores
        self.entries, self._seen = [], []
        self._entries_of, self._scores = entries_of, scores

    def add(
        self, found: dict, expected: dict, targets: Any, weights: np.ndarray
    ) -> None:
        for image, entries in self._entries_of(found, targets, weights):
            self.entries += entries
            self._seen.append(image)
        for row in np.flatnonzero(weights > 0):
            self.images += 1
            self._match(*({k: v[row] for k, v in x.items()} for x in (found, expected)))

    def figures(self) -> dict[str, Any]:
        return self._scores(self.entries, self._seen)

    def _match(self, found, expected):
        sure = np.flatnonzero(expected["scores"] >= SCORE)
        boxes = _with_sides(expected["boxes"][sure]), _with_sides(found["boxes"])
        overlaps = library().iou(*boxes, [0] * len(boxes[1]))
        for k, overlap in zip(sure, overlaps):
            self.compared += 1
            apart = np.abs(found["scores"] - expected["scores"][k])
            fits = (found["classes"] == expected["classes"][k]) & (overlap >= OVERLAP)
            fits &= apart <= NEAR
            if not fits.any():
                self.disagreements += 1
                continue
            best = np.flatnonzero(fits)[apart[fits].argmin()]
            self.difference = max(self.difference, float(apart[best]))


def _with_sides(boxes):
    """Return boxes `x1, y1, x2, y2` as COCO's library takes them: `x, y, w, h`."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1, dtype=float)


def compare(
    forms: dict[str, Callable], batches: Iterable, make: Callable[[], _Agreement]
) -> dict[str, _Agreement]:
    """Run all forms on images and hold them against the first.

    Args:
        forms: `{name: function}` of `(N, H, W, 3)` to outputs by name.
        batches: Batches of `(images, targets, weights)`.
        make: Function that makes a form's measure.
    """
    measures = {name: make() for name in forms}
    for images, targets, weights in batches:
        images, weights = np.asarray(images), np.asarray(weights)
        targets = _arrays(targets)
        expected = None
        for name, function in forms.items():
            found = function(images)
            expected = found if expected is None else expected
            measures[name].add(found, expected, targets, weights)
    return measures


def _arrays(tree):
    if isinstance(tree, dict):
        return {name: np.asarray(part) for name, part in tree.items()}
    return np.asarray(tree)


def check_agreement(results: dict[str, dict[str, Any]]) -> None:
    """Refuse forms that do not answer as the trained model does.

    Args:
        results: `{form: result of its measure}`.

    Raises:
        RunError: If one disagrees.
    """
    for name, result in results.items():
        # A threshold may cut between two nearly equal numbers.
        many = result["unit"] != ClassAgreement.unit
        allowed = result["compared"] // 1000 if many else 0
        finite = np.isfinite(result["largest_difference"])
        if result["disagreements"] > allowed or not finite:
            raise RunError(
                f"{name} and the trained model disagree in "
                f"{result['disagreements']:,} of {result['compared']:,} "
                f"{result['unit']}, with outputs that differ by up to "
                f"{result['largest_difference']:.2g}; nothing was published. This is a "
                "fault of the export: please report it."
            )


# What every origin says of a form's equality with the trained model.
EQUALITY = ("images", "relative_difference", "disagreements", "ties", "allowed")


def equality(
    result: dict[str, Any], *, kind: str, allowed: float | None = None
) -> dict[str, Any]:
    """Return the origin's entry `equality`, with the same keys for every maker.

    Args:
        result: Result of a measure, or what is known of one.
        kind: Name of the images.
        allowed: Largest relative difference that is allowed; `None`: disagreements
            decide, or nothing does.
    """
    entries = {**result, "allowed": allowed}
    difference = entries.get("relative_difference")
    if difference is not None and not np.isfinite(difference):
        entries["relative_difference"] = None
    known = {name: entries.get(name) for name in EQUALITY}
    return {"with": "train form", "kind": kind, **known}


def accuracies(
    result: dict[str, Any], trained: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the origin's entry `accuracies` of a form.

    Args:
        result: Result of its measure.
        trained: Result of the trained model; `None`: this is it.
    """
    if result["unit"] != ClassAgreement.unit:
        hidden = ("operations", "fully_connected_only", "bytes")
        return {k: v for k, v in result.items() if k not in hidden}
    of_trained = {} if trained is None else {"trained_top1": trained["accuracy"]}
    return {"images": result["images"], "top1": result["accuracy"], **of_trained}


def evidence(
    artifact: dict[str, Any],
    *,
    equality: dict[str, Any] | None = None,
    audit: dict[str, Any] | None = None,
    accuracies: dict[str, Any] | None = None,
    begun: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the entries of an origin that speak of an artifact.

    The keys are the same whatever made it; what is not known is `None`.

    Args:
        artifact: Kind of the artifact and how it was made.
        equality: Entry from `equality`.
        audit: Entry from `audited`.
        accuracies: Entry from `accuracies`.
        begun: `initial_weights` and `frozen` of the run.
    """
    return {
        "artifact": artifact,
        "equality": equality,
        "audit": audit,
        "accuracies": accuracies,
        "initial_weights": None,
        "frozen": [],
        **(begun or {}),
    }


def audited(path: str | Path) -> dict[str, Any]:
    """Return the origin's entry `audit` of an artifact."""
    found = audit(path)
    return {
        "fully_connected_only": found.fully_connected_only,
        "operations": dict(found),
    }
