"""Export a checkpoint's forms, which are run over images before they are published."""

import json
import math
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kmlp.artifacts import agreement, origin, origin_text
from kmlp.artifacts.locating import locate as locate_artifact
from kmlp.artifacts.opening import compiled, runner
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.report import BYTES, FC_ONLY, MILLISECONDS, TOP1, cell, files_table
from kmlp.artifacts.running import input_specs, latencies
from kmlp.atomic import check_writable, new_file, new_version
from kmlp.console import progress_bar
from kmlp.errors import InputError, RunError
from kmlp.export import runtimes
from kmlp.export.device_spelling import equalised
from kmlp.export.groundwork import (
    in_dense_form,
    in_float32,
    named_failures,
    refuse_existing,
)
from kmlp.export.layer_losses import layer_losses
from kmlp.export.offer import DETECTION, names_of
from kmlp.export.saved_model import PRECISIONS as SAVED_PRECISIONS
from kmlp.export.saved_model import saved_model as write_saved_model
from kmlp.export.starting_point import (
    Checkpoint,
    Images,
    calibration_images,
    locate,
    open_images,
)
from kmlp.export.tflite import check_options
from kmlp.export.tflite import tflite as write_tflite
from kmlp.pretrained.restoring import load_checkpoint

TRAINED, FLOAT32 = "trained", "float32"
# Formats of `--format`.
SAVED_MODEL, TFLITE, ONNX, OPENVINO = "saved_model", "tflite", "onnx", "openvino"
# Precisions of each, in the order of the table.
PRECISIONS = {
    SAVED_MODEL: SAVED_PRECISIONS,
    TFLITE: (FLOAT32, "float16", "dynamic", "int8"),
    ONNX: (FLOAT32,),
    OPENVINO: runtimes.PRECISIONS,
}
# Points of top-1 that a precision may lose, where nothing else is asked.
MAX_DROP = {FLOAT32: 0.0, "bfloat16": 0.3, "float16": 0.1, "dynamic": 0.3, "int8": 1.0}
# What the one file of a form is called; the others are folders of versions.
SUFFIXES = {TFLITE: ".tflite", ONNX: ".onnx"}
_TITLES = {
    SAVED_MODEL: "SavedModel",
    TFLITE: "TFLite",
    ONNX: "ONNX",
    OPENVINO: "OpenVINO",
}
WORST = 5  # layers that are named
FEW = 16  # images that layers are tried on where none are given
# Formats and precisions of segmenters; a detector is a SavedModel.
DENSE_PRECISIONS = {
    **PRECISIONS,
    TFLITE: (FLOAT32, "float16", "dynamic"),
    OPENVINO: (FLOAT32, "bfloat16"),
}
# Options of `kmlp export` that go with classifiers alone, beside the preparation.
_CLASSIFIERS_ONLY = ("data", "representative", "images", "max_drop", "json")

Figures = dict[str, dict[str, Any]]


class Form(NamedTuple):
    """A form that a network is written in.

    Attributes:
        format: Key of `PRECISIONS`.
        precision: One of its precisions.
    """

    format: str
    precision: str

    @property
    def name(self) -> str:
        """Return the form's name in reports; TFLite files have their precision's."""
        own = self.format == TFLITE
        return self.precision if own else f"{self.format} {self.precision}"

    @property
    def title(self) -> str:
        """Return the form's name in tables."""
        return f"{_TITLES[self.format]} {self.precision}"


def chosen(
    formats: Sequence[str],
    precisions: Sequence[str],
    known: Mapping[str, Sequence[str]] = PRECISIONS,
) -> list[Form]:
    """Return the forms of formats in precisions, in the order of the table.

    Args:
        formats: Keys of `PRECISIONS`.
        precisions: Precisions; a format is written in those that it has.
        known: Precisions of each format.

    Raises:
        InputError: If a format has none of them, or no format has one.
    """
    forms = [
        Form(format, precision)
        for format in dict.fromkeys(formats)
        for precision in known[format]
        if precision in precisions
    ]
    had = {form.precision for form in forms}
    idle = [f for f in formats if f not in {form.format for form in forms}]
    if idle or had != set(precisions):
        which = ", ".join(f"{f}: {' '.join(known[f])}" for f in dict.fromkeys(formats))
        raise InputError(
            f"--format and --precision go together so: {which}. Received: --format "
            f"{' '.join(formats)} --precision {' '.join(precisions)}"
        )
    return forms


def export(
    checkpoint: Checkpoint,
    output: Path | None,
    forms: Sequence[Form],
    options: Namespace,
) -> None:
    """Write, run and publish a checkpoint's forms, and print the table.

    Args:
        checkpoint: Checkpoint that is exported.
        output: A file or folder of versions of one form, a folder for several, or
            `None`: beside the checkpoint.
        forms: Forms from `chosen`.
        options: Options of `kmlp export`.

    Raises:
        InputError: If there is input that cannot be worked with.
        RunError: If a form loses more than it may.
    """
    model = checkpoint.model
    targets = _targets(checkpoint.path, output, forms)
    _check(checkpoint, targets, options)
    images = open_images(checkpoint, options.data, count=options.images)
    if images is None and options.max_drop is not None:
        raise InputError(
            "--max-drop compares over validation images: pass --data digits, a folder "
            f"or tfds:NAME. Received: --max-drop {options.max_drop:g}"
        )
    shown, source = None, None
    if any(form.precision == "int8" for form in targets):
        shown, source = calibration_images(
            checkpoint, images, options.representative, options.calibration_images
        )
        print(f"Ranges of int8 from {source}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = _written(checkpoint, Path(folder), targets, shown, options)
        paths = {form.name: path for form, path in files.items()}
        side = checkpoint.prepared.image_size
        figures = measure(model, paths, images, side)
        figures[TRAINED]["bytes"] = checkpoint.path.stat().st_size
        print(_table(figures, {form.name: form.title for form in files}), flush=True)
        _say_dense(next(iter(files.values())))
        refused = {} if images is None else _refused(figures, targets, options.max_drop)
        for form in refused:
            layers = _worst(model, form, shown, images, options)
            figures[form.name]["layers"] = layers
        published = {}
        for form, target in targets.items():
            if form in refused:
                continue
            path = files[form]
            if form.precision == "int8":
                origin.add(path, calibration=source)
            if images is not None:
                scored = accuracies(figures, form.name, images, next(iter(paths)))
                origin.add(path, accuracies=scored)
            published[form.name] = str(_published(path, target))
            print(published[form.name])
    if options.json is not None:
        report = {
            "model": str(checkpoint.path),
            "data": None if images is None else images.name,
            "images": None if images is None else images.count,
            "calibration": source,
            "forms": figures,
            "published": published,
        }
        with named_failures(options.json), new_file(options.json) as draft:
            draft.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if refused:
        said = ", ".join(
            f"{form.name} loses {drop:.2f} points (allowed: {limit:g})"
            for form, (drop, limit) in refused.items()
        )
        raise RunError(
            f"{said}: refused, and not written. Choose another precision, raise "
            "--max-drop, or look at the layers above. "
            f"Received: {str(checkpoint.path)!r}",
        )


def _say_dense(path):
    """Print what became of an artifact's convolutions, where it was asked for."""
    if said := origin_text.dense(origin.read(path) or {}):
        print(f"dense: {said}", flush=True)


def _published(path, target):
    """Copy a form to its place; return where it is."""
    with named_failures(target):
        if path.is_file():
            with new_file(target) as draft:
                shutil.copyfile(path, draft)
            return target
        with new_version(target) as version:
            shutil.copytree(path, version.folder, dirs_exist_ok=True)
        return version.path


def measure(
    model: keras.Model,
    files: dict[str, Path],
    images: Images | None,
    side: int | None = None,
) -> Figures:
    """Return the figures of a trained model and of its artifacts.

    Args:
        model: Train form, a functional model.
        files: Paths by the name of the form; the first is what the others are
            compared with, and each with the first of its format.
        images: Images that all are run on, if there are any.
        side: Side of the images, where the model leaves that free.

    Returns:
        Figures `{form: figures}` as JSON has them, `TRAINED` first.
    """
    forms: Figures = {TRAINED: {}}
    if images is not None:
        forms = _compared(model, files, images)
    milliseconds = latencies(files, side)
    yardsticks: dict[str, int] = {}
    for name, path in files.items():
        path, kind = locate_artifact(path)
        held = origin.files_of(path) if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in held if file.is_file())
        forms.setdefault(name, {}).update(
            bytes=size,
            share_of_float32=size / yardsticks.setdefault(kind, size),
            latency_ms=milliseconds[name],
            **audited(path),
        )
    return forms


def accuracies(
    forms: Figures, name: str, images: Images, first: str = FLOAT32
) -> dict[str, Any]:
    """Return the origin's entry `accuracies` of a form, from `measure`.

    Args:
        forms: Figures from `measure`.
        name: Name of the form.
        images: Images that all were run on.
        first: Name of the form that the others were compared with.
    """
    return {
        "data": images.name,
        "images": images.count,
        "trained_top1": forms[TRAINED]["top1"],
        "float32_top1": forms[first]["top1"],
        **{key: forms[name][key] for key in _COMPARED},
    }


_COMPARED = (
    "top1",
    "drop_points",
    "disagreements",
    "ties",
    "largest_logit_error",
    "relative_logit_error",
)


def _compared(model, files, images):
    """Run all forms over the images and hold them against the first."""
    trained, first = compiled(model), next(iter(files))
    runs = {first: None, TRAINED: lambda images: {"": trained(images)}}
    for name, path in files.items():
        runs[name] = runner(*locate_artifact(path))

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        with progress_bar(images.count, "img", desc="evaluating") as bar:
            for batch, right in images.batches():
                yield batch, right, np.ones(len(batch))
                bar.update(len(batch))

    measures = agreement.compare(runs, batches(), agreement.ClassAgreement)
    results = {name: measures[name].result() for name in (TRAINED, *files)}
    best = results[first]["accuracy"]
    return {
        name: {
            "top1": result["accuracy"],
            "drop_points": 100 * (best - result["accuracy"]),
            "disagreements": result["disagreements"],
            "ties": result["ties"],
            "largest_logit_error": _finite(result["largest_difference"]),
            "relative_logit_error": _finite(result["relative_difference"]),
        }
        for name, result in results.items()
    }


def _finite(value):
    return value if math.isfinite(value) else None


def _error(form):
    absolute, relative = form["largest_logit_error"], form["relative_logit_error"]
    return "not finite" if absolute is None else f"{absolute:.3g} ({relative:.2%})"


_COLUMNS = (
    TOP1,
    ("drop", cell("drop_points", "{:+.2f}".format)),
    ("disagree", cell("disagreements", "{:,}".format)),
    (
        "largest logit error",
        lambda form: _error(form) if "largest_logit_error" in form else None,
    ),
    BYTES,
    ("share", cell("share_of_float32", "{:.1%}".format)),
    *MILLISECONDS,
    FC_ONLY,
)


def _table(figures, titles):
    """Return a row per form; the first is not compared with itself."""
    first, shown = next(iter(titles)), {}
    for name, form in figures.items():
        own = {k: v for k, v in form.items() if k == "top1" or k not in _COMPARED}
        shown[titles.get(name, "Keras, trained")] = own if name == first else form
    return files_table(shown, _COLUMNS, "")


def _targets(path, output, forms):
    """Return `{form: path to write}` of the command line's OUTPUT."""
    stem = "model" if path.stem == TRAINED else path.stem
    folder = path.parent if output is None else output.expanduser()
    if output is not None and output.suffix in SUFFIXES.values():
        if len(forms) > 1 or output.suffix != SUFFIXES.get(forms[0].format):
            raise InputError(
                "A file as OUTPUT is of one form and has its suffix; several --format "
                "or --precision need a folder, in which each gets its name. "
                f"Received: {str(output)!r}, {', '.join(f.title for f in forms)}"
            )
        return {forms[0]: folder}
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"OUTPUT is a {' or '.join(SUFFIXES.values())} file or a folder; this is "
            f"another file. Received: {str(folder)!r}"
        )
    if len(forms) == 1 and forms[0].format not in SUFFIXES:
        return {forms[0]: folder}  # of versions
    return {
        form: folder
        / (
            f"{stem}.{form.precision}{SUFFIXES[form.format]}"
            if form.format in SUFFIXES
            else f"{stem}.{form.format}.{form.precision}"
        )
        for form in forms
    }


def _check(checkpoint, targets, options):
    """Refuse what can be refused before the work."""
    for form, path in targets.items():
        if form.format in SUFFIXES:
            refuse_existing(path, options.overwrite)
    form, folder = next(iter(targets.items()))
    folder = folder.parent if form.format in SUFFIXES else folder
    while not folder.exists():  # nothing is made before there is something to write
        folder = folder.parent
    check_writable(folder)
    if options.json is not None and not options.json.parent.is_dir():
        raise InputError(f"--json needs a folder that exists. Received: {options.json}")
    specs = input_specs(checkpoint.model)
    names_of(checkpoint.model, specs, checkpoint.prepared.class_names)
    if any(form.format == TFLITE for form in targets):
        check_options(checkpoint.model, input_shape=_input_shape(checkpoint))


def _input_shape(checkpoint):
    """Return the shape to export at where the model leaves its sizes open."""
    shape = tuple(checkpoint.model.inputs[0].shape[1:])
    size = checkpoint.prepared.image_size
    if None not in shape or size is None or len(shape) != 3:
        return None
    return (size, size, shape[-1])


def _written(checkpoint, folder, targets, shown, options):
    """Return `{form: path}` of unpublished artifacts.

    Each format's float32 is among them, before its others: their yardstick.
    """
    formats = dict.fromkeys(form.format for form in targets)
    forms = dict.fromkeys(
        form
        for own in formats
        for form in (Form(own, FLOAT32), *(f for f in targets if f.format == own))
    )
    files = {}
    with progress_bar(len(forms), "form", desc="converting") as bar:
        for form in forms:
            # A server's requests for warm-up name the folder of the versions.
            name = targets[form].name if form in targets else form.name
            path = folder / form.name / name
            files[form] = _write(checkpoint, form, path, shown, options)
            bar.update()
    return files


def _write(checkpoint, form, path, shown, options):
    """Write a form and return where it is."""
    return _WRITERS[form.format](
        checkpoint.model,
        path,
        merge=not options.train_form,
        dense=options.dense,
        preprocessing=checkpoint.preprocessing,
        class_names=checkpoint.prepared.class_names,
        **_own_settings(form, options, _input_shape(checkpoint), shown),
    )


def _own_settings(form, options, shape, shown=None):
    """Return the arguments that a form's writer has and others have not."""
    settings: dict[str, Any] = {}
    if form.format != SAVED_MODEL:
        settings["input_shape"] = shape
    if form.precision == "int8":
        settings["representative_data"] = shown
    if form.format == TFLITE:
        settings["quantize"] = None if form.precision == FLOAT32 else form.precision
        settings["batch_size"] = options.batch
    elif form.format != ONNX:
        settings["precision"] = form.precision
    return settings


_WRITERS: dict[str, Callable[..., Path]] = {
    SAVED_MODEL: write_saved_model,
    TFLITE: write_tflite,
    ONNX: runtimes.onnx,
    OPENVINO: runtimes.openvino,
}


def _refused(figures, targets, max_drop):
    """Return `{form: (drop, allowed)}` of those that lose too much."""
    refused = {}
    for form in targets:
        if form.precision == FLOAT32:
            continue  # equal, as was seen when it was written
        limit = MAX_DROP[form.precision] if max_drop is None else max_drop
        drop = figures[form.name]["drop_points"]
        # Points of a share: a tenth of a point is no exact number.
        if drop > limit + 1e-9:
            refused[form] = (drop, limit)
    return refused


def _worst(model, form, shown, images, options):
    """Print and return the layers that lose most, of a quantised TFLite file."""
    if form.format != TFLITE:
        return {}
    if shown is None:
        shown = next(images.batches())[0][:FEW]
    merge = not options.train_form
    network, _ = in_dense_form(in_float32(model), merge, options.dense)
    if form.precision == "int8":
        network = equalised(network, shown)
    losses = layer_losses(network, shown, form.precision)[:WORST]
    print(
        f"{form.name}: change of the outputs by one layer alone (RMS), the worst first"
    )
    width = max(len(loss.layer) for loss in losses)
    for loss in losses:
        print(f"  {loss.layer:<{width}}  {loss.change:8.2%}", flush=True)
    return {loss.layer: loss.change for loss in losses}


def export_dense(task: str, forms: Sequence[Form], options: Namespace) -> None:
    """Write the artifacts of a detector or segmenter and print where to.

    Args:
        task: Task, `"detection"` or `"segmentation"`.
        forms: Forms from `chosen`.
        options: Options of `kmlp export`.

    Raises:
        InputError: If there are options that do not go with such a model.
    """
    _check_dense(task, forms, options)
    path = locate(options.model, options.weights)
    model = load_checkpoint(path)
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        shape = (*model.preprocessing.canvas, shape[-1])
    targets = _targets(path, options.output, forms)
    for form, target in targets.items():
        if form.format in SUFFIXES:
            refuse_existing(target, options.overwrite)
    for form, target in targets.items():
        settings = _own_settings(form, options, shape)
        if form.format in SUFFIXES:
            settings["overwrite"] = options.overwrite
        merge = not options.train_form
        write = _WRITERS[form.format]
        written = write(model, target, merge=merge, dense=options.dense, **settings)
        _say_dense(written)
        print(written, flush=True)


def _check_dense(task, forms, options):
    received = f"Received: {str(options.model)!r}"
    if task == DETECTION and tuple(forms) != (Form(SAVED_MODEL, FLOAT32),):
        raise InputError(
            "A detector is served as a SavedModel of float32: other formats lack "
            "operations for its suppression, other precisions move its boxes. "
            f"{received}"
        )
    for name in (*_CLASSIFIERS_ONLY, *options.preparation, "class_names"):
        if getattr(options, name) is not None:
            flag = {"test_interpolation": "interpolation"}.get(name, name)
            raise InputError(
                f"--{flag.replace('_', '-')} goes with a classifier; of a detector or "
                "segmenter the checkpoint says how pictures are prepared. Figures come "
                f"from training/evaluate_dense.py. {received}"
            )
