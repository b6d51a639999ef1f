"""`kmlp export`: a checkpoint for serving or edge."""

from pathlib import Path

from kmlp.commands.arguments import (
    Parser,
    add_dense,
    add_preparation,
    points,
    positive,
)
from kmlp.console import import_quietly
from kmlp.errors import InputError

SAVED_MODEL, TFLITE = "saved_model", "tflite"
FORMATS = (SAVED_MODEL, TFLITE, "litert", "onnx", "openvino")
PRECISIONS = ("float32", "bfloat16", "float16", "dynamic", "int8")
CALIBRATION_IMAGES = 200
# Formats of one file, by its suffix, and other names of formats and precisions.
_SUFFIXES = {".tflite": TFLITE, ".onnx": "onnx"}
_ALIASES = {"litert": TFLITE, "none": "float32"}


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.description = (
        "Writes a checkpoint for other runtimes: as the next version of a SavedModel "
        "or OpenVINO model, as TFLite (LiteRT) or ONNX files. Each is run over "
        "validation images and compared with the trained model before it is published."
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        type=Path,
        help="a .keras checkpoint, a run's version folder or a folder of versions",
    )
    add(
        "output",
        metavar="OUTPUT",
        type=Path,
        nargs="?",
        help="a folder of versions; a .tflite or .onnx file; a folder for several "
        "forms (default of files: beside the checkpoint)",
    )
    add(
        "--format",
        choices=FORMATS,
        nargs="+",
        help="default: as OUTPUT says; litert is tflite by its new name",
    )
    add(
        "--precision",
        "--quantize",
        choices=(*PRECISIONS, "none"),
        nargs="+",
        help="one artifact for each that the format has (default: float32): bfloat16 "
        "of saved_model and openvino, float16 and dynamic of tflite, int8 of tflite "
        "and openvino",
    )
    add(
        "--data",
        metavar="digits|FOLDER|tfds:NAME",
        help="validation images to run them on, and for int8 training images "
        "(default: the data that the run was trained on, if it is at hand)",
    )
    add(
        "--representative",
        metavar="FOLDER",
        type=Path,
        help="of int8: any images, in place of training images",
    )
    add(
        "--calibration-images",
        type=positive,
        default=CALIBRATION_IMAGES,
        metavar="N",
        help=f"of int8 (default: {CALIBRATION_IMAGES})",
    )
    add("--images", type=positive, metavar="N", help="at most N validation images")
    add(
        "--max-drop",
        type=points,
        metavar="POINTS",
        help="of top-1 against float32 that an artifact may lose (default: float16 "
        "0.1, bfloat16 and dynamic 0.3, int8 1.0); one that loses more is not written",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    add(
        "--batch",
        type=_batch,
        default=1,
        metavar="N|any",
        help="images that a TFLite file takes at once (default: 1); other forms take "
        "any number",
    )
    add("--overwrite", action="store_true", help="replace files; versions never are")
    add("--train-form", action="store_true", help="export without merging")
    add_dense(add)
    add(
        "--weights",
        choices=("trained", "best"),
        default="trained",
        help="of a run's folder (default: trained, those of its end)",
    )
    add(
        "--class-names",
        type=Path,
        metavar="FILE",
        help="one name per line, or a JSON list (default: the run's)",
    )
    parser.set_defaults(job=_run, preparation=add_preparation(parser))


def _batch(text):
    """Return a number of images, `None` for any."""
    return None if text == "any" else positive(text)


def _run(options):
    formats, precisions = _said(options)
    if options.dense and options.train_form:
        raise InputError(
            "--dense is a choice of merging: leave out --train-form, or --dense. "
            f"Received: --dense {options.dense} --train-form"
        )
    import_quietly()
    from kmlp.predicting.dense_network import task_of

    task = task_of(options.model)
    from kmlp.export import forms

    if task is not None:
        known = forms.DENSE_PRECISIONS
        forms.export_dense(task, forms.chosen(formats, precisions, known), options)
        return
    wanted = forms.chosen(formats, precisions)
    from kmlp.export.starting_point import open_checkpoint

    checkpoint = open_checkpoint(
        options.model,
        weights=options.weights,
        given={name: getattr(options, name) for name in options.preparation},
        class_names=options.class_names,
    )
    forms.export(checkpoint, options.output, wanted, options)


def _said(options):
    """Return formats and precisions, by their names or by OUTPUT."""
    formats, precisions = (
        tuple(dict.fromkeys(_ALIASES.get(name, name) for name in names or ()))
        for names in (options.format, options.precision)
    )
    if not formats:
        suffix = options.output.suffix if options.output is not None else None
        # As files had them before there were other formats.
        files = {"float16", "dynamic", "int8"} & {*precisions}
        default = (
            TFLITE if files or "none" in (options.precision or ()) else SAVED_MODEL
        )
        formats = (_SUFFIXES.get(suffix, default),)
    if options.output is None and not {*formats} <= {*_SUFFIXES.values()}:
        raise InputError(
            "A SavedModel or OpenVINO model needs OUTPUT, the folder of its versions; "
            "--format tflite and onnx write beside the checkpoint. "
            f"Received: {str(options.model)!r} alone"
        )
    return formats, precisions or ("float32",)
