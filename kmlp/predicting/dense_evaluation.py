"""From the command's options to COCO's AP or the mean intersection over union."""

import dataclasses
import json
import time

import numpy as np

from kmlp.console import progress_bar, some
from kmlp.data.dense import open_dense
from kmlp.data.dense.geometry import prepared
from kmlp.data.dense.results import coco_results
from kmlp.data.dense.source import Unreadable
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
    open_dense_network,
    task_of,
)
from kmlp.predicting.evaluation import check_writable, write
from kmlp.predicting.segmenting import classes_of, way_of

# Options of the other task.
ONLY = {
    DETECTION: ("batch_size", "results"),
    SEGMENTATION: ("mode", "window", "stride", "scales", "flip"),
}
_NAMES = {"AP": "box AP", "mask_AP": "mask AP"}


def run(options):
    """Evaluates, prints the figures and writes what was asked for.

    Raises:
        InputError: weights and data that cannot be worked with or do not fit.
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


def detection(network, source, count, options):
    """COCO's figures of a detector: `(figures, what else there is to say)`."""
    known, split = network.preprocessing, source.validation
    print(f"{_what(network, source, count)}, canvas {_by(known.canvas)}", flush=True)
    entries, masks, seen = [], False, []
    batch = options.batch_size or 8
    with progress_bar(count, "img") as bar:
        for start in range(0, count, batch):
            indices = range(start, min(start + batch, count))
            pictures = {i: _read(split, i, split.image) for i in indices}
            pictures = {i: p for i, p in pictures.items() if p is not None}
            bar.update(len(indices))
            if not pictures:
                continue
            images, shapes = zip(*(prepared(p, known) for p in pictures.values()))
            found = network(np.stack(images))
            masks = "masks" in found
            for row, (index, picture) in enumerate(pictures.items()):
                seen.append(index)
                entries += coco_results(
                    {name: part[row] for name, part in found.items()},
                    image_id=split.image_id(index),
                    size=picture.shape[:2],
                    shape=shapes[row],
                    category_ids=source.category_ids,
                )
    if options.results is not None:
        options.results.write_text(json.dumps(entries))
    figures = average_precision(truth(split, source, seen), entries, masks=masks)
    for name, title in _NAMES.items():
        if name in figures:
            print(f"{title} {_shares(figures, name.removesuffix('AP'))}")
    return figures, {"canvas": known.canvas, "detections": len(entries)}


def segmentation(network, source, count, options):
    """Mean IoU of a segmenter: `(figures, what else there is to say)`."""
    given = {name: getattr(options, name) for name in ONLY[SEGMENTATION]}
    way = way_of(network, **given)
    said = dataclasses.asdict(way)
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
    return figures, {"IoU": each, **said}


def _check_options(task, options):
    """Raises `InputError` for options of the other task."""
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
    if network.preprocessing.class_names is not None and tuple(names) != tuple(own):
        missing, further = set(own) - set(names), set(names) - set(own)
        raise InputError(
            "The weights were trained on other classes than these data have; only in "
            f"the data: {some(missing)}; only in the weights: {some(further)}. "
            f"Received: {str(network.path)!r}, {source.name}"
        )


def _read(split, index, function):
    """What a split holds; `None` of what is damaged, where that may be skipped."""
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
