"""From the command's options to a published, smaller network."""

import dataclasses
import json
import shutil
import tempfile
import time
from pathlib import Path

import keras

import kmlp
from kmlp.analysis.sparsity import gzip_bytes, sparsity
from kmlp.artifacts import origin
from kmlp.atomic import check_writable, new_version
from kmlp.compression.tfmot import import_tfmot
from kmlp.console import Stop
from kmlp.data import open_source
from kmlp.edge.checkpoint import open_checkpoint
from kmlp.edge.comparing import FLOAT32, TRAINED, compare
from kmlp.edge.images import calibration_images, open_images
from kmlp.edge.speed import latencies
from kmlp.export.evidence import audited, named_failures
from kmlp.export.precision import in_float32
from training.compression.methods import METHODS
from training.compression.report import table
from training.compression.tuning import Tuning
from training.data import load
from training.engine.cluster import open_engine, per_replica_batch
from training.recipes import from_json, scaled_rates

OUTPUT = Path("saved_models") / "compressed"
INT8, COMPRESSED, COMPRESSED_INT8 = "int8", "compressed", "compressed int8"
# Form -> the name of its file in the version, of those that are published.
FILES = {COMPRESSED: "model.float32.tflite", COMPRESSED_INT8: "model.int8.tflite"}
RECIPE = "recipe.json"
# What a run's images are fine-tuned with: a tenth of the rate it was trained with.
RATE = 0.1
SPEED_NOTE = (
    "Zeros save room once a file is compressed. They save time only where a kernel "
    "skips them, which the matrix products that ran here do not: equal times are to "
    "be expected."
)


def run(options):
    """Compresses, compares, publishes and reports.

    Raises:
        Stop: input that cannot be worked with.
    """
    started = time.monotonic()
    try:
        import_tfmot()
    except ImportError as error:
        raise Stop(error) from error
    devices = options.devices
    engine = open_engine("mirrored" if devices > 1 else "single", devices)
    checkpoint = open_checkpoint(options.run)
    recipe = run_recipe(checkpoint.path.parent)
    output = options.output or OUTPUT / f"{checkpoint.model.name}_{options.method}"
    try:
        check_writable(output)
    except OSError as error:
        raise Stop(f"--output: {error}") from error
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
            kmlp.merge(model), tuning, options, engine, shown
        )
    except ValueError as error:  # of a network that has no twin, or no such layers
        raise Stop(error) from error
    with named_failures(output), new_version(output) as draft:
        report = publish(
            draft.folder, checkpoint, model, compressed, images, shown, options
        )
        report["epochs"] = tuning.epochs
        report["learning_rate"] = tuning.learning_rate
        text = json.dumps(report, indent=2) + "\n"
        (draft.folder / "report.json").write_text(text)
    print(table(report))
    print(SPEED_NOTE)
    print(f"Published {draft.path} after {time.monotonic() - started:.0f} s")


def run_recipe(folder):
    """The recipe that a run was trained with.

    Raises:
        Stop: the folder has none.
    """
    file = folder / RECIPE
    try:
        return from_json(json.loads(file.read_text())["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Stop(
            f"RUN is a run's version folder, whose {RECIPE} says how its images are "
            f"prepared. Received: {str(folder)!r} ({type(error).__name__}: {error})"
        ) from error


def make_tuning(options, recipe, checkpoint, engine):
    """The fine-tuning under the run's recipe.

    Raises:
        Stop: data of other classes than the network's, or a batch that does not fit.
    """
    source = open_source(None if options.data == "digits" else options.data)
    names = checkpoint.prepared.class_names
    if names is not None and tuple(names) != tuple(source.class_names):
        raise Stop(
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
    peak, *_ = scaled_rates(recipe)
    return Tuning(
        source=load(source, recipe),
        recipe=recipe,
        epochs=options.epochs,
        learning_rate=options.learning_rate or RATE * peak,
        seed=options.seed,
    )


def publish(folder, checkpoint, model, compressed, images, shown, options):
    """Writes the version's files and measures them; the report."""
    prepared = checkpoint.preprocessing
    settings = {
        "method": options.method,
        **compressed.settings,
        "of": str(checkpoint.path),
    }
    merged = kmlp.merge(model)
    known = origin.describe(
        compressed.model, form=origin.MERGED, preprocessing=prepared
    )
    known["compression"] = settings
    with tempfile.TemporaryDirectory() as beside:
        files = {FLOAT32: Path(beside) / "float32", INT8: Path(beside) / "int8"}
        files |= {name: folder / file for name, file in FILES.items()}
        archives = {
            "before": Path(beside) / "merged.keras",
            "after": folder / "trained.keras",
        }
        merged.save(archives["before"])
        compressed.model.save(archives["after"])
        origin.write(archives["after"], known)
        failures = {}
        for name, network in (
            (FLOAT32, merged),
            (INT8, merged),
            (COMPRESSED, compressed.model),
            (COMPRESSED_INT8, compressed.model),
        ):
            integers = name in (INT8, COMPRESSED_INT8)
            try:
                if network is not merged and integers and compressed.write_int8:
                    compressed.write_int8(files[name])
                    artifact = {"kind": "TFLite", "quantize": "int8, aware"}
                    said = {"artifact": artifact, "audit": audited(files[name])}
                    origin.write(files[name], {**known, **said})
                    continue
                kmlp.export.tflite(
                    network,
                    files[name],
                    quantize="int8" if integers else None,
                    representative_data=shown if integers else None,
                    preprocessing=prepared,
                )
            except RuntimeError as error:
                # What was fine-tuned for hours is not lost to one of its files.
                print(f"{name}: {error}")
                failures[name] = str(error)
                del files[name]
        forms, trained = measured(model, files, images)
        for name in FILES.keys() & files.keys():
            accuracy = {"images": images.count, "top1": forms[name]["top1"]}
            origin.add(
                files[name],
                compression=settings,
                accuracies={images.name: accuracy},
            )
        sizes = {when: sized(path) for when, path in archives.items()}
    shutil.copyfile(checkpoint.path.parent / RECIPE, folder / RECIPE)
    return {
        "compression": settings,
        "trained_top1": trained,
        "images": images.count,
        "forms": forms,
        "failures": failures,
        "keras": sizes,
        "sparsity": {"before": by_kind(merged), "after": by_kind(compressed.model)},
        "note": SPEED_NOTE,
    }


def measured(model, files, images):
    """`({form: figures of its file}, top-1 of the trained model)`."""
    figures, times = compare(model, files, images), latencies(files)
    forms = {
        name: {
            **figures[name].as_json(figures[FLOAT32]),
            **sized(path),
            "latency_ms": times[name],
            "fully_connected_only": kmlp.export.audit(path).fully_connected_only,
        }
        for name, path in files.items()
    }
    return forms, figures[TRAINED].top1


def sized(path):
    """Bytes of a file, as it is and compressed."""
    return {"bytes": path.stat().st_size, "gzip_bytes": gzip_bytes(path)}


def by_kind(model):
    """The sparsity of each kind of layer, for the report."""
    rows = sparsity(model).by_kind()
    return {kind: dataclasses.asdict(row) for kind, row in rows.items()}
