"""From the command's options to COCO's AP or the mean intersection over union."""

import argparse
import dataclasses
import json
import time
from typing import Any

import numpy as np

from kmlp.console import progress_bar, some
from kmlp.data.dense import open_dense
from kmlp.data.dense.source import DenseSource, Unreadable
from kmlp.data.scoring import (
    average_precision,
    confusion,
    intersection_over_union,
    truth,
)
from kmlp.errors import InputError, RunError
from kmlp.predicting.dense_network import (
    DETECTION,
    SEGMENTATION,
    DenseNetwork,
    open_dense_network,
    task_of,
)
from kmlp.predicting.dense_predictions import classes_of, detect, way_of
from kmlp.predicting.evaluation import check_writable, write

# Options of the other task.
ONLY = {
    DETECTION: ("batch_size", "results"),
    SEGMENTATION: ("mode", "window", "stride", "scales", "flip"),
}
_NAMES = {"AP": "box AP", "mask_AP": "mask AP"}


def run(options: argparse.Namespace) -> None:
    """Evaluate, print the figures and write what was asked for.

    Raises:
        InputError: If weights and data cannot be worked with, or do not fit.
    """
    for path in (options.json, options.results):
        if path is not None:
            check_writable(path)
    task = task_of(options.weights)
    if task is None:
        raise InputError(
            "Neither a detector nor a segmenter of a run: pass its folder or what it "
            "holds; classifiers are evaluated by training/evaluate.py. "
            f"Received: {str(options.weights)!r}"
        )
    _check_options(task, options)
    network = open_dense_network(options.weights, any_size=task == SEGMENTATION)
    source = open_dense(options.data, task, on_corrupt=options.on_corrupt)
    _check_classes(network, source)
    count = min(options.images or source.validation.count, source.validation.count)
    evaluate = detection if task == DETECTION else segmentation
    started = time.perf_counter()
    figures, details = evaluate(network, source, count, options)
    speed = count / (time.perf_counter() - started)
    result = {
        "weights": str(network.path),
        "form": network.form,
        "data": source.name,
        "images": count,
        **figures,
        **details,
        "images_per_second": speed,
    }
    if options.json is not None:
        write(options.json, result)


def detection(
    network: DenseNetwork, source: DenseSource, count: int, options: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return COCO's figures of a detector, and what else there is to say.

    Args:
        network: Network of detection.
        source: Data set, whose validation pictures are taken.
        count: Number of pictures.
        options: Options of the command.
    """
    canvas, split = network.preprocessing.canvas, source.validation
    print(f"{_what(network, source, count)}, canvas {_by(canvas)}", flush=True)
    entries, masks, seen = [], False, []
    with progress_bar(count, "img") as bar:
        for found in detect(
            network,
            range(count),
            lambda index: _read(split, index, split.image),
            batch_size=options.batch_size or 8,
        ):
            bar.update()
            if found.picture is not None:
                seen.append(found.image)
                masks = "masks" in found.objects
                image_id = split.image_id(found.image)
                entries += found.entries(image_id, source.category_ids)
    if options.results is not None:
        options.results.write_text(json.dumps(entries))
    figures = average_precision(truth(split, source, seen), entries, masks=masks)
    for name, title in _NAMES.items():
        if name in figures:
            print(f"{title} {_shares(figures, name.removesuffix('AP'))}")
    return figures, {"canvas": canvas, "detections": len(entries)}


def segmentation(
    network: DenseNetwork, source: DenseSource, count: int, options: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the mean IoU of a segmenter, and what else there is to say.

    Args:
        network, source, count, options: As in `detection`.
    """
    way = way_of(network, **{n: getattr(options, n) for n in ONLY[SEGMENTATION]})
    print(f"{_what(network, source, count)}, {_way_in_words(way)}", flush=True)
    split, classes = source.validation, len(source.class_names)
    matrix = np.zeros((classes, classes), "int64")
    with progress_bar(count, "img") as bar:
        for index in range(count):
            bar.update()
            picture = _read(split, index, split.image)
            expected = _read(split, index, split.annotation)
            if picture is None or expected is None:
                continue
            found = classes_of(network, picture, way)
            matrix += confusion(expected, found, classes)
    figures = intersection_over_union(matrix)
    several = len(way.scales) > 1 or way.flip
    print(
        f"{'MS ' * several}mIoU {figures['mIoU']:.2%}, pixel accuracy "
        f"{figures['accuracy']:.2%}, mean accuracy {figures['mean_accuracy']:.2%}"
    )
    each = dict(zip(source.class_names, figures.pop("IoU")))
    return figures, {"IoU": each, **dataclasses.asdict(way)}


def _check_options(task, options):
    """Raise `InputError` for options of the other task."""
    other = SEGMENTATION if task == DETECTION else DETECTION
    for name in ONLY[other]:
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{flag} goes with {other}, and these weights are of {task}: leave it "
                f"out. Received: {flag}, {str(options.weights)!r}"
            )


def _check_classes(network, source):
    names, own = network.class_names, source.class_names
    if tuple(names) != tuple(own):
        missing, further = set(own) - set(names), set(names) - set(own)
        raise InputError(
            "The weights were trained on other classes than these data have; only in "
            f"the data: {some(missing)}; only in the weights: {some(further)}. "
            f"Received: {str(network.path)!r}, {source.name}"
        )


def _read(split, index, function):
    """Return what a split holds; `None` of what is damaged, where it may be skipped."""
    try:
        return function(index)
    except Unreadable as error:
        if split.on_corrupt == "skip":
            print(f"Skipped {error}", flush=True)
            return None
        raise RunError(
            "A picture or its annotation cannot be used: replace or remove it, or pass "
            f"--on-corrupt skip to evaluate on the rest. Received: {error}",
        ) from error
    except OSError as error:
        raise RunError(f"A picture cannot be read. Received: {error}") from error


def _what(network, source, count):
    return f"{network.form} {network.path} on {source.name}: {count:,} pictures"


def _way_in_words(way):
    parts = ["whole pictures"]
    if way.mode == "slide":
        parts = [f"windows of {_by(way.window)}"]
        parts += [f"every {_by(way.stride)}"] if way.stride else []
    if way.scales != (1.0,):
        parts.append("scales " + " ".join(f"{scale:g}" for scale in way.scales))
    parts += ["mirrored too"] if way.flip else []
    return ", ".join(parts)


def _shares(figures, prefix):
    known = {
        name.removeprefix(prefix): value
        for name, value in figures.items()
        if name.startswith("mask_") == bool(prefix)
    }
    first = known.pop("AP")
    return f"{first:.2%} ({', '.join(f'{n} {v:.2%}' for n, v in known.items())})"


def _by(size):
    return "x".join(map(str, size))
