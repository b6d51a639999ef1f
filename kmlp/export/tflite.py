"""Write TFLite files without what no interpreter reads."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp.artifacts import agreement, origin
from kmlp.artifacts.flatbuffer import packed, unpacked
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.runner import in_batches
from kmlp.artifacts.running import ANY_BATCH, batch_of, input_specs, load_tflite
from kmlp.atomic import new_file
from kmlp.console import quiet
from kmlp.errors import InputError, RunError, check_choice, check_positive
from kmlp.export.device_spelling import equalised, spelled_for_integers
from kmlp.export.groundwork import (
    check_dense,
    check_model,
    described,
    in_dense_form,
    in_float32,
    named_failures,
    outside_strategy,
    refuse_existing,
)
from kmlp.export.saved_model import write_saved_model
from kmlp.keras_internals import flat_layers
from kmlp.preprocessing import Preprocessing
from kmlp.typing import PathLike


def compact(file: PathLike) -> None:
    """Shorten a TFLite file's names and store what is equal once.

    The converter names a tensor after all the operations that it fused or unrolled,
    which in a small int8 file takes as much room as a tenth of the weights; the first
    of them says where the tensor belongs. Inputs and outputs keep their names.

    Args:
        file: Path of the file, which is written anew.
    """
    content = Path(file).read_bytes()
    model = unpacked(content)
    for subgraph in model.subgraphs:
        ends = {*subgraph.inputs, *subgraph.outputs}
        names = {subgraph.tensors[index].name for index in ends}
        for index, tensor in enumerate(subgraph.tensors):
            if index not in ends and tensor.name:
                tensor.name = _unused(tensor.name.lstrip(b";").split(b";")[0], names)
                names.add(tensor.name)
    Path(file).write_bytes(packed(model, len(content)))


def _unused(name, names):
    """Return the name, with a number where another tensor has it."""
    number, candidate = 1, name
    while candidate in names:
        number += 1
        candidate = b"%s:%d" % (name, number)
    return candidate


QUANTIZATIONS = (None, "float16", "dynamic", "int8")


@outside_strategy
def tflite(
    model: keras.Model,
    path: str | os.PathLike,
    merge: bool = True,
    quantize: str | None = None,
    representative_data: Iterable | None = None,
    batch_size: int | None = 1,
    input_shape: tuple[int, int, int] | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
    dense: str | None = None,
) -> Path:
    """Write a model as a TFLite file.

    Inputs and outputs are float32 in every quantisation, so that the artifact takes
    what the Keras model takes. The file carries its origin, with its difference from
    the trained model and its operations: `kmlp.artifacts.origin.read(path)`.

    Args:
        model: Built `keras.Model` with one input; it is left untouched.
        path: Path of the file; it appears as a whole at the end.
        merge: Whether the model's inference form (`kmlp.merge`) is written.
        quantize: Quantisation: `None` (float32), `"float16"` (weights), `"dynamic"`
            (int8 weights, activations quantised as they come) or `"int8"` (both, with
            ranges from `representative_data`).
        representative_data: For `"int8"`, images as the model takes them: an array,
            or an iterable of batches or of tuples that begin with one, such as a
            `tf.data.Dataset`; about a hundred images do.
        batch_size: Images that the file takes at once; `None`: any number, after
            `resize_tensor_input`, and 1 before. Of a file with a number the origin
            says whether it takes others too (`batch`).
        input_shape: Shape `(H, W, C)` of the file, for models of unknown height and
            width.
        preprocessing: How images are prepared, for the origin.
        class_names: Names in the order of the outputs, for the origin; `None`: those
            of `preprocessing`.
        overwrite: Whether an existing file is replaced, in one step at the end.
        dense: Convolutions that become fully connected layers, as in `kmlp.merge`.

    Returns:
        The `pathlib.Path` of the file.

    Raises:
        InputError: If `quantize` is unknown, data are missing or misshapen, a size is
            unknown or contradicts the model's, there are other names than outputs, the
            model is not built or quantized already, or a layer holds what no form of
            it would (`kmlp.merge`).
        FileExistsError: If there is a file, and `overwrite` is false.
        OSError: If `path` cannot be written.
        RunError: If TFLite lacks an operation, the int8 file does not run, or the
            float32 file does not equal the model, or it takes one batch alone where
            `batch_size` is `None`.
    """
    check_model(model)
    check_dense(merge, dense)
    options = check_options(
        model, quantize, representative_data, batch_size, input_shape
    )
    known = described(model, merge, preprocessing, class_names)
    path = Path(path).expanduser()
    refuse_existing(path, overwrite)
    model = in_float32(model)
    images = options["representative_data"]
    with named_failures(path), new_file(path) as file:
        form, entry = in_dense_form(model, merge, dense)
        write_tflite(form, file, **options)
        batch = batch_of(file)
        if batch_size is None and batch != ANY_BATCH:
            raise RunError(
                "This model's file takes images one by one: a layer's shapes hold "
                "the batch. Pass `batch_size`, the number that you need. Received: "
                f"{model.name!r} with batch_size=None"
            )
        origin.write(
            file,
            known,
            artifact={
                "kind": "TFLite",
                "quantize": quantize,
                "input_shape": [batch_size, *options["input_shape"]],
                "batch": batch,
                "calibration_images": None if images is None else len(images),
            },
            equality=agreement.compare_artifact(
                model, load_tflite(file), images=images, exact=quantize is None
            ),
            dense=entry,
            audit=audited(file),
        )
    return path


def check_options(
    model: keras.Model,
    quantize: str | None = None,
    representative_data: Iterable | None = None,
    batch_size: int | None = 1,
    input_shape: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return the options of `write_tflite`, checked before any expensive work.

    Raises:
        InputError: As `tflite` does.
    """
    check_choice(QUANTIZATIONS, quantize=quantize)
    if quantize == "int8" and representative_data is None:
        raise InputError(
            "quantize='int8' needs `representative_data`, an iterable of image "
            "batches that shows the ranges of the activations. Received: None"
        )
    if batch_size is not None:
        check_positive(batch_size=batch_size)
    modes = {layer.quantization_mode for layer in flat_layers(model)} - {None}
    if modes:
        raise InputError(
            "TFLite files have a quantization of their own: export the model as it is "
            "before quantize(), with quantize='dynamic' or 'int8'. "
            f"Received: {model.name!r}, quantized to {', '.join(sorted(modes))}"
        )
    if isinstance(getattr(model, "output", None), dict):
        raise InputError(
            "A detector is served as a SavedModel: TFLite has no operations for its "
            "decoding and suppression. Segmenters and classifiers become TFLite files. "
            f"Received: {model.name!r}"
        )
    specs = input_specs(model)
    if len(specs) != 1:
        raise InputError(
            "A TFLite export takes a model with one input. "
            f"Received: inputs {[spec.name for spec in specs]}"
        )
    own = tuple(specs[0].shape[1:])
    shape = own if input_shape is None else tuple(input_shape)
    if None in shape:
        raise InputError(
            f"The sizes in a TFLite file are fixed and this model's are not ({own}): "
            "pass `input_shape=(height, width, channels)`. "
            f"Received: input_shape={input_shape}"
        )
    if len(shape) != len(own) or any(o not in (None, s) for o, s in zip(own, shape)):
        raise InputError(
            f"`input_shape` must agree with the model's, {own}. "
            f"Received: input_shape={input_shape}"
        )
    data = all_images(representative_data, shape) if quantize == "int8" else None
    return {
        "quantize": quantize,
        "representative_data": data,
        "batch_size": batch_size,
        "input_shape": shape,
    }


def write_tflite(
    model: keras.Model,
    file: Path,
    *,
    quantize: str | None,
    representative_data: Any,
    batch_size: int | None,
    input_shape: Sequence[int],
) -> None:
    """Convert a float32 model, as it is, and write the file.

    Args:
        model: Model from `inference_form`.
        file: Path of the file.

    The others come from `check_options`.
    """
    if quantize == "int8":
        model = equalised(model, representative_data)
    # A separate SavedModel: converting the Keras model's function directly yields inf
    # and NaN. Its batch is static where it may be: a free one costs some reshapes.
    integers = quantize in ("dynamic", "int8")
    spelled = spelled_for_integers(model) if integers else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, quiet():
        with spelled:
            write_saved_model(
                model, folder, batch_size=batch_size, input_shape=input_shape
            )
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: (
                [batch] for batch in in_batches(representative_data, batch_size or 1)
            )
        content = _convert(converter)
    Path(file).write_bytes(content)
    compact(file)
    if quantize == "int8":
        _check_runs(file, representative_data[:1])


def _convert(converter):
    """Return the file's content; a failure names operations instead of the graph."""
    try:
        return converter.convert()
    except Exception as error:
        # The converter's own class carries the whole graph as its message.
        found = re.search(r"(?:Select|Custom) ops: (.+)", str(error))
        if found is None:
            raise
        raise RunError(
            "TFLite has no operation for a part of this model; write it with others "
            f"in the layer's `call`. Received: {found[1]}"
        ) from None


def _check_runs(file, images):
    """Raise `RunError` where the delegate of the CPU refuses the file."""
    try:
        load_tflite(file)(images)
    except RuntimeError as error:
        raise RunError(
            "The int8 file does not run: an activation that is constant over "
            "`representative_data` (a dead ReLU, say) has no range to quantise. Give "
            f"more varied data, or take quantize='dynamic'. Received: {error}"
        ) from error


def all_images(data, shape):
    """Return all images of an array or an iterable of batches as one float32 array."""
    batches = []
    for batch in [data] if hasattr(data, "shape") else data:
        batch = batch[0] if isinstance(batch, (tuple, list)) else batch
        batch = np.asarray(batch, "float32")
        if batch.shape[1:] != shape:
            raise InputError(
                f"`representative_data` must hold batches of images {shape}. "
                f"Received: a batch of shape {batch.shape}"
            )
        batches.append(batch)
    if not sum(len(batch) for batch in batches):
        raise InputError(
            "`representative_data` must hold at least one image. Received: none"
        )
    return np.concatenate(batches)
