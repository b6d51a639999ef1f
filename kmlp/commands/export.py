"""`kmlp export`: a checkpoint for serving or edge."""

from pathlib import Path

from kmlp.commands.arguments import Parser, add_preparation, points, positive
from kmlp.console import import_quietly
from kmlp.errors import InputError

SAVED_MODEL, TFLITE = "saved_model", "tflite"
QUANTIZE = ("none", "float16", "dynamic", "int8")
CALIBRATION_IMAGES = 200
# What only goes with a TFLite file.
_TFLITE_ONLY = ("quantize", "data", "representative", "images", "max_drop", "json")


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.description = (
        "Writes a checkpoint as the next version of a SavedModel, or as "
        "TFLite files, each of which is run over validation images before it is "
        "published."
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
        help="a folder of versions; a .tflite file, or a folder for several of them "
        "(default of TFLite: beside the checkpoint)",
    )
    add("--format", choices=(SAVED_MODEL, TFLITE), help="default: as OUTPUT says")
    add(
        "--quantize",
        choices=QUANTIZE,
        nargs="+",
        help="one TFLite file for each (default: none, which is float32)",
    )
    add(
        "--data",
        metavar="digits|FOLDER|tfds:NAME",
        help="validation images to run the files on, and for int8 training images "
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
        help="of top-1 against float32 that a file may lose (default: float16 0.1, "
        "dynamic 0.3, int8 1.0); one that loses more is not written",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    add("--overwrite", action="store_true", help="replace .tflite files")
    add("--train-form", action="store_true", help="export without merging")
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


def _run(options):
    form = _form(options)
    import_quietly()
    from kmlp.predicting.dense_network import task_of

    if (task := task_of(options.model)) is not None:
        from kmlp.export.device_files import export_dense

        export_dense(task, form == TFLITE, options)
        return
    from kmlp.export.starting_point import open_checkpoint

    checkpoint = open_checkpoint(
        options.model,
        weights=options.weights,
        given={name: getattr(options, name) for name in options.preparation},
        class_names=options.class_names,
    )
    if form == SAVED_MODEL:
        from kmlp.export.saved_model import saved_model

        written = saved_model(
            checkpoint.model,
            options.output,
            merge=not options.train_form,
            preprocessing=checkpoint.preprocessing,
            class_names=checkpoint.prepared.class_names,
        )
        print(written)
        return
    from kmlp.export.device_files import export_tflite

    quantize = tuple(dict.fromkeys(options.quantize or ("none",)))
    export_tflite(checkpoint, options.output, quantize, options)


def _form(options):
    """Return the format, by its name or by OUTPUT and what else was said."""
    output, said = options.output, options.format
    tflite_like = output is not None and output.suffix == ".tflite"
    if said is None:
        said = TFLITE if tflite_like or options.quantize else SAVED_MODEL
    if said == SAVED_MODEL:
        if output is None:
            raise InputError(
                "A SavedModel needs OUTPUT, the folder of its versions; --format "
                "tflite writes beside the checkpoint. "
                f"Received: {str(options.model)!r} alone"
            )
        extra = [
            f"--{name.replace('_', '-')}"
            for name in _TFLITE_ONLY
            if getattr(options, name) is not None
        ]
        if tflite_like or extra:
            raise InputError(
                "A SavedModel goes into a folder of versions and is not quantised; "
                f"choose --format tflite for {', '.join(extra) or 'a .tflite file'}. "
                f"Received: OUTPUT {str(output)!r}"
            )
    return said
