"""`kmlp export` of detectors and segmenters."""

from pathlib import Path

from kmlp.artifacts.locating import locate_checkpoint, newest
from kmlp.errors import InputError
from kmlp.export.device_files import targets_of
from kmlp.export.evidence import refuse_existing
from kmlp.export.offer import DETECTION
from kmlp.export.saved_model import saved_model as write_saved_model
from kmlp.export.tflite import tflite as write_tflite
from kmlp.pretrained.restoring import load_checkpoint

QUANTIZE = ("none", "float16", "dynamic")
# Options of `kmlp export` that go with classifiers alone, beside the preparation.
_CLASSIFIERS_ONLY = ("data", "representative", "images", "max_drop", "json")


def export_dense(task, form_is_tflite, options):
    """Writes the artifacts and prints where to.

    Args:
        task: `"detection"` or `"segmentation"`.
        form_is_tflite: whether TFLite files are asked for.
        options: of `kmlp export`.

    Raises:
        InputError: options that do not go with such a model.
    """
    _check(task, form_is_tflite, options)
    path = _located(options)
    model = load_checkpoint(path)
    if not form_is_tflite:
        print(write_saved_model(model, options.output, not options.train_form))
        return
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        shape = (*model.preprocessing.canvas, shape[-1])
    quantize = tuple(dict.fromkeys(options.quantize or ("none",)))
    targets = targets_of(path, options.output, quantize)
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


def _check(task, form_is_tflite, options):
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
        if name not in QUANTIZE:
            raise InputError(
                f"--quantize of segmenters is one of {', '.join(QUANTIZE)}. "
                f"Received: {name}"
            )


def _located(options):
    path = Path(options.model).expanduser()
    if options.weights == "trained" or not path.is_dir():
        return locate_checkpoint(path)
    return locate_checkpoint(newest(path) / f"{options.weights}.keras")
