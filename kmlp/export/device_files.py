"""Export TFLite files that are run over images before they are published."""

import json
import math
import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.artifacts import agreement, origin
from kmlp.artifacts.opening import compiled
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.report import BYTES, FC_ONLY, MILLISECONDS, TOP1, cell, files_table
from kmlp.artifacts.running import input_specs, latencies, load_tflite
from kmlp.atomic import check_writable, new_file
from kmlp.console import progress_bar
from kmlp.errors import InputError, RunError
from kmlp.export.device_spelling import equalised
from kmlp.export.groundwork import inference_form, named_failures, refuse_existing
from kmlp.export.layer_losses import layer_losses
from kmlp.export.offer import DETECTION, names_of
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
# Points of top-1 that a quantisation may lose, where nothing else is asked.
MAX_DROP = {"none": 0.0, "float16": 0.1, "dynamic": 0.3, "int8": 1.0}
SUFFIX = ".tflite"
WORST = 5  # layers that are named
FEW = 16  # images that layers are tried on where none are given
DENSE_QUANTIZE = ("none", "float16", "dynamic")
# Options of `kmlp export` that go with classifiers alone, beside the preparation.
_CLASSIFIERS_ONLY = ("data", "representative", "images", "max_drop", "json")

Forms = dict[str, dict[str, Any]]


def export_tflite(
    checkpoint: Checkpoint,
    output: Path | None,
    quantize: Sequence[str],
    options: Namespace,
) -> None:
    """Write, run and publish the files, and print the table.

    Args:
        checkpoint: Checkpoint that is exported.
        output: A `.tflite` file, a folder, or `None`.
        quantize: Keys of `MAX_DROP`.
        options: Options of `kmlp export`.

    Raises:
        InputError: If there is input that cannot be worked with.
        RunError: If a file loses more than it may.
    """
    model = checkpoint.model
    targets = _targets(checkpoint.path, output, quantize)
    _check(checkpoint, targets, options)
    images = open_images(checkpoint, options.data, count=options.images)
    if images is None and options.max_drop is not None:
        raise InputError(
            "--max-drop compares over validation images: pass --data digits, a folder "
            f"or tfds:NAME. Received: --max-drop {options.max_drop:g}"
        )
    shown, source = None, None
    if "int8" in targets:
        shown, source = calibration_images(
            checkpoint, images, options.representative, options.calibration_images
        )
        print(f"Ranges of int8 from {source}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = _written(checkpoint, Path(folder), targets, shown, options)
        forms = measure(model, files, images)
        forms[TRAINED]["bytes"] = checkpoint.path.stat().st_size
        print(_table(forms), flush=True)
        refused = _refused(forms, options.max_drop) if images is not None else {}
        for name in refused:
            forms[name]["layers"] = _worst(model, name, shown, images, options)
        published = {}
        for name, target in targets.items():
            if name in refused:
                continue
            file = files[_form(name)]
            if name == "int8":
                origin.add(file, calibration=source)
            if images is not None:
                origin.add(file, accuracies=accuracies(forms, _form(name), images))
            with named_failures(target), new_file(target) as draft:
                shutil.copyfile(file, draft)
            published[name] = str(target)
            print(target)
    if options.json is not None:
        report = {
            "model": str(checkpoint.path),
            "data": None if images is None else images.name,
            "images": None if images is None else images.count,
            "calibration": source,
            "forms": forms,
            "published": published,
        }
        with named_failures(options.json), new_file(options.json) as draft:
            draft.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if refused:
        said = ", ".join(
            f"{name} loses {drop:.2f} points (allowed: {limit:g})"
            for name, (drop, limit) in refused.items()
        )
        raise RunError(
            f"{said}: refused, and not written. Choose another quantisation, raise "
            "--max-drop, or look at the layers above. "
            f"Received: {str(checkpoint.path)!r}",
        )


def measure(model: keras.Model, files: dict[str, Path], images: Images | None) -> Forms:
    """Return the figures of a trained model and of its TFLite files.

    Args:
        model: Train form, a functional model.
        files: Paths by the name of the form, `FLOAT32` among them: what the others
            are compared with.
        images: Images that all are run on, if there are any.

    Returns:
        Figures `{form: figures}` as JSON has them, `TRAINED` first.
    """
    forms: Forms = {TRAINED: {}}
    if images is not None:
        forms = _compared(model, files, images)
    milliseconds = latencies(files)
    yardstick = files[FLOAT32].stat().st_size
    for name, path in files.items():
        size = path.stat().st_size
        forms.setdefault(name, {}).update(
            bytes=size,
            share_of_float32=size / yardstick,
            latency_ms=milliseconds[name],
            **audited(path),
        )
    return forms


def accuracies(forms: Forms, name: str, images: Images) -> dict[str, Any]:
    """Return the origin's entry `accuracies` of a form, from `measure`."""
    return {
        "data": images.name,
        "images": images.count,
        "trained_top1": forms[TRAINED]["top1"],
        "float32_top1": forms[FLOAT32]["top1"],
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
    """Run all forms over the images and hold them against float32."""
    trained = compiled(model)
    runs = {FLOAT32: None, TRAINED: lambda images: {"": trained(images)}}
    for name, path in files.items():
        runs[name] = load_tflite(path, num_threads=os.cpu_count())

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        with progress_bar(images.count, "img", desc="evaluating") as bar:
            for batch, right in images.batches():
                yield batch, right, np.ones(len(batch))
                bar.update(len(batch))

    measures = agreement.compare(runs, batches(), agreement.ClassAgreement)
    results = {name: measures[name].result() for name in (TRAINED, *files)}
    best = results[FLOAT32]["accuracy"]
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


def _table(forms):
    """Return a row per form; float32 is not compared with itself."""
    shown = {}
    for name, form in forms.items():
        own = {k: v for k, v in form.items() if k == "top1" or k not in _COMPARED}
        title = "Keras, trained" if name == TRAINED else f"TFLite {name}"
        shown[title] = own if name == FLOAT32 else form
    return files_table(shown, _COLUMNS, "")


def _form(name):
    """Return what the file of a quantisation is called."""
    return FLOAT32 if name == "none" else name


def _targets(path, output, quantize):
    """Return `{quantisation: path to write}` of the command line's OUTPUT."""
    stem = "model" if path.stem == TRAINED else path.stem
    if output is not None and output.suffix == SUFFIX:
        if len(quantize) > 1:
            raise InputError(
                "Several --quantize need a folder as OUTPUT, in which each file gets "
                f"its name. Received: {str(output)!r}"
            )
        return {quantize[0]: output.expanduser()}
    folder = path.parent if output is None else output.expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"OUTPUT is a {SUFFIX} file or a folder; this is another file. "
            f"Received: {str(folder)!r}"
        )
    return {name: folder / f"{stem}.{_form(name)}{SUFFIX}" for name in quantize}


def _check(checkpoint, targets, options):
    """Refuse what can be refused before the work."""
    for path in targets.values():
        refuse_existing(path, options.overwrite)
    folder = next(iter(targets.values())).parent
    while not folder.exists():  # nothing is made before there is something to write
        folder = folder.parent
    check_writable(folder)
    if options.json is not None and not options.json.parent.is_dir():
        raise InputError(f"--json needs a folder that exists. Received: {options.json}")
    specs = input_specs(checkpoint.model)
    names_of(checkpoint.model, specs, checkpoint.prepared.class_names)
    check_options(checkpoint.model, input_shape=_input_shape(checkpoint))


def _input_shape(checkpoint):
    """Return the shape to export at where the model leaves its sizes open."""
    shape = tuple(checkpoint.model.inputs[0].shape[1:])
    size = checkpoint.prepared.image_size
    if None not in shape or size is None or len(shape) != 3:
        return None
    return (size, size, shape[-1])


def _written(checkpoint, folder, targets, shown, options):
    """Return `{form: path}` of unpublished files, float32's always among them."""
    names = tuple(dict.fromkeys(("none", *targets)))
    files = {}
    with progress_bar(len(names), "file", desc="converting") as bar:
        for name in names:
            files[_form(name)] = write_tflite(
                checkpoint.model,
                folder / f"{name}{SUFFIX}",
                merge=not options.train_form,
                quantize=None if name == "none" else name,
                representative_data=shown if name == "int8" else None,
                input_shape=_input_shape(checkpoint),
                preprocessing=checkpoint.preprocessing,
                class_names=checkpoint.prepared.class_names,
            )
            bar.update()
    return files


def _refused(forms, max_drop):
    """Return `{quantisation: (drop, allowed)}` of those that lose too much."""
    refused = {}
    for name, form in forms.items():
        if name in (TRAINED, FLOAT32):
            continue
        limit = MAX_DROP[name] if max_drop is None else max_drop
        # Points of a share: a tenth of a point is no exact number.
        if form["drop_points"] > limit + 1e-9:
            refused[name] = (form["drop_points"], limit)
    return refused


def _worst(model, name, shown, images, options):
    """Print and return the layers that lose most."""
    if shown is None:
        shown = next(images.batches())[0][:FEW]
    form = inference_form(model, not options.train_form)
    if name == "int8":
        form = equalised(form, shown)
    losses = layer_losses(form, shown, name)[:WORST]
    print(f"{name}: change of the outputs by one layer alone (RMS), the worst first")
    width = max(len(loss.layer) for loss in losses)
    for loss in losses:
        print(f"  {loss.layer:<{width}}  {loss.change:8.2%}", flush=True)
    return {loss.layer: loss.change for loss in losses}


def export_dense(task: str, form_is_tflite: bool, options: Namespace) -> None:
    """Write the artifacts of a detector or segmenter and print where to.

    Args:
        task: Task, `"detection"` or `"segmentation"`.
        form_is_tflite: Whether TFLite files are asked for.
        options: Options of `kmlp export`.

    Raises:
        InputError: If there are options that do not go with such a model.
    """
    _check_dense(task, form_is_tflite, options)
    path = locate(options.model, options.weights)
    model = load_checkpoint(path)
    if not form_is_tflite:
        print(write_saved_model(model, options.output, not options.train_form))
        return
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        shape = (*model.preprocessing.canvas, shape[-1])
    quantize = tuple(dict.fromkeys(options.quantize or ("none",)))
    targets = _targets(path, options.output, quantize)
    for target in targets.values():
        refuse_existing(target, options.overwrite)
    for name, target in targets.items():
        written = write_tflite(
            model,
            target,
            merge=not options.train_form,
            quantize=None if name == "none" else name,
            input_shape=shape,
            overwrite=options.overwrite,
        )
        print(written, flush=True)


def _check_dense(task, form_is_tflite, options):
    received = f"Received: {str(options.model)!r}"
    if form_is_tflite and task == DETECTION:
        raise InputError(
            "A detector is served as a SavedModel: TFLite has no operations for its "
            f"decoding and suppression. {received}"
        )
    for name in (*_CLASSIFIERS_ONLY, *options.preparation, "class_names"):
        if getattr(options, name) is not None:
            flag = {"test_interpolation": "interpolation"}.get(name, name)
            raise InputError(
                f"--{flag.replace('_', '-')} goes with a classifier; of a detector or "
                "segmenter the checkpoint says how pictures are prepared. Figures come "
                f"from training/evaluate_dense.py. {received}"
            )
    for name in options.quantize or ():
        if name not in DENSE_QUANTIZE:
            raise InputError(
                f"--quantize of segmenters is one of {', '.join(DENSE_QUANTIZE)}. "
                f"Received: {name}"
            )
