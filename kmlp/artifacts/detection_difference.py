"""How far answers are apart, detections matched whatever their order.

Two detections of nearly the same score may change places, and one of a score at the
threshold may come or go: that says nothing against an artifact.
"""

import numpy as np

from kmlp.artifacts.running import difference

# Scores this close, absolute, may stand in another order, or on either side of the
# detector's threshold.
NEAR = 1e-4


def apart(actual, expected):
    """`kmlp.artifacts.running.difference`, of detections matched one by one.

    Args:
        actual, expected: `{name: array}` each.
    """
    if not {"boxes", "scores", "classes"} <= expected.keys():
        return difference(actual, expected)
    scale = {
        name: max(np.abs(value).max(initial=0), 1.0)
        for name, value in expected.items()
        if name != "classes"
    }
    worst = 0.0
    for row in range(len(expected["scores"])):
        pair = [{n: v[row] for n, v in x.items()} for x in (actual, expected)]
        worst = np.maximum(worst, _image(*pair, scale))  # which lets NaN through
    return float(worst)


def _image(actual, expected, scale):
    """Of one image: 1 where a detection has no counterpart."""
    left = set(np.flatnonzero(actual["classes"] >= 0).tolist())
    there = np.flatnonzero(expected["classes"] >= 0)
    # What may have been cut off: by the threshold, or by the number of places.
    lowest = expected["scores"][there].min(initial=1.0) + NEAR
    worst = 0.0
    for k in there:
        found = [
            (_distance(actual, j, expected, k, scale), j)
            for j in left
            if actual["classes"][j] == expected["classes"][k]
        ]
        error, j = min(found, default=(1.0, None))
        if not error <= 0.5:
            if expected["scores"][k] > lowest:
                worst = np.maximum(worst, error)
            continue
        left.remove(j)
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
