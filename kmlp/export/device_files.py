"""What a person sees of an export."""

import json
import shutil
import tempfile
from pathlib import Path

from kmlp.artifacts import origin
from kmlp.artifacts.form_figures import FLOAT32, TRAINED, compare
from kmlp.artifacts.running import input_specs
from kmlp.artifacts.speed import THREADS, latencies
from kmlp.atomic import check_writable, new_file
from kmlp.console import aligned, progress_bar
from kmlp.errors import InputError, RunError
from kmlp.export.device_spelling import equalised
from kmlp.export.evidence import named_failures, refuse_existing
from kmlp.export.layer_losses import layer_losses
from kmlp.export.offer import names_of
from kmlp.export.saved_model import inference_form
from kmlp.export.tflite import check_options
from kmlp.export.tflite import tflite as write_tflite
from kmlp.export.trial_images import calibration_images, open_images

_WITH_IMAGES = ("top-1", "drop", "disagree", "largest logit error")


def table(forms, evaluated):
    """Aligned text with a row per form.

    Args:
        forms: `{name: entry}` as in the job's JSON.
        evaluated: whether images were shown to them.
    """
    header = ("", *_WITH_IMAGES) if evaluated else ("",)
    header += ("bytes", "share", *(f"ms, {n} thr." for n in THREADS), "FC only")
    rows = [header]
    for name, form in forms.items():
        row = (_TITLES.get(name, f"TFLite {name}"),)
        if evaluated:
            row += (
                f"{form['top1']:.2%}",
                f"{form['drop_points']:+.2f}" if name != FLOAT32 else "",
                f"{form['disagreements']:,}" if name != FLOAT32 else "",
                _error(form) if name != FLOAT32 else "",
            )
        if name == TRAINED:
            row += (f"{form['bytes']:,}", "", *("" for _ in THREADS), "")
        else:
            row += (
                f"{form['bytes']:,}",
                f"{form['share_of_float32']:.1%}",
                *(f"{form['latency_ms'][n]:.2f}" for n in THREADS),
                "yes" if form["fully_connected_only"] else "no",
            )
        rows.append(row)
    return aligned(rows)


def losses_table(name, losses):
    """The layers that lose most, as aligned text."""
    width = max(len(loss.layer) for loss in losses)
    lines = [f"{loss.layer:<{width}}  {loss.change:8.2%}" for loss in losses]
    head = f"{name}: change of the outputs by one layer alone (RMS), the worst first"
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _error(form):
    absolute, relative = form["largest_logit_error"], form["relative_logit_error"]
    return "not finite" if absolute is None else f"{absolute:.3g} ({relative:.2%})"


_TITLES = {TRAINED: "Keras, trained"}


# Points of top-1 that a quantisation may lose, where nothing else is asked.
MAX_DROP = {"none": 0.0, "float16": 0.1, "dynamic": 0.3, "int8": 1.0}
SUFFIX = ".tflite"
WORST = 5  # layers that are named
FEW = 16  # images that layers are tried on where none are given


def export_tflite(checkpoint, output, quantize, options):
    """Writes, runs and publishes the files; prints the table.

    Args:
        checkpoint: `kmlp.export.source_checkpoint.Checkpoint`.
        output: of the command line: a `.tflite` file, a folder, or `None`.
        quantize: keys of `MAX_DROP`.
        options: of `kmlp export`.

    Raises:
        InputError: input that cannot be worked with, or, with exit code 1, a file that
            loses more than it may.
    """
    model = checkpoint.model
    targets = targets_of(checkpoint.path, output, quantize)
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
        forms = _measured(checkpoint, files, images)
        print(table(forms, images is not None), flush=True)
        refused = _refused(forms, options.max_drop) if images is not None else {}
        for name in refused:
            forms[name]["layers"] = _worst(model, name, shown, images, options)
        published = {}
        for name in (name for name in targets if name not in refused):
            _complete(files[name], name, forms, images, source)
            with named_failures(targets[name]), new_file(targets[name]) as file:
                shutil.copyfile(files[name], file)
            published[name] = str(targets[name])
            print(targets[name])
    _report(checkpoint, forms, published, images, source, options.json)
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


def targets_of(path, output, quantize):
    """`{quantisation: path to write}`.

    Args:
        path: of the checkpoint.
        output: of the command line: a `.tflite` file, a folder, or `None`.
        quantize: keys of `MAX_DROP`.

    Raises:
        InputError: several files for one name, or a file where a folder should be.
    """
    stem = "model" if path.stem == "trained" else path.stem
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
    names = {name: FLOAT32 if name == "none" else name for name in quantize}
    return {name: folder / f"{stem}.{names[name]}{SUFFIX}" for name in quantize}


def _check(checkpoint, targets, options):
    """Everything that can be refused before the work."""
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
    """The shape to export at where the model leaves its sizes open."""
    shape = tuple(checkpoint.model.inputs[0].shape[1:])
    size = checkpoint.prepared.image_size
    if None not in shape or size is None or len(shape) != 3:
        return None
    return (size, size, shape[-1])


def _written(checkpoint, folder, targets, shown, options):
    """`{quantisation: path}` of unpublished files, float32's always among them."""
    names = tuple(dict.fromkeys(("none", *targets)))
    files = {}
    with progress_bar(len(names), "file", desc="converting") as bar:
        for name in names:
            files[name] = write_tflite(
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


def _measured(checkpoint, files, images):
    """The figures of every form, by its name in tables."""
    named = {FLOAT32 if n == "none" else n: path for n, path in files.items()}
    forms = {}
    if images is not None:
        figures = compare(checkpoint.model, named, images)
        forms = {n: f.as_json(figures[FLOAT32]) for n, f in figures.items()}
    forms.setdefault(TRAINED, {})["bytes"] = checkpoint.path.stat().st_size
    milliseconds = latencies(named)
    yardstick = named[FLOAT32].stat().st_size
    for name, path in named.items():
        size = path.stat().st_size
        forms.setdefault(name, {}).update(
            bytes=size,
            share_of_float32=size / yardstick,
            latency_ms=milliseconds[name],
            **origin.read(path)["audit"],
        )
    return forms


def _refused(forms, max_drop):
    """`{quantisation: (drop, allowed)}` of those that lose too much."""
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
    """Prints and returns the layers that lose most."""
    if shown is None:
        shown = next(images.batches())[0][:FEW]
    form = inference_form(model, not options.train_form)
    if name == "int8":
        form = equalised(form, shown)
    losses = layer_losses(form, shown, name)[:WORST]
    print(losses_table(name, losses), flush=True)
    return {loss.layer: loss.change for loss in losses}


def _complete(file, name, forms, images, source):
    """Puts what was measured into a file's origin."""
    entries = {"calibration": source} if name == "int8" else {}
    if images is not None:
        form = forms[FLOAT32 if name == "none" else name]
        entries["accuracies"] = {
            "data": images.name,
            "images": images.count,
            "trained_top1": forms[TRAINED]["top1"],
            "float32_top1": forms[FLOAT32]["top1"],
            **{key: form[key] for key in _ACCURACIES},
        }
    origin.add(file, **entries)


_ACCURACIES = (
    "top1",
    "drop_points",
    "disagreements",
    "largest_logit_error",
    "relative_logit_error",
)


def _report(checkpoint, forms, published, images, source, path):
    """Writes the job's JSON where it was asked for."""
    if path is None:
        return
    report = {
        "model": str(checkpoint.path),
        "data": None if images is None else images.name,
        "images": None if images is None else images.count,
        "calibration": source,
        "forms": forms,
        "published": published,
    }
    with named_failures(path), new_file(path) as file:
        file.write_text(json.dumps(report, indent=2) + "\n")
