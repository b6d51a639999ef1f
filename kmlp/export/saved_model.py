"""Write SavedModels as TensorFlow Serving loads them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kmlp.artifacts import agreement, origin
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.running import input_specs, load_saved_model, serving_function
from kmlp.atomic import new_version
from kmlp.console import quiet
from kmlp.errors import check_choice
from kmlp.export import warmup as warming
from kmlp.export.groundwork import (
    check_dense,
    check_model,
    in_bfloat16,
    in_dense_form,
    in_float32,
    named_failures,
    outside_strategy,
)
from kmlp.export.offer import offer
from kmlp.export.serving_signatures import signatures
from kmlp.preprocessing import DensePreprocessing, Preprocessing
from kmlp.typing import PathLike

# Files that a server copies beside the model: names, warm-up requests, the origin.
EXTRA = origin.FOLDER
CLASS_NAMES = "class_names.txt"
PRECISIONS = ("float32", "bfloat16")


@outside_strategy
def saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    merge: bool = True,
    *,
    preprocessing: Preprocessing | DensePreprocessing | None = None,
    class_names: Sequence[str] | None = None,
    top_k: int = 5,
    warmup: bool = True,
    precision: str = "float32",
    dense: str | None = None,
) -> Path:
    """Write a model as the next version of a SavedModel.

    The signatures share one network and its variables. `serving_default` takes
    float32 images, exactly what the Keras model takes, with the batch free; sizes that
    the model leaves open stay open. It gives `output_0`, or the model's own names.

    `serving_bytes`, with `preprocessing`, gives the same for `image_bytes`: `(N,)`
    JPEGs, PNGs, WebPs or BMPs of any size, prepared in the graph by the code that
    evaluation uses. One that cannot be decoded fails its request with
    INVALID_ARGUMENT; `kmlp.data.decode` has the limits.

    `classify`, for models of one output `(N, classes)`, gives the likeliest `classes`
    by name, their `scores` and `indices`, `(N, k)` each, the best first, of
    `image_bytes`, or of images without `preprocessing`. Scores are the softmax of the
    outputs, or the outputs themselves where the model ends in an activation.

    `features`, for models that have `pyramid_outputs`, gives these of images.

    A detector's `serving_default` gives `boxes`, `scores`, `classes` and, where it has
    them, `masks`; decoding and suppression are in the graph. Its `serving_bytes` takes
    pictures of any size and shape, puts them on the canvas as in evaluation, and gives
    `boxes` in each picture's own pixels, cut at its edges; masks lie over
    `whole_boxes`, which are not cut. A segmenter's `serving_default` gives logits; its
    `serving_bytes` gives `classes` of the canvas `(N, H, W)`, 255 beyond the picture,
    whose height and width there are in `shapes`, its own in `sizes`.

    The artifact is float32 whatever policy the model was trained in; with
    `precision="bfloat16"` it computes in bfloat16 and keeps its weights so, in half the
    bytes, while inputs and outputs stay float32. Nothing but the whole version ever
    appears: a killed export leaves none.

    Args:
        model: Built `keras.Model`; it is left untouched.
        path: Folder of the versions; the new one is `path/VERSION`, an integer one
            above the highest there.
        merge: Whether the model's inference form (`kmlp.merge`) is written.
        preprocessing: How images become the model's input, from
            `kmlp.preprocessing.preprocessing_of`, or `DensePreprocessing` of detectors
            and segmenters; `None`: what the model itself knows.
        class_names: Names, one per class, in the order of the outputs; `None`: those of
            `preprocessing`, or else the numbers of the classes.
        top_k: How many classes `classify` answers with, at most.
        warmup: Whether requests are written that a server replays when it loads the
            version; needs `tensorflow-serving-api`.
        precision: Precision that it is computed in, `"float32"` or `"bfloat16"`.
        dense: Convolutions that become fully connected layers, as in `kmlp.merge`.

    Returns:
        The `pathlib.Path` of the version.

    Raises:
        OSError: If `path` is no folder and cannot become one, or is not writable, or
            there is no room.
        RunError: If the artifact does not equal the model.
        InputError: If the model is not built, preprocessing or class names do not fit
            it, the precision is unknown, or a layer holds what no form of it would
            (`kmlp.merge`).
        ImportError: If `warmup` is asked for without `tensorflow-serving-api`.
    """
    check_model(model)
    check_choice(PRECISIONS, precision=precision)
    check_dense(merge, dense)
    options: dict[str, Any] = {
        "preprocessing": preprocessing,
        "class_names": class_names,
        "top_k": top_k,
    }
    offered = offer(model, input_specs(model), **options)
    if warmup:
        warming.check_available()
    with named_failures(path), new_version(path) as draft:
        known = origin.describe(
            model,
            form=origin.MERGED if merge else origin.TRAIN_FORM,
            preprocessing=offered.preprocessing,
            class_names=offered.class_names,
        )
        model = in_float32(model)
        form, entry = in_dense_form(model, merge, dense)
        exact = precision == "float32"
        form = form if exact else in_bfloat16(form)
        write_saved_model(form, draft.folder, warmup=warmup, **options)
        origin.write(
            draft.folder,
            known,
            artifact={"kind": "SavedModel", "precision": precision},
            dense=entry,
            equality=_equality(model, draft.folder, exact),
            audit=audited(draft.folder),
        )
    return draft.path


def _equality(model, folder, exact):
    """Compare the artifact of a model of one input with it."""
    specs = input_specs(model)
    if len(specs) != 1:
        return None
    return agreement.compare_artifact(model, load_saved_model(folder), exact=exact)


def write_saved_model(
    model: keras.Model,
    folder: PathLike,
    *,
    batch_size: int | None = None,
    input_shape: Sequence[int] | None = None,
    warmup: bool = True,
    **options: Any,
) -> None:
    """Write a model into an existing or new folder, as it is.

    Args:
        model: Model from `inference_form`.
        folder: Folder of the SavedModel itself.
        batch_size: Size of the batch; `None` leaves it free.
        input_shape: Shape without batch in place of the model's own; with either, the
            artifact is for a converter: `serving_default` and no more.
        warmup: Whether requests are written that a server replays.
        **options: Options `preprocessing`, `class_names` and `top_k`, as in
            `saved_model`.
    """
    folder = Path(folder)
    specs = input_specs(model, batch_size=batch_size, input_shape=input_shape)
    if batch_size is not None or input_shape is not None:
        _save({"serving_default": serving_function(model, specs)}, folder)
        return
    offered = offer(model, specs, **options)
    functions = signatures(model, specs, offered)
    _save(functions, folder)
    write_class_names(folder, offered.class_names)
    if warmup:
        # The folder of the versions bears the model's name.
        name = folder.resolve().parent.name
        warming.write_warmup(folder / EXTRA / warming.FILE, functions, name)


def write_class_names(folder: Path, names: Sequence[str] | None) -> None:
    """Write the names of classes, where they are known, beside what a server loads.

    Args:
        folder: Folder of one version.
        names: Names in the order of the outputs, or `None`.
    """
    (folder / EXTRA).mkdir(exist_ok=True)
    if names is not None:
        text = "".join(f"{name}\n" for name in names)
        (folder / EXTRA / CLASS_NAMES).write_text(text, encoding="utf-8")


def _save(functions, folder):
    # keras.export.ExportArchive would store every variable twice.
    module = tf.Module()
    module.serve = functions["serving_default"]
    concrete = [function.get_concrete_function() for function in functions.values()]
    variables = {id(v): v for function in concrete for v in function.variables}
    module.weights = list(variables.values())
    with quiet():
        tf.saved_model.save(module, str(folder), signatures=functions)
