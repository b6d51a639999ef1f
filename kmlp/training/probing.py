"""Probe frozen features, from the command's options to top-1 and top-5."""

import argparse
import dataclasses
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.artifacts.opening import as_weights
from kmlp.artifacts.origin import weights_sha256
from kmlp.atomic import new_file
from kmlp.console import first_line, progress_bar
from kmlp.data.images import Split, some_of
from kmlp.data.reading import evaluation_batches, read
from kmlp.data.scoring import Score, check_finite
from kmlp.data.sources import open_source
from kmlp.errors import InputError, RunError
from kmlp.models.vision_mlp import VisionMLP
from kmlp.predicting.classifying import completed
from kmlp.preprocessing import NEEDED, Preprocessing
from kmlp.pretrained.creation import create_model
from kmlp.training import feature_classifiers
from kmlp.typing import PathLike

KNN = "knn"
REMEDY = "replace or remove it, or pass --on-corrupt skip to go on with the rest"


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of a data set's images, by which weights are judged.

    Attributes:
        train, validation: Features, `(N, C)` float32.
        train_labels, validation_labels: Class numbers, `(N,)`.
    """

    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray

    @property
    def arrays(self) -> dict[str, Any]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in _FIELDS}


_FIELDS = dataclasses.fields(Features)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compute features, judge them, print the result and return it.

    Raises:
        InputError: If weights or data cannot be worked with.
    """
    started = time.monotonic()
    model = open_model(options)
    prepared = preparation(options, model)
    source = open_source(
        None if options.data == "digits" else options.data,
        data_dir=options.data_dir,
        download=options.download,
        on_corrupt=options.on_corrupt,
    )
    if source.train is None:
        raise InputError(
            "Features are compared with those of training images, and there are none. "
            f"Received: {source.name}"
        )
    train = some_of(source.train, options.train_images)
    validation = some_of(source.validation, options.images)
    if options.method == KNN and max(options.k) > train.count:
        raise InputError(
            f"There are {train.count:,} training images: choose k of at most so many. "
            f"Received: --k {' '.join(map(str, options.k))}"
        )
    described = {
        "architecture": model.name,
        "weights_sha256": weights_sha256(model),
        "data": source.name,
        "training_images": train.count,
        "validation_images": validation.count,
        **prepared.as_json(),
    }
    described = json.loads(json.dumps(described))  # as it is read back
    print(
        f"{options.method} on features of {model.name}, {model.output_shape[-1]:,} "
        f"wide, of {source.name}: {train.count:,} training and {validation.count:,} "
        f"validation images, {len(source.class_names):,} classes, "
        f"{prepared.image_size}x{prepared.image_size}",
        flush=True,
    )

    def _compute():
        function, batch = as_weights(model, options.weights).run, options.batch_size
        parts = ((train, "train"), (validation, "test"))
        found = [
            computed(function, part, prepared, batch, name) for part, name in parts
        ]
        return Features(*found[0], *found[1])

    found = features(options.features, described, _compute)
    judge = of_neighbours if options.method == KNN else of_linear
    results = judge(found, len(source.class_names), options)
    for result in results:
        settings = f"k {result['k']}" if "k" in result else f"C {result['C']:g}"
        doubt = "" if result.get("converged", True) else ", which has not converged"
        print(
            f"top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%} of "
            f"{result['images']:,} images, {settings}{doubt}"
        )
    print(f"{time.monotonic() - started:.0f} s")
    judged = {"method": options.method, "results": results}
    return {"weights": str(options.weights), **described, **judged}


def open_model(options: argparse.Namespace) -> VisionMLP:
    """Open the network that gives features, at the size asked for.

    Raises:
        InputError: If weights cannot be read, or are of another architecture.
    """
    shape = options.image_size and (options.image_size, options.image_size, 3)
    asked = {"weights": options.weights, "resolution": options.resolution}
    try:
        model = create_model(options.arch, 0, shape, **asked)
    except (ValueError, OSError, TypeError) as error:
        raise InputError(error) from error
    if not isinstance(model, VisionMLP):
        raise InputError(
            "Features are those of a train form of one of the families, before the "
            f"classifier. Received: {str(options.weights)!r}"
        )
    return model


def preparation(options: argparse.Namespace, model: VisionMLP) -> Preprocessing:
    """Return how images become inputs, by the command line, the weights or a default.

    Raises:
        InputError: If nothing says mean and deviation, or the size.
    """
    known = model.preprocessing or Preprocessing()
    height, width = model.inputs[0].shape[1:3]
    if height != width:
        raise InputError(
            "Images are prepared as squares: pass --image-size. "
            f"Received: weights for {height}x{width}"
        )
    given = {name: getattr(options, name) for name in (*NEEDED, "exif")}
    return completed(known, given, height, options.weights)


def features(
    file: PathLike | None, described: dict[str, Any], compute: Callable[[], Features]
) -> Features:
    """Return the features in a file, or new ones, which are then kept in it.

    Args:
        file: Path of an `.npz` file; `None`: nothing is kept.
        described: Network, images and preparation that they are of, as JSON has it.
        compute: Function that makes features.

    Raises:
        InputError: If the file cannot be read, or holds other features.
        RunError: If it cannot be written.
    """
    if file is None:
        return compute()
    file = Path(file).expanduser()
    if file.exists():
        return _kept(file, described)
    found = compute()
    text = np.frombuffer(json.dumps(described).encode(), "uint8")
    try:
        with new_file(file) as draft, open(draft, "wb") as target:
            np.savez(target, of=text, **found.arrays)
    except OSError as error:
        raise RunError(f"--features: {error}") from error
    return found


def _kept(file, described):
    try:
        with np.load(file, allow_pickle=False) as arrays:
            of = json.loads(arrays["of"].tobytes())
            found = Features(*(arrays[field.name] for field in _FIELDS))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            "--features names a file that holds none, or is damaged: remove it or name "
            f"another. Received: {str(file)!r} ({first_line(error)[:200]})"
        ) from error
    other = [name for name in described if of.get(name) != described[name]]
    if other:
        raise InputError(
            f"--features names a file of other features: {', '.join(other)} differ. "
            f"Remove it or name another. Received: {str(file)!r}"
        )
    print(f"Features from {file}", flush=True)
    return found


def computed(
    run: Callable[[np.ndarray], np.ndarray],
    split: Split,
    prepared: Preprocessing,
    batch_size: int,
    title: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels of a split's images, in its order.

    Args:
        run: Function of `(N, S, S, 3)` arrays to `(N, C)`.
        split: Images.
        prepared: How they become inputs, complete.
        batch_size: Images per call of the network.
        title: Title of the progress bar.

    Returns:
        Float32 `(N, C)` and int32 `(N,)`, without images that were skipped as
        unreadable.

    Raises:
        InputError: If an image cannot be read.
        RunError: If features are not finite.
    """
    assert prepared.image_size is not None  # Complete preprocessing has a size.
    batches = evaluation_batches(
        split, prepared, image_size=prepared.image_size, batch_size=batch_size
    )
    found: Any = None
    labels, count = np.empty(split.count, "int32"), 0
    with progress_bar(split.count, "img", desc=title, unit_scale=True) as bar:
        for images, classes, kept in read(batches, REMEDY):
            real = kept > 0
            values = run(images)[real]
            if found is None:
                found = np.empty((split.count, values.shape[1]), "float32")
            end = count + len(values)
            found[count:end], labels[count:end] = values, classes[real]
            count = end
            bar.update(len(values))
    check_finite(found[:count], "features")
    return found[:count], labels[:count]


def of_neighbours(
    found: Features, classes: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the results of k nearest neighbours, one for every k."""
    scores = {k: _score(found, classes) for k in options.k}
    blocks = feature_classifiers.votes(
        feature_classifiers.normalise(found.validation),
        feature_classifiers.normalise(found.train),
        found.train_labels,
        classes,
        options.k,
    )
    start = 0
    for block in blocks:
        rows = np.arange(start, start + len(block[options.k[0]]))
        for k, outputs in block.items():
            scores[k].add(outputs, rows)
        start += len(rows)
    return [{"k": k, **scores[k].shares()} for k in options.k]


def of_linear(
    found: Features, classes: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the result of logistic regression, as a list of one."""
    if len(np.unique(found.train_labels)) < 2:
        raise InputError(
            "A classifier needs training images of two classes: pass a greater "
            f"--train-images. Received: {len(found.train_labels)} of one class"
        )
    model, chosen = feature_classifiers.fit(
        found.train, found.train_labels, seed=options.seed, said=print
    )
    score = _score(found, classes)
    outputs = feature_classifiers.outputs(model, found.validation, classes)
    score.add(outputs, np.arange(len(outputs)))
    return [{**chosen, **score.shares()}]


def _score(found, classes):
    return Score([(label,) for label in found.validation_labels.tolist()], classes)
