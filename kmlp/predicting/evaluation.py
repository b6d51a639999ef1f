"""From the command's options to top-1 and top-5."""

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
from kmlp.console import progress_bar
from kmlp.data.images import Files
from kmlp.data.labelled import class_numbers, read_labels
from kmlp.data.reading import evaluation_batches, read
from kmlp.data.scoring import Score
from kmlp.data.sources import open_evaluation
from kmlp.errors import InputError, RunError
from kmlp.models.vision_mlp import VisionMLP
from kmlp.predicting.classifying import completed
from kmlp.predicting.dense_network import task_of
from kmlp.preprocessing import preprocessing_of
from kmlp.pretrained.restoring import load_checkpoint
from kmlp.weights.grid_resizing import WAYS, resize

# What of the preparation the command line may give, beside the size.
GIVEN = ("mean", "std", "test_crop", "test_interpolation")


def run(options: argparse.Namespace) -> None:
    """Evaluate, print the result and write it where that was asked for.

    Raises:
        InputError: If weights, data and labels cannot be worked with, or do not fit.
    """
    if options.json is not None:
        check_writable(options.json)
    if (task := task_of(options.weights)) is not None:
        raise InputError(
            f"These weights are of {task}: training/evaluate_dense.py evaluates them. "
            f"Received: {str(options.weights)!r}"
        )
    weights, resized = _opened(options)
    given = {name: getattr(options, name) for name in (*GIVEN, "image_size")}
    path = Path(weights.path)
    prepared: Any = completed(preprocessing_of(path), given, weights.image_size, path)
    size = prepared.image_size
    source = open_evaluation(
        options.data,
        data_dir=options.data_dir,
        download=options.download,
        on_corrupt=options.on_corrupt,
    )
    split, truth = _labelled(options, weights, source, prepared)
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
    score = Score(truth, weights.classes)
    speed = _evaluate(weights, batches, score, split.count)
    shares = score.shares()
    print(
        f"top-1 {shares['top1']:.2%}, top-5 {shares['top5']:.2%} of "
        f"{shares['images']:,} images, {speed:,.1f} images/s"
    )
    if options.json is not None:
        result = {
            "weights": str(weights.path),
            "form": weights.form,
            "data": source.name,
            "labels": None if options.labels is None else str(options.labels),
            **shares,
            "images_per_second": speed,
            **prepared.as_json(),
            **resized,
        }
        write(options.json, result)


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


def check_writable(path: Path) -> None:
    """Raise `InputError` where a file could not be written."""
    try:
        existed = path.exists()
        with open(path, "a"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(f"--json: {error}") from error


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the result as JSON."""
    try:
        path.write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise RunError(f"--json: {error}") from error


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


def _evaluate(weights, batches, score, count):
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
