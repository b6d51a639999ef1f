"""The version that a compression publishes, and what is measured of it."""

import functools
import shutil
import tempfile
from pathlib import Path

from kmlp.analysis.sparsity import gzip_bytes, sparsity
from kmlp.artifacts import agreement, origin
from kmlp.artifacts.form_figures import FLOAT32, TRAINED, compare
from kmlp.artifacts.locating import CHECKPOINT
from kmlp.artifacts.operation_audit import audit
from kmlp.artifacts.speed import latencies
from kmlp.console import aligned
from kmlp.export.tflite import tflite as write_tflite
from kmlp.merging import merge

INT8, COMPRESSED, COMPRESSED_INT8 = "int8", "compressed", "compressed int8"
# Form -> its file in the version; the others are made for the comparison.
FILES = {COMPRESSED: "model.float32.tflite", COMPRESSED_INT8: "model.int8.tflite"}
# As training names it, so that evaluation finds it.
RECIPE = "recipe.json"
SPEED_NOTE = (
    "Zeros and repeated values save room once a file is compressed. They save time "
    "only where a kernel skips them, which the matrix products that ran here do not."
)


def publish(folder, checkpoint, model, compressed, images, shown, settings):
    """Writes a version's files, runs them beside those of before; the report.

    Args:
        folder: of the version.
        checkpoint: `kmlp.export.source_checkpoint.Checkpoint` that was compressed.
        model: its network in float32.
        compressed: `kmlp.compression.methods.Compressed`.
        images: `kmlp.export.trial_images.Images` to compare on.
        shown: array of images that shows the ranges of int8.
        settings: of the compression.
    """
    merged, prepared = merge(model), checkpoint.preprocessing
    with tempfile.TemporaryDirectory() as beside:
        archives = {
            "before": Path(beside) / CHECKPOINT,
            "after": folder / CHECKPOINT,
        }
        merged.save(archives["before"])
        compressed.model.save(archives["after"])
        known = origin.describe(
            compressed.model, form=origin.MERGED, preprocessing=prepared
        )
        entries = agreement.evidence({"kind": ".keras checkpoint"})
        origin.write(archives["after"], {**known, **entries, "compression": settings})
        before = functools.partial(write_tflite, merged)
        after = functools.partial(write_tflite, compressed.model)
        ranges = {"quantize": "int8", "representative_data": shown}
        writers = {
            FLOAT32: before,
            INT8: functools.partial(before, **ranges),
            COMPRESSED: after,
            COMPRESSED_INT8: compressed.write_int8
            or functools.partial(after, **ranges),
        }
        files, failures = {}, {}
        for name, write in writers.items():
            path = folder / FILES[name] if name in FILES else Path(beside) / name
            try:
                files[name] = write(path, preprocessing=prepared)
            except RuntimeError as error:
                # What took hours of fine-tuning is not lost to one of its files.
                print(f"{name}: {error}")
                failures[name] = str(error)
        forms, trained = measured(model, files, images)
        for name in FILES.keys() & files.keys():
            top1 = forms[name]["top1"]
            accuracies = {"data": images.name, "images": images.count, "top1": top1}
            origin.add(files[name], compression=settings, accuracies=accuracies)
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
            "fully_connected_only": audit(path).fully_connected_only,
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
    fields = ("name", "kind", "size", "small", "zero")
    return {kind: {f: getattr(row, f) for f in fields} for kind, row in rows.items()}


FIELDS = (
    ("top-1", lambda form: f"{form['top1']:.2%}"),
    ("points lost", lambda form: f"{form['drop_points']:+.2f}"),
    ("bytes", lambda form: f"{form['bytes']:,}"),
    ("gzip", lambda form: f"{form['gzip_bytes']:,}"),
    ("ms, 1 thr.", lambda form: f"{form['latency_ms'][1]:.2f}"),
    ("ms, 2 thr.", lambda form: f"{form['latency_ms'][2]:.2f}"),
)


def table(report):
    """Files before and after, and the sparsity of each kind of layer."""
    forms = report["forms"]
    rows = [("TFLite", *(title for title, _ in FIELDS))]
    rows += [
        (name, *(cell(form) for _, cell in FIELDS)) for name, form in forms.items()
    ]
    before, after = (report["sparsity"][when] for when in ("before", "after"))
    shares = [
        ("layers", "weights", "below 5%", "zero", "below 5%, after", "zero, after")
    ]
    for kind, old in before.items():
        values = (old["small"], old["zero"], after[kind]["small"], after[kind]["zero"])
        shares.append((kind, f"{old['size']:,}", *(f"{v:.1%}" for v in values)))
    return "\n\n".join(map(aligned, (rows, shares)))
