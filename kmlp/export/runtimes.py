"""Write ONNX files and OpenVINO models."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras

from kmlp.artifacts import agreement, onnx_file, openvino_model, origin
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.running import input_specs, named_outputs
from kmlp.atomic import new_file, new_version
from kmlp.console import first_line, quiet
from kmlp.errors import InputError, KmlpError, RunError, check_choice
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
from kmlp.export.saved_model import write_class_names, write_saved_model
from kmlp.export.tflite import all_images
from kmlp.preprocessing import Preprocessing

PRECISIONS = tuple(openvino_model.HINTS)


@outside_strategy
def onnx(
    model: keras.Model,
    path: str | os.PathLike,
    merge: bool = True,
    input_shape: Sequence[int] | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
    dense: str | None = None,
) -> Path:
    """Write a model as an ONNX file for batches of any size.

    Keras' own export writes it. It takes float32 images as the Keras model does and
    gives the names of `kmlp.export.saved_model`; ONNX Runtime runs it before it is
    published. The file carries its origin: `kmlp.artifacts.origin.read(path)`.

    Args:
        model: Built `keras.Model` with one input; it is left untouched.
        path: Path of the file; it appears as a whole at the end.
        merge: Whether the model's inference form (`kmlp.merge`) is written.
        input_shape: Shape `(H, W, C)` of the file; `None`: the model's own, in which
            sizes may be open.
        preprocessing: How images are prepared, for the origin.
        class_names: Names in the order of the outputs, for the origin; `None`: those
            of `preprocessing`.
        overwrite: Whether an existing file is replaced, in one step at the end.
        dense: Convolutions that become fully connected layers, as in `kmlp.merge`.

    Returns:
        The `pathlib.Path` of the file.

    Raises:
        InputError: If the model is not built, there are other names than outputs, or a
            layer holds what no form of it would (`kmlp.merge`).
        FileExistsError: If there is a file, and `overwrite` is false.
        OSError: If `path` cannot be written.
        RunError: If ONNX lacks an operation, or the file does not equal the model.
        ImportError: If `onnx`, `onnxruntime` or `tf2onnx` is not installed.
    """
    check_model(model)
    check_dense(merge, dense)
    path = Path(path).expanduser()
    refuse_existing(path, overwrite)
    try:  # before any work
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401, which Keras' export stands on
    except ImportError:
        raise onnx_file.needed("onnx", path) from None
    known = described(model, merge, preprocessing, class_names)
    model = in_float32(model)
    with named_failures(path), new_file(path) as file:
        form, entry = in_dense_form(model, merge, dense)
        _write_onnx(form, file, input_shape)
        origin.write(
            file,
            known,
            artifact={"kind": "ONNX", "precision": "float32"},
            dense=entry,
            equality=agreement.compare_artifact(
                model, onnx_file.load(file), exact=True
            ),
            audit=audited(file),
        )
    return path


def _write_onnx(model, file, input_shape):
    import onnx

    (spec,) = specs = input_specs(model, input_shape=input_shape)
    with _converting("ONNX", model):
        model.export(file, format="onnx", verbose=False, input_signature=specs)
    made = onnx.load(file)
    # The converter names both as the graph of TensorFlow did.
    names = {made.graph.input[0].name: spec.name}
    outputs = named_outputs(model.output)
    names |= {v.name: name for v, name in zip(made.graph.output, outputs)}
    for value in (*made.graph.input, *made.graph.output):
        value.name = names[value.name]
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].dim_value:
            sizes[0].dim_param = "batch"
    for node in made.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    made.graph.name = model.name
    onnx.checker.check_model(made)
    onnx.save(made, file)


@contextlib.contextmanager
def _converting(runtime, model):
    """Say in one line that a converter does not take a part of the model."""
    try:
        with quiet(everything=True):
            yield
    except (KmlpError, ImportError, OSError):
        raise
    except Exception as error:  # of many kinds
        raise RunError(
            f"{runtime}'s converter does not take this model: export a SavedModel or "
            f"TFLite file. Received: {model.name!r} ({first_line(error)[:200]})"
        ) from error


@outside_strategy
def openvino(
    model: keras.Model,
    path: str | os.PathLike,
    merge: bool = True,
    precision: str = "float32",
    representative_data: Iterable | None = None,
    input_shape: Sequence[int] | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    dense: str | None = None,
) -> Path:
    """Write a model as the next version of an OpenVINO model.

    OpenVINO's own reader converts the SavedModel. Versions are laid out as OpenVINO
    Model Server loads them: `path/VERSION/model.xml`. Inputs and outputs are float32
    in every precision, the batch is free.

    Args:
        model: Built `keras.Model` with one input; it is left untouched.
        path: Folder of the versions; the new one is an integer one above the highest.
        merge: Whether the model's inference form (`kmlp.merge`) is written.
        precision: Precision that it is computed in: `"float32"`; `"bfloat16"`, whose
            weights are stored in half the bytes, and which the caller asks for as
            `INFERENCE_PRECISION_HINT`; or `"int8"`, quantised by NNCF.
        representative_data: For `"int8"`, images as the model takes them, as in
            `kmlp.export.tflite`.
        input_shape: Shape `(H, W, C)`, for models of unknown height and width.
        preprocessing: How images are prepared, for the origin.
        class_names: Names in the order of the outputs; `None`: those of
            `preprocessing`.
        dense: Convolutions that become fully connected layers, as in `kmlp.merge`.

    Returns:
        The `pathlib.Path` of the version.

    Raises:
        InputError: If the precision is unknown, data are missing or misshapen, the
            model is not built, there are other names than outputs, or a layer holds
            what no form of it would (`kmlp.merge`).
        OSError: If `path` cannot be written.
        RunError: If OpenVINO lacks an operation, or the model of float32 does not
            equal the trained one.
        ImportError: If `openvino`, or for int8 `nncf`, is not installed.
    """
    check_model(model)
    check_dense(merge, dense)
    check_choice(PRECISIONS, precision=precision)
    if (precision == "int8") != (representative_data is not None):
        raise InputError(
            "`representative_data` shows int8 the ranges of the activations: it goes "
            f"with precision='int8' and with no other. Received: {precision!r}"
        )
    (spec,) = input_specs(model, input_shape=input_shape)
    images = None
    if representative_data is not None:
        images = all_images(representative_data, tuple(spec.shape[1:]))
    path = Path(path).expanduser()
    library = openvino_model.library(path)
    if images is not None:
        try:
            import nncf  # noqa: F401
        except ImportError:
            raise onnx_file.needed("openvino", path) from None
    known = described(model, merge, preprocessing, class_names)
    model = in_float32(model)
    with named_failures(path), new_version(path) as draft:
        with tempfile.TemporaryDirectory() as source, _converting("OpenVINO", model):
            form, entry = in_dense_form(model, merge, dense)
            shape = tuple(spec.shape[1:])
            spelled: Any = contextlib.nullcontext()
            if images is not None:
                form = equalised(form, images)
                # It has a norm as one operation, squares and all.
                spelled = spelled_for_integers(form, norms=False)
            with spelled:
                write_saved_model(form, source, input_shape=shape, warmup=False)
            made = library.convert_model(source)
            if images is not None:
                made = _quantised(made, images)
            library.save_model(
                made,
                draft.folder / openvino_model.GRAPH,
                compress_to_fp16=precision == "bfloat16",
            )
        write_class_names(draft.folder, known["class_names"])
        runner = openvino_model.load(draft.folder, precision=precision)
        origin.write(
            draft.folder,
            known,
            artifact={
                "kind": "OpenVINO",
                "precision": precision,
                "calibration_images": None if images is None else len(images),
            },
            dense=entry,
            equality=agreement.compare_artifact(
                model, runner, images=images, exact=precision == "float32"
            ),
            audit=audited(draft.folder),
        )
    return draft.path


def _quantised(made, images):
    """Return a model with the ranges that its activations have on images."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([image[None] for image in images])
    preset = nncf.QuantizationPreset.MIXED
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(made, data, preset=preset, subset_size=len(images))
