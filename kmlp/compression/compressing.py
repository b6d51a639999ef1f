"""From the command's options to a published, smaller network."""

import dataclasses
import json
import time

import keras

from kmlp.atomic import check_writable, new_version
from kmlp.compression.compressed_version import RECIPE, SPEED_NOTE, publish, table
from kmlp.compression.methods import METHODS, Tuning
from kmlp.compression.tfmot import import_tfmot
from kmlp.console import SAVED_MODELS
from kmlp.data.sources import open_source
from kmlp.errors import InputError
from kmlp.export.evidence import named_failures
from kmlp.export.precision import in_float32
from kmlp.export.source_checkpoint import open_checkpoint
from kmlp.export.trial_images import calibration_images, open_images
from kmlp.merging import merge
from kmlp.recipes.wording import from_json
from kmlp.training.engine.cluster import open_engine, per_replica_batch
from kmlp.training.input.in_memory import load

OUTPUT = SAVED_MODELS / "compressed"
# Share of the peak rate of the run that fine-tuning begins with.
RATE = 0.3


def run(options):
    """Compresses, compares, publishes and reports.

    Raises:
        InputError: input that cannot be worked with.
    """
    started = time.monotonic()
    import_tfmot()
    devices = options.devices
    engine = open_engine("mirrored" if devices > 1 else "single", devices)
    checkpoint = open_checkpoint(options.run)
    recipe = run_recipe(checkpoint.path.parent)
    output = options.output or OUTPUT / f"{checkpoint.model.name}_{options.method}"
    try:
        check_writable(output)
    except OSError as error:
        raise InputError(f"--output: {error}") from error
    tuning = make_tuning(options, recipe, checkpoint, engine)
    images = open_images(checkpoint, options.data, count=options.images)
    shown, _ = calibration_images(checkpoint, images, None, options.calibration_images)
    model = in_float32(checkpoint.model)
    print(
        f"{options.method} {checkpoint.path}: {tuning.epochs} epochs of "
        f"{tuning.steps_per_epoch:,} steps of {recipe.batch_size:,} images of "
        f"{tuning.source.name}, rate {tuning.learning_rate:.3g}",
        flush=True,
    )
    keras.utils.set_random_seed(options.seed)
    try:
        compressed = METHODS[options.method](
            merge(model), tuning, options, engine, shown
        )
    except ValueError as error:
        # Ours, of a network that has no twin or no such layers; others are bugs.
        if "Received:" not in str(error):
            raise
        raise InputError(error) from error
    settings = {
        "method": options.method,
        **compressed.settings,
        "epochs": tuning.epochs,
        "learning_rate": tuning.learning_rate,
        "of": str(checkpoint.path),
    }
    with named_failures(output), new_version(output) as draft:
        report = publish(
            draft.folder, checkpoint, model, compressed, images, shown, settings
        )
        text = json.dumps(report, indent=2) + "\n"
        (draft.folder / "report.json").write_text(text)
    print(table(report))
    print(SPEED_NOTE)
    print(f"Published {draft.path} after {time.monotonic() - started:.0f} s")


def run_recipe(folder):
    """The recipe that a run was trained with.

    Raises:
        InputError: the folder has none.
    """
    file = folder / RECIPE
    try:
        return from_json(json.loads(file.read_text())["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"RUN is a run's version folder, whose {RECIPE} says how its images are "
            f"prepared. Received: {str(folder)!r} ({type(error).__name__}: {error})"
        ) from error


def make_tuning(options, recipe, checkpoint, engine):
    """The fine-tuning under the run's recipe.

    Raises:
        InputError: data of other classes than the network's, or a batch that does not
            fit.
    """
    source = open_source(None if options.data == "digits" else options.data)
    names = checkpoint.prepared.class_names
    if names is not None and tuple(names) != tuple(source.class_names):
        raise InputError(
            "The network is fine-tuned on the classes that it was trained on: pass "
            f"the run's data. Received: {source.name!r} with "
            f"{len(source.class_names):,} classes, {source.class_names[0]!r} first, "
            f"for {len(names):,}, {names[0]!r} first"
        )
    prepared = checkpoint.prepared
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
