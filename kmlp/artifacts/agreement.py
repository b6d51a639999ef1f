"""Decide whether the forms of a network agree.

What a tie is, what a disagreement is and what an exact form may differ by stands here,
once; every maker and every checker of an artifact asks this module.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kmlp.console import quiet, some
from kmlp.data.dense.results import library
from kmlp.data.scoring import confusion, intersection_over_union
from kmlp.divergence import TOLERANCE, not_finite, relative_difference
from kmlp.errors import RunError

Arrays = dict[str, np.ndarray]

# Class scores this near to each other, relative to the largest, are a tie; detections
# of scores this near may stand in another order, or on either side of the threshold.
TIE = 1e-4
# Detections from this score on must be found by every form: the same class, nearly
# the same box, nearly the same score.
SCORE, OVERLAP, NEAR = 0.1, 0.95, 0.01
# Images that an artifact is compared on where no others are given.
SAMPLES = 4
# Side of images where an artifact takes any.
OPEN_SIZE = 224
_TINY = 1e-30


class _Agreement:
    """The quality of a form, and its distance from the trained model.

    Attributes:
        unit: Name of what is compared.
    """

    unit = ""

    def __init__(self) -> None:
        self.images = self.compared = self.disagreements = 0
        self.difference = self.magnitude = 0.0
        self._margins: list[np.ndarray] = []  # where another class is likeliest

    def add(
        self, found: Arrays, expected: Arrays, targets: Any, weights: np.ndarray
    ) -> None:
        """Take a batch.

        Args:
            found: Outputs of the form by name.
            expected: Outputs of the trained model by name.
            targets: Labels of the batch.
            weights: Array `(N,)`; rows of weight 0 are padding.
        """
        raise NotImplementedError

    def figures(self) -> dict[str, Any]:
        """Return the figures of the task."""
        raise NotImplementedError

    def result(self) -> dict[str, Any]:
        """Return the figures and the agreement, with the same keys for every task."""
        magnitude, differing = max(self.magnitude, _TINY), self.disagreements
        differing += sum(map(len, self._margins))
        ties = sum(int(np.sum(m <= TIE * magnitude)) for m in self._margins)
        if self._margins and not np.isfinite(self.difference):
            differing, ties = self.compared, 0
        return {
            "images": self.images,
            **self.figures(),
            "unit": self.unit,
            "compared": self.compared,
            "largest_difference": float(self.difference),
            "relative_difference": float(self.difference / magnitude),
            "disagreements": differing - ties,
            "ties": ties,
        }


class _ScoreAgreement(_Agreement):
    """Scores of classes, of images or of pixels, under one name."""

    def add(
        self, found: Arrays, expected: Arrays, targets: Any, weights: np.ndarray
    ) -> None:
        real = weights > 0
        outputs, other = (_single(named)[real] for named in (found, expected))
        classes = outputs.argmax(-1)
        error = np.abs(outputs - other).max(initial=0)
        self.difference = np.maximum(self.difference, error)  # which lets NaN through
        self.magnitude = max(self.magnitude, float(np.abs(other).max(initial=0)))
        # A difference of d in every output closes a margin of 2 d.
        second, first = np.moveaxis(np.sort(other, axis=-1)[..., -2:], -1, 0)
        self._margins.append((first - second)[classes != other.argmax(-1)])
        self.compared += classes.size
        self.images += int(real.sum())
        self._score(classes, targets[real])

    def _score(self, classes, targets):
        """Take the likeliest classes of a batch and the right ones."""
        raise NotImplementedError


def _single(outputs):
    (output,) = outputs.values()
    return np.asarray(output)


class ClassAgreement(_ScoreAgreement):
    """Classes of images: accuracy, and other classes than the trained model's."""

    unit = "validation images"

    def __init__(self) -> None:
        super().__init__()
        self.right = 0

    def _score(self, classes, targets):
        self.right += int(np.sum(classes == targets))

    def figures(self) -> dict[str, Any]:
        return {"accuracy": self.right / max(self.images, 1)}


class MapAgreement(_ScoreAgreement):
    """Class maps: intersection over union, and other classes of pixels.

    Args:
        classes: Number of classes, void apart.
    """

    unit = "pixels"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.matrix = np.zeros((classes, classes), "int64")

    def _score(self, classes, targets):
        if targets.shape[1:3] == classes.shape[1:3]:
            self.matrix += confusion(targets, classes, len(self.matrix))

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

    def __init__(self, entries_of: Callable, scores: Callable) -> None:
        super().__init__()
        self.magnitude = 1.0  # of scores
        self.entries: list[dict] = []
        self._seen: list = []
        self._entries_of, self._scores = entries_of, scores

    def add(
        self, found: Arrays, expected: Arrays, targets: Any, weights: np.ndarray
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
        forms: Forms `{name: function}`: functions of `(N, H, W, 3)` to outputs by name.
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
        results: Results as `{form: result of its measure}`.

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


# Entries of every origin on a form's equality with the trained model.
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
        verdicts = ("fully_connected_only", "convolution_free", "norm_operations")
        hidden = ("operations", "bytes", *verdicts)
        return {k: v for k, v in result.items() if k not in hidden}
    of_trained = {} if trained is None else {"trained_top1": trained["accuracy"]}
    return {"images": result["images"], "top1": result["accuracy"], **of_trained}


def compare_artifact(
    model: Any, runner: Any, *, images: Any = None, exact: bool
) -> dict[str, Any]:
    """Return the origin's entry `equality` of an artifact and the model it is of.

    Args:
        model: Train form, in float32.
        runner: Runner of the artifact, a `kmlp.artifacts.running.Runner`.
        images: Images as the model takes them; `None`: random ones.
        exact: Whether both must agree within `TOLERANCE`.

    Raises:
        RunError: If they must and do not, or the model's outputs are not finite.
    """
    from kmlp.artifacts.running import input_specs, run_model

    (spec,) = input_specs(model)
    sizes = zip(spec.shape[1:], runner.input_shape[1:])
    shape = tuple(size or fixed or OPEN_SIZE for size, fixed in sizes)
    kind = "random images" if images is None else "representative images"
    if images is None:
        random = np.random.default_rng(0).normal(size=(SAMPLES, *shape))
        images = random if spec.dtype.is_floating else np.zeros_like(random)
    images = np.asarray(images[:SAMPLES], spec.dtype.as_numpy_dtype)
    with quiet():  # TensorFlow talks of a detector's integers
        expected, actual = run_model(model, images), runner(images)
    check_finite(model, expected)
    if expected.keys() != actual.keys():  # renamed by the artifact, in their order
        actual = dict(zip(expected, (actual[key] for key in sorted(actual))))
    error = difference(actual, expected)
    if exact and not error <= TOLERANCE:
        raise RunError(
            "The artifact does not equal the trained model: its outputs differ by "
            f"{error:.1e} of the largest, {TOLERANCE:.0e} at most being allowed. A "
            "layer is merged or converted wrongly: merge=False (--train-form) tells "
            f"which of the two. Received: {model.name!r}"
        )
    found = {"images": len(images), "relative_difference": error}
    return equality(found, kind=kind, allowed=TOLERANCE if exact else None)


def check_finite(model: Any, outputs: Arrays) -> None:
    """Refuse a model whose outputs are not finite.

    Args:
        model: Keras model.
        outputs: Its outputs by name.

    Raises:
        RunError: If one holds NaN or infinity; the message names the weights that do.
    """
    if all(np.isfinite(values).all() for values in outputs.values()):
        return
    paths = not_finite(model)
    raise RunError(
        "The trained model's outputs are NaN or infinite: go back to weights from "
        "before it diverged, and train on with a lower learning rate. Received: "
        + (f"NaN or infinity in {some(paths)}" if paths else "weights that are finite")
    )


def difference(actual: Arrays, expected: Arrays) -> float:
    """Return the largest difference over the largest magnitude; NaN if any is.

    Each output is told by its own magnitude. Detections are matched one by one: two of
    nearly the same score may change places, and one of a score at the threshold may
    come or go.

    Args:
        actual: Outputs by name.
        expected: Outputs to compare with, by name.
    """
    worst = 0.0
    if {"boxes", "scores", "classes"} <= expected.keys():
        scale = {
            name: max(np.abs(value).max(initial=0), 1.0)
            for name, value in expected.items()
            if name != "classes"
        }
        for row in range(len(expected["scores"])):
            own, other = ({n: v[row] for n, v in x.items()} for x in (actual, expected))
            worst = np.maximum(worst, _picture_difference(own, other, scale))
        return float(worst)
    for key, value in expected.items():
        # The maximum lets NaN through.
        worst = np.maximum(worst, relative_difference(actual[key], value))
    return float(worst)


def _picture_difference(actual, expected, scale):
    """Compare one picture's detections: 1 where one has no counterpart."""
    left = set(np.flatnonzero(actual["classes"] >= 0).tolist())
    there = np.flatnonzero(expected["classes"] >= 0)
    # Objects that the threshold or the number of places may have cut off.
    lowest = expected["scores"][there].min(initial=1.0) + TIE
    worst = 0.0
    for k in there:
        found = [
            (_distance(actual, j, expected, k, scale), j)
            for j in left
            if actual["classes"][j] == expected["classes"][k]
        ]
        error, j = min(found, default=(1.0, None))
        if error <= 0.5:
            left.remove(j)
        elif expected["scores"][k] <= lowest:
            continue
        worst = np.maximum(worst, error)
    if any(actual["scores"][j] > lowest for j in left):
        worst = np.maximum(worst, 1.0)
    return worst


def _distance(actual, j, expected, k, scale):
    parts = [
        np.abs(actual[name][j] - expected[name][k]).max() / scale[name]
        for name in scale
    ]
    return float(np.max(parts))  # NaN if any is
