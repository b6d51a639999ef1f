"""Matching and suppression as loops over single boxes, in NumPy."""

import numpy as np


def overlap(a, b):
    """IoU of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared) if shared > 0 else 0.0


def matched(iou, positive, negative, low_quality, min_positive):
    """Index and label of every anchor of one image; `iou` `(A, M)`, all valid."""
    index, label = np.zeros(len(iou), int), np.full(len(iou), -1)
    for i, row in enumerate(iou):
        if row.size == 0 or row.max() < negative:
            label[i] = 0
        elif row.max() >= positive:
            index[i], label[i] = row.argmax(), 1
    if low_quality:
        for j, column in enumerate(iou.T):
            if column.max() >= min_positive and column.max() > 0:
                own = column == column.max()
                index[own], label[own] = j, 1
    return index, label


def suppressed(boxes, scores, groups, threshold, limit):
    """Indices that greedy suppression keeps of one image."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        if scores[i] == -np.inf:
            continue
        if all(
            groups[i] != groups[j] or overlap(boxes[i], boxes[j]) <= threshold
            for j in kept
        ):
            kept.append(i)
    return kept[:limit]


def random_boxes(draws, shape, extent=90, sides=(5, 40)):
    """Boxes on a grid of quarter pixels, so that overlaps repeat exactly."""
    corners = np.round(draws.uniform(0, extent, (*shape, 2)) * 4) / 4
    sizes = np.round(draws.uniform(*sides, (*shape, 2)) * 4) / 4
    return np.concatenate([corners, corners + sizes], -1).astype("float32")
