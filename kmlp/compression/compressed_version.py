"""Publish a compressed network beside what it was before."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.analysis.sparsity import gzip_bytes, sparsity
from kmlp.artifacts import origin
from kmlp.artifacts.locating import CHECKPOINT
from kmlp.artifacts.report import BYTES, MILLISECONDS, TOP1, cell, files_table
from kmlp.export.forms import FLOAT32, TRAINED, accuracies, measure
from kmlp.export.starting_point import Checkpoint, Images
from kmlp.export.tflite import tflite as write_tflite
from kmlp.merging import merge
from kmlp.training.publishing import RECIPE, new_reported

INT8, COMPRESSED, COMPRESSED_INT8 = "int8", "compressed", "compressed int8"
# Form -> its file in the version; the others are made for the comparison.
FILES = {COMPRESSED: "model.float32.tflite", COMPRESSED_INT8: "model.int8.tflite"}
SPEED_NOTE = (
    "Zeros and repeated values save room once a file is compressed. They save time "
    "only where a kernel skips them, which the matrix products that ran here do not."
)


def publish(
    parent: Path,
    checkpoint: Checkpoint,
    model: keras.Model,
    compressed: Any,
    images: Images,
    shown: np.ndarray,
    settings: dict[str, Any],
) -> tuple[Path, dict[str, Any]]:
    """Write a version's files, run them beside those of before and report.

    Args:
        parent: Folder of the versions.
        checkpoint: Checkpoint that was compressed.
        model: Its network in float32.
        compressed: Result of compression, a `kmlp.compression.compressing.Compressed`.
        images: Images to compare on.
        shown: Images that show the ranges of int8.
        settings: Settings of the compression.

    Returns:
        The path of the version and its report.

    Raises:
        RunError: If the version cannot be written.
    """
    merged, prepared = merge(model, check=False), checkpoint.preprocessing
    run = checkpoint.path.parent
    with (
        tempfile.TemporaryDirectory() as beside,
        new_reported(parent, run, [RECIPE], "Nothing was published") as (draft, report),
    ):
        before, after = Path(beside) / CHECKPOINT, draft.folder / CHECKPOINT
        merged.save(before)
        origin.save_checkpoint(
            compressed.model,
            after,
            form=origin.MERGED,
            preprocessing=prepared,
            compression=settings,
        )
        folders = draft.folder, Path(beside)
        files, failures = _files(merged, compressed, shown, prepared, *folders)
        forms = measure(model, files, images)
        trained = forms[TRAINED]["top1"]
        for name in FILES.keys() & files.keys():
            found = accuracies(forms, name, images)
            origin.add(files[name], compression=settings, accuracies=found)
        del forms[TRAINED]
        for name, path in files.items():
            forms[name]["gzip_bytes"] = gzip_bytes(path)
        report |= {
            "compression": settings,
            "trained_top1": trained,
            "images": images.count,
            "forms": forms,
            "failures": failures,
            "keras": {
                when: {"bytes": path.stat().st_size, "gzip_bytes": gzip_bytes(path)}
                for when, path in (("before", before), ("after", after))
            },
            "sparsity": {
                "before": _by_kind(merged),
                "after": _by_kind(compressed.model),
            },
            "note": SPEED_NOTE,
        }
    return draft.path, report


def _files(merged, compressed, shown, prepared, folder, beside):
    """Return `{form: path}` of the files that could be written, and why others not."""
    before = functools.partial(write_tflite, merged)
    after = functools.partial(write_tflite, compressed.model)
    ranges = {"quantize": "int8", "representative_data": shown}
    writers = {
        FLOAT32: before,
        INT8: functools.partial(before, **ranges),
        COMPRESSED: after,
        COMPRESSED_INT8: compressed.write_int8 or functools.partial(after, **ranges),
    }
    files, failures = {}, {}
    for name, write in writers.items():
        path = folder / FILES[name] if name in FILES else beside / name
        try:
            files[name] = write(path, preprocessing=prepared)
        except RuntimeError as error:
            # One bad file must not cost hours of fine-tuning.
            print(f"{name}: {error}")
            failures[name] = str(error)
    return files, failures


def _by_kind(model):
    """Return the sparsity of each kind of layer, for the report."""
    rows = sparsity(model).by_kind()
    fields = ("name", "kind", "size", "small", "zero")
    return {kind: {f: getattr(row, f) for f in fields} for kind, row in rows.items()}


_FORMS = (
    TOP1,
    ("points lost", cell("drop_points", "{:+.2f}".format)),
    BYTES,
    ("gzip", cell("gzip_bytes", "{:,}".format)),
    *MILLISECONDS,
)
_LAYERS = (
    ("weights", cell("size", "{:,}".format)),
    ("below 5%", cell("small", "{:.1%}".format)),
    ("zero", cell("zero", "{:.1%}".format)),
    ("below 5%, after", cell("small_after", "{:.1%}".format)),
    ("zero, after", cell("zero_after", "{:.1%}".format)),
)


def table(report: dict[str, Any]) -> str:
    """Return the files before and after, and the sparsity of each kind of layer."""
    before, after = (report["sparsity"][when] for when in ("before", "after"))
    kinds = {
        kind: old | {f"{name}_after": after[kind][name] for name in ("small", "zero")}
        for kind, old in before.items()
    }
    forms = files_table(report["forms"], _FORMS, "TFLite")
    return f"{forms}\n\n{files_table(kinds, _LAYERS, 'layers')}"
