"""Evaluate by the command's options: accuracy, COCO's AP or the mean IoU."""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.artifacts.locating import KERAS, locate
from kmlp.artifacts.opening import as_weights, open_weights
from kmlp.console import progress_bar, some
from kmlp.data.dense import open_dense
from kmlp.data.dense.source import DenseSource
from kmlp.data.images import Files
from kmlp.data.labelled import class_numbers, read_labels
from kmlp.data.pictures import Unreadable
from kmlp.data.reading import evaluation_batches, read
from kmlp.data.scoring import (
    Score,
    average_precision,
    confusion,
    intersection_over_union,
    truth,
)
from kmlp.data.sources import open_evaluation
from kmlp.errors import InputError, RunError
from kmlp.models.vision_mlp import VisionMLP
from kmlp.predicting.classifying import completed
from kmlp.predicting.dense_network import DETECTION, DenseNetwork, open_dense_network
from kmlp.predicting.dense_predictions import classes_of, detect, way_of
from kmlp.preprocessing import NEEDED, preprocessing_of
from kmlp.pretrained.restoring import load_checkpoint
from kmlp.weights.grid_resizing import WAYS, resize

WAY = ("mode", "window", "stride", "scales", "flip")
_NAMES = {"AP": "box AP", "mask_AP": "mask AP"}


def evaluate_classifier(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a classifier, print the result and return it.

    Raises:
        InputError: If weights, data and labels cannot be worked with, or do not fit.
    """
    weights, resized = _opened(options)
    given = {name: getattr(options, name) for name in (*NEEDED, "exif")}
    path = Path(weights.path)
    prepared: Any = completed(preprocessing_of(path), given, weights.image_size, path)
    size = prepared.image_size
    source = open_evaluation(
        options.data,
        data_dir=options.data_dir,
        download=options.download,
        on_corrupt=options.on_corrupt,
    )
    split, expected = _labelled(options, weights, source, prepared)
    print(
        f"{weights.form} {weights.path} on {source.name}: {split.count:,} images, "
        f"{weights.classes:,} classes, {size}x{size} of "
        f"{math.floor(size / prepared.test_crop)}, {prepared.test_interpolation}",
        flush=True,
    )
    batches = evaluation_batches(
        split,
        prepared,
        image_size=size,
        batch_size=options.batch_size,
        worker=0,
        workers=1,
    )
    score = Score(expected, weights.classes)
    speed = _scored(weights, batches, score, split.count)
    shares = score.shares()
    print(
        f"top-1 {shares['top1']:.2%}, top-5 {shares['top5']:.2%} of "
        f"{shares['images']:,} images, {speed:,.1f} images/s"
    )
    return {
        "weights": str(weights.path),
        "form": weights.form,
        "data": source.name,
        "labels": None if options.labels is None else str(options.labels),
        **shares,
        "images_per_second": speed,
        **prepared.as_json(),
        **resized,
    }


def _opened(options):
    """Open weights, at another size where that is asked for and can be.

    Returns:
        The weights, and what the result says of a network that was resized.
    """
    path, form = locate(options.weights)
    size = options.image_size
    if form != KERAS or size is None:
        return open_weights(path), {}
    model = load_checkpoint(path)
    own = model.input_shape[1] if isinstance(model, VisionMLP) else None
    if own in (None, size):
        return as_weights(model, path), {}
    model = resize(model, (size, size, model.input_shape[-1]), options.resolution)
    resolution = options.resolution if hasattr(model, "block_size") else None
    print(f"resized from {own}x{own}: {WAYS[resolution]}", flush=True)
    return as_weights(model, path), {"resized_from": own, "resolution": resolution}


def _labelled(options, weights, source, prepared):
    """Return the split, and for each of its labels the outputs that are right."""
    split = source.validation
    if options.labels is None:
        if not source.class_names:
            raise InputError(
                "A folder of images without class folders needs --labels. "
                f"Received: {source.name!r}"
            )
        names = prepared.class_names
        numbers = class_numbers(source.class_names, names, weights.classes)
        return split, [(number,) for number in numbers]
    if not isinstance(split.store, Files):
        raise InputError(
            "--labels goes with a folder of images, whose files it names. "
            f"Received: --data {options.data}"
        )
    files = [str(path) for path in split.store.paths]
    truth = read_labels(options.labels, files, prepared.class_names, weights.classes)
    store = dataclasses.replace(split.store, labels=np.arange(len(files)))
    return dataclasses.replace(split, store=store), truth


def _scored(weights, batches, score, count):
    """Go through the batches and return images per second after the first of them.

    Args:
        weights: Opened weights.
        batches: Batches of `evaluation_batches`.
        score: Score that takes the outputs.
        count: Number of images.
    """
    started = first = time.perf_counter()
    warm = shown = 0
    remedy = "replace or remove it, or pass --on-corrupt skip to evaluate on the rest"
    with progress_bar(count, "img", unit_scale=True) as bar:
        for images, labels, kept in read(batches, remedy):
            real = kept > 0
            score.add(weights.run(images)[real], labels[real])
            shown += int(real.sum())
            if not warm:  # compiled, and the pipeline filled
                first, warm = time.perf_counter(), shown
            bar.update(int(real.sum()))
    if shown > warm:
        return (shown - warm) / (time.perf_counter() - first)
    return shown / (time.perf_counter() - started)


def evaluate_dense(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """Evaluate a detector or segmenter, print the figures and return them.

    Args:
        options: Options of the command.
        task: Task, `"detection"` or `"segmentation"`.

    Raises:
        InputError: If weights and data cannot be worked with, or do not fit.
    """
    network = open_dense_network(
        options.weights, any_size=task != DETECTION, exif=options.exif
    )
    source = open_dense(
        options.data,
        task,
        on_corrupt=options.on_corrupt,
        exif=network.preprocessing.exif,
    )
    for note in source.notes:
        print(note, flush=True)
    _check_classes(network, source)
    count = min(options.images or source.validation.count, source.validation.count)
    evaluate = detection if task == DETECTION else segmentation
    started = time.perf_counter()
    figures, details = evaluate(network, source, count, options)
    speed = count / (time.perf_counter() - started)
    return {
        "weights": str(network.path),
        "form": network.form,
        "data": source.name,
        "images": count,
        **figures,
        **details,
        "images_per_second": speed,
    }


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
        options.results.write_text(json.dumps(entries), "utf-8")
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
    way = way_of(network, **{n: getattr(options, n) for n in WAY})
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
