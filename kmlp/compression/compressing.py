"""Compress a run's network: from the command's options to a published version.

Fine-tuning is stock Keras', of either generation.
"""

import dataclasses
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp.analysis.linear import CHANNEL, MIXING
from kmlp.atomic import check_writable
from kmlp.compression.clustering import Clustering
from kmlp.compression.compressed_version import SPEED_NOTE, publish, table
from kmlp.compression.pruning import Pruning
from kmlp.compression.quantization import QuantizationAware
from kmlp.compression.tfmot import import_tfmot
from kmlp.console import SAVED_MODELS
from kmlp.data.images import steps_per_epoch
from kmlp.data.reading import evaluation_batches, reason
from kmlp.data.sources import open_source
from kmlp.errors import InputError
from kmlp.export.groundwork import in_float32
from kmlp.export.starting_point import (
    calibration_images,
    open_checkpoint,
    open_images,
)
from kmlp.merging import merge
from kmlp.recipes.wording import from_json
from kmlp.training.engine.cluster import open_engine, per_replica_batch
from kmlp.training.input.in_memory import load
from kmlp.training.input.pipeline import training_batches
from kmlp.training.publishing import RECIPE

OUTPUT = SAVED_MODELS / "compressed"
# Share of the peak rate of the run that fine-tuning begins with.
RATE = 0.3
# Pruning ends after this share of the steps; the rest is to recover.
PRUNED_BY = 0.6
# The number of times that the masks grow.
GROWTHS = 50


def run(options: Namespace) -> None:
    """Compress, compare, publish and report.

    Raises:
        InputError: If there is input that cannot be worked with.
        RunError: If the version cannot be written.
    """
    started = time.monotonic()
    import_tfmot()
    devices = options.devices
    engine = open_engine("mirrored" if devices > 1 else "single", devices)
    checkpoint = open_checkpoint(options.run)
    recipe = _recipe(checkpoint.path.parent)
    output = options.output or OUTPUT / f"{checkpoint.model.name}_{options.method}"
    try:
        check_writable(output)
    except OSError as error:
        raise InputError(f"--output: {error}") from error
    tuning = _tuning(options, recipe, checkpoint, engine)
    images = open_images(checkpoint, options.data, count=options.images)
    shown, _ = calibration_images(checkpoint, images, None, options.calibration_images)
    assert images is not None  # calibration needs them
    model = in_float32(checkpoint.model)
    print(
        f"{options.method} {checkpoint.path}: {tuning.epochs} epochs of "
        f"{tuning.steps_per_epoch:,} steps of {recipe.batch_size:,} images of "
        f"{tuning.source.name}, rate {tuning.learning_rate:.3g}",
        flush=True,
    )
    keras.utils.set_random_seed(options.seed)
    merged = merge(model, check=False)  # the forms are compared on images at the end
    compressed = METHODS[options.method](merged, tuning, options, engine, shown)
    settings = {
        "method": options.method,
        **compressed.settings,
        "epochs": tuning.epochs,
        "learning_rate": tuning.learning_rate,
        "of": str(checkpoint.path),
    }
    path, report = publish(
        output, checkpoint, model, compressed, images, shown, settings
    )
    print(table(report))
    print(SPEED_NOTE)
    print(f"Published {path} after {time.monotonic() - started:.0f} s")


def _recipe(folder):
    """Return the recipe that a run was trained with."""
    file = folder / RECIPE
    try:
        return from_json(json.loads(file.read_text("utf-8"))["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"RUN is a run's version folder, whose {RECIPE} says how its images are "
            f"prepared. Received: {str(folder)!r} ({type(error).__name__}: {error})"
        ) from error


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The settings and data that a network is fine-tuned with.

    Attributes:
        source: Loaded `Source`.
        recipe: Recipe of the run: its batch, augmentation and smoothing count.
        epochs: Number of epochs.
        learning_rate: Rate at the start of a cosine that ends at 0.
        seed: Seed of the images.
    """

    source: Any
    recipe: Any
    epochs: int
    learning_rate: float
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of full batches in an epoch."""
        return steps_per_epoch(self.source.train.count, self.recipe.batch_size)

    @property
    def steps(self) -> int:
        """Return the number of updates in all."""
        return self.epochs * self.steps_per_epoch

    def compile(self, model: Any, keras: Any) -> None:
        """Compile a model of a Keras, 3's or `tf_keras`."""
        decay = keras.optimizers.schedules.CosineDecay(self.learning_rate, self.steps)
        model.compile(
            keras.optimizers.Adam(decay),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
        )

    def fit(self, model: Any, callbacks: Iterable = ()) -> None:
        """Fit a compiled model.

        Raises:
            RunError: If an image cannot be read.
        """
        recipe, split = self.recipe, self.source.validation
        size, classes = recipe.image_size, len(self.source.class_names)
        batches = training_batches(
            self.source,
            recipe,
            image_size=size,
            batch_size=recipe.batch_size,
            global_batch=recipe.batch_size,
            seed=self.seed,
        )
        validation = evaluation_batches(
            split, recipe, image_size=size, batch_size=recipe.batch_size
        ).map(lambda x, labels, kept: (x, tf.one_hot(labels, classes), kept))
        try:
            model.fit(
                batches,
                epochs=self.epochs,
                steps_per_epoch=self.steps_per_epoch,
                validation_data=validation,
                callbacks=list(callbacks),
                shuffle=False,  # they are already
                verbose=1 if sys.stderr.isatty() else 2,
            )
        except tf.errors.OpError as error:
            found = reason(error)
            if found is None:
                raise
            raise found from error


def _tuning(options, recipe, checkpoint, engine):
    """Return the fine-tuning under the run's recipe."""
    prepared = checkpoint.prepared
    source = open_source(None if options.data == "digits" else options.data)
    source = source.with_exif(prepared.exif)
    names = prepared.class_names
    if names is not None and tuple(names) != tuple(source.class_names):
        raise InputError(
            "The network is fine-tuned on the classes that it was trained on: pass "
            f"the run's data. Received: {source.name!r} with "
            f"{len(source.class_names):,} classes, {source.class_names[0]!r} first, "
            f"for {len(names):,}, {names[0]!r} first"
        )
    recipe = dataclasses.replace(
        recipe, image_size=prepared.image_size, mean=prepared.mean, std=prepared.std
    )
    per_replica_batch(recipe.batch_size, engine.replicas)
    peak, *_ = recipe.scaled_rates()
    return Tuning(
        source=load(source, recipe),
        recipe=recipe,
        epochs=options.epochs,
        learning_rate=options.learning_rate or RATE * peak,
        seed=options.seed,
    )


@dataclasses.dataclass(frozen=True)
class Compressed:
    """The result of a method.

    Attributes:
        model: Merged Keras 3 model, in no strategy and not compiled.
        settings: Settings of the method, for the report.
        write_int8: Function that writes the method's own int8 file, as
            `kmlp.export.tflite` takes path and preprocessing; `None` where quantising
            after training does.
    """

    model: keras.Model
    settings: dict[str, Any]
    write_int8: Callable[..., Path] | None = None


def prune(
    merged: keras.Model, tuning: Tuning, options: Namespace, engine: Any, _: np.ndarray
) -> Compressed:
    """Set weights to zero, more and more while the network is fitted."""
    if options.pattern == "2:4":
        arguments: dict[str, Any] = {"sparsity_m_by_n": (2, 4)}
    else:
        targets = {MIXING: options.mixing_sparsity, CHANNEL: options.sparsity}
        arguments = {"sparsity": targets}
    end = max(1, int(PRUNED_BY * tuning.steps))
    pruning = Pruning(end_step=end, frequency=max(1, end // GROWTHS), **arguments)
    with engine.scope():
        model = merge(merged, check=False)  # a copy within the scope
        tuning.compile(model, keras)
    tuning.fit(model, [pruning])
    merged.set_weights(model.get_weights())
    arguments.pop("sparsity_m_by_n", None)
    settings = {"pattern": options.pattern, **arguments, "devices": options.devices}
    return Compressed(merged, settings)


def cluster(
    merged: keras.Model, tuning: Tuning, options: Namespace, *_: Any
) -> Compressed:
    """Fine-tune kernels of few distinct values."""
    import tf_keras

    clustering = Clustering(merged, options.clusters)
    tuning.compile(clustering.model, tf_keras)
    tuning.fit(clustering.model)
    return Compressed(clustering.merged(), {"clusters": options.clusters})


def quantize(
    merged: keras.Model, tuning: Tuning, _: Namespace, __: Any, images: np.ndarray
) -> Compressed:
    """Fine-tune weights to be rounded."""
    import tf_keras

    aware = QuantizationAware(merged, images)
    tuning.compile(aware.model, tf_keras)
    tuning.fit(aware.model)
    return Compressed(aware.merged(), {}, aware.tflite)


METHODS: dict[str, Callable[..., Compressed]] = {
    "prune": prune,
    "cluster": cluster,
    "quantize": quantize,
}
