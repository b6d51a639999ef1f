"""From the command's options to what frozen features are worth."""

import dataclasses
import time

import numpy as np

from kmlp.artifacts.opening import as_weights
from kmlp.artifacts.origin import weights_sha256
from kmlp.data.images import some_of
from kmlp.data.scoring import Score
from kmlp.data.sources import open_source
from kmlp.errors import InputError
from kmlp.models.vision_mlp import VisionMLP
from kmlp.predicting.evaluation import GIVEN, check_writable, write
from kmlp.preprocessing import Preprocessing
from kmlp.pretrained.creation import create_model
from kmlp.training.probing import feature_classifiers
from kmlp.training.probing.frozen_features import Features, computed, features

KNN = "knn"


def run(options):
    """Computes features, judges them, prints and writes the result.

    Raises:
        InputError: weights and data that cannot be worked with.
    """
    started = time.monotonic()
    if options.json is not None:
        check_writable(options.json)
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
    print(
        f"{options.method} on features of {model.name}, {model.output_shape[-1]:,} "
        f"wide, of {source.name}: {train.count:,} training and {validation.count:,} "
        f"validation images, {len(source.class_names):,} classes, "
        f"{prepared.image_size}x{prepared.image_size}",
        flush=True,
    )

    def compute():
        function = as_weights(model, options.weights).run
        of_train = computed(
            function, train, prepared, batch_size=options.batch_size, title="train"
        )
        of_validation = computed(
            function, validation, prepared, batch_size=options.batch_size, title="test"
        )
        return Features(*of_train, *of_validation)

    # JSON has lists in place of tuples, and so does what was read back.
    found = features(options.features, plain(described), compute)
    judge = of_neighbours if options.method == KNN else of_linear
    results = judge(found, len(source.class_names), options)
    for result in results:
        print(said(result))
    print(f"{time.monotonic() - started:.0f} s")
    if options.json is not None:
        result = {
            "weights": str(options.weights),
            **plain(described),
            "method": options.method,
            "results": results,
        }
        write(options.json, result)


def open_model(options):
    """The network that gives features, at the size asked for.

    Raises:
        InputError: weights that cannot be read, or of another architecture.
    """
    shape = options.image_size and (options.image_size, options.image_size, 3)
    try:
        model = create_model(
            options.arch,
            0,
            shape,
            weights=options.weights,
            resolution=options.resolution,
        )
    except (ValueError, OSError, TypeError) as error:
        raise InputError(error) from error
    if not isinstance(model, VisionMLP):
        raise InputError(
            "Features are those of a train form of one of the families, before the "
            f"classifier. Received: {str(options.weights)!r}"
        )
    return model


def preparation(options, model):
    """How images become inputs: the command line's word, the weights', a default.

    Raises:
        InputError: nothing says mean and deviation, or the size.
    """
    known = model.preprocessing or Preprocessing()
    height, width = model.inputs[0].shape[1:3]
    if height != width:
        raise InputError(
            "Images are prepared as squares: pass --image-size. "
            f"Received: weights for {height}x{width}"
        )
    size = height or options.image_size or known.image_size
    given = {name: getattr(options, name) for name in GIVEN}
    known = dataclasses.replace(known.completed(given), image_size=size)
    missing = [f"--{name}" for name in ("mean", "std") if not getattr(known, name)]
    if size is None:
        missing.append("--image-size")
    if missing:
        raise InputError(
            f"The weights do not say how their images are prepared: pass "
            f"{' and '.join(missing)}. Received: {str(options.weights)!r}"
        )
    return known


def of_neighbours(found, classes, options):
    """The results of k nearest neighbours, one for every k."""
    scores = {k: score(found, classes) for k in options.k}
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


def of_linear(found, classes, options):
    """The result of logistic regression, as a list of one."""
    if len(np.unique(found.train_labels)) < 2:
        raise InputError(
            "A classifier needs training images of two classes: pass a greater "
            f"--train-images. Received: {len(found.train_labels)} of one class"
        )
    model, chosen = feature_classifiers.fit(
        found.train, found.train_labels, seed=options.seed, said=print
    )
    counted = score(found, classes)
    outputs = feature_classifiers.outputs(model, found.validation, classes)
    counted.add(outputs, np.arange(len(outputs)))
    return [{**chosen, **counted.shares()}]


def score(found, classes):
    """A `Score` of the validation images."""
    return Score([(label,) for label in found.validation_labels.tolist()], classes)


def said(result):
    """A result in one line."""
    settings = f"k {result['k']}" if "k" in result else f"C {result['C']:g}"
    doubt = "" if result.get("converged", True) else ", which has not converged"
    return (
        f"top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%} of "
        f"{result['images']:,} images, {settings}{doubt}"
    )


def plain(described):
    """A description as JSON gives it back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in described.items()}
