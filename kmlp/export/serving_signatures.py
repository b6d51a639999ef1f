"""Build the signatures that a server offers: bytes in, names and maps out."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kmlp.artifacts.running import call_flat, named_outputs
from kmlp.data.decode import centre_crop, checked, decode, normalise
from kmlp.data.dense.source import VOID
from kmlp.export.offer import DETECTION, Offer
from kmlp.keras_internals import operation_of
from kmlp.preprocessing import DensePreprocessing, Preprocessing

DEFAULT, BYTES, CLASSIFY, FEATURES = (
    "serving_default",
    "serving_bytes",
    "classify",
    "features",
)
IMAGE_BYTES = "image_bytes"
# How many images of a request are decoded at once; each may take what
# `kmlp.data.decode.LARGEST_IMAGE` allows.
DECODED_AT_ONCE = 8

Tensors = dict[str, tf.Tensor]


def signatures(
    model: keras.Model, specs: Sequence[tf.TensorSpec], offered: Offer
) -> dict[str, Callable]:
    """Return the signatures as `tf.function`s over one graph of the network.

    `serving_default` takes what the model takes. `serving_bytes` gives the same for
    encoded images; of a detector `boxes`, `scores` and `classes` in the pixels of each
    picture, of a segmenter the `classes` of every pixel on its canvas. `classify` gives
    the names and scores of the likeliest classes, `features` the pyramid, where the
    model has one; neither is a detector's or segmenter's.

    Args:
        model: Float32 model, as it is served.
        specs: Specs of its inputs.
        offered: What is served beside the network.

    Returns:
        Functions `{name: function}`, each with an input signature.
    """
    network, known = _network(model, specs, offered.dense), offered.preprocessing

    def default(*inputs: tf.Tensor) -> Tensors:
        return network(*inputs)["outputs"]

    def from_bytes(image_bytes: tf.Tensor) -> Tensors:
        if offered.dense:
            images, *sizes = prepared_pictures(image_bytes, known)
        else:
            images, sizes = prepared(image_bytes, known), []
        count = tf.shape(images)[0]
        found = default(_at_least_one(images))
        found = {name: value[:count] for name, value in found.items()}
        if not offered.dense:
            return found
        answer = detections if known.task == DETECTION else class_maps
        return answer(found, *sizes)

    def classify(*inputs: tf.Tensor) -> Tensors:
        (outputs,) = outputs_of(*inputs).values()
        return _likeliest(outputs, offered, has_activation(model))

    def features(*inputs: tf.Tensor) -> Tensors:
        return network(*inputs)["pyramid"]

    found, takes, outputs_of = {DEFAULT: _function(default, specs)}, specs, default
    if known is not None:
        takes = [tf.TensorSpec([None], tf.string, name=IMAGE_BYTES)]
        outputs_of = from_bytes
        found[BYTES] = _function(from_bytes, takes)
    if offered.dense:
        return found
    if offered.class_names is not None:
        found[CLASSIFY] = _function(classify, takes)
    if getattr(model, "pyramid_outputs", None):
        found[FEATURES] = _function(features, specs)
    return found


def _network(model, specs, dense):
    """Trace outputs and pyramid at once: the network is stored once."""
    pyramid = None if dense else getattr(model, "pyramid_outputs", None)
    if pyramid:
        both = {"outputs": model.output, "pyramid": dict(pyramid)}
        both = keras.Model(model.input, both)

    def run(*inputs: tf.Tensor) -> dict[str, Tensors]:
        if not pyramid:
            return {"outputs": named_outputs(call_flat(model, inputs))}
        found = call_flat(both, inputs)
        return {**found, "outputs": named_outputs(found["outputs"])}

    return _function(run, specs)


def _function(function, specs):
    return tf.function(function, input_signature=specs, autograph=False)


def _at_least_one(images):
    """Return the images, or one of zeros: not every convolution takes none."""
    missing = tf.cast(tf.shape(images)[0] == 0, tf.int32)
    return tf.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])


def prepared(image_bytes: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Prepare encoded images as the model is evaluated on them.

    Args:
        image_bytes: Encoded images `(N,)`, strings; N may be 0.
        preprocessing: Preprocessing with nothing missing.

    Returns:
        Images `(N, S, S, 3)`, float32.
    """
    complete: Any = preprocessing
    size, crop = complete.image_size, complete.test_crop

    def prepare(image: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = decode(image, complete.exif == "apply")
        pixels = centre_crop(pixels, size, crop, complete.test_interpolation)
        return (normalise(pixels, complete.mean, complete.std),)

    spec = tf.TensorSpec((size, size, 3), tf.float32)
    return _mapped(prepare, image_bytes, spec)[0]


def _mapped(prepare, image_bytes, *specs):
    with tf.device("CPU"):  # there are no kernels for anything else
        return tf.map_fn(
            prepare,
            checked(image_bytes, IMAGE_BYTES),
            fn_output_signature=specs,
            parallel_iterations=DECODED_AT_ONCE,
        )


def _likeliest(outputs, offered, are_scores):
    """Return names, scores and numbers of the likeliest classes, the best first."""
    scores = outputs if are_scores else tf.nn.softmax(outputs)
    scores, indices = tf.math.top_k(scores, offered.top_k)
    names = tf.constant([name.encode() for name in offered.class_names])
    return {"classes": tf.gather(names, indices), "scores": scores, "indices": indices}


def has_activation(model: keras.Model) -> bool:
    """Return whether the layer that ends the graph has an activation, or is one.

    Models without a graph are taken to end in logits.
    """
    outputs = keras.tree.flatten(getattr(model, "outputs", None) or [])
    if len(outputs) != 1:
        return False
    last = operation_of(outputs[0])
    if isinstance(last, keras.Model):
        return has_activation(last)
    if type(last).__name__ in ("Softmax", "Sigmoid"):
        return True
    activation = getattr(last, "activation", None)
    return keras.activations.get(activation) is not keras.activations.linear


def prepared_pictures(
    image_bytes: tf.Tensor, known: DensePreprocessing
) -> tuple[tf.Tensor, ...]:
    """Prepare encoded pictures as the model is evaluated on them.

    Args:
        image_bytes: Encoded images `(N,)`, strings; N may be 0.
        known: How pictures are prepared.

    Returns:
        Pictures `(N, H, W, 3)`, float32, on the canvas, `(N, 2)` int32 heights and
        widths that the pictures have there, and those that they came with.
    """
    canvas = (*known.canvas, 3)

    def prepare(image: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels = decode(image, known.exif == "apply")
        size = tf.shape(pixels)[:2]
        shape = fitted(size, known)
        pixels = (_resized(pixels, shape) - _row(known.mean)) / _row(known.std)
        height, width = tf.unstack(tf.constant(known.canvas) - shape)
        whole = tf.pad(pixels, [(0, height), (0, width), (0, 0)])
        return tf.ensure_shape(whole, canvas), shape, size

    pair = tf.TensorSpec((2,), tf.int32)
    return _mapped(prepare, image_bytes, tf.TensorSpec(canvas, tf.float32), pair, pair)


def fitted(size: tf.Tensor, known: DensePreprocessing) -> tf.Tensor:
    """Return height and width on the canvas: `kmlp.data.dense.geometry.fitted`."""
    size = tf.cast(size, tf.float64)
    short, long = known.sides
    scale = tf.constant(1.0, tf.float64)
    if short is not None:
        scale = short / tf.reduce_min(size)
        if long is not None:
            scale = tf.minimum(scale, long / tf.reduce_max(size))
    canvas = tf.constant(known.canvas, tf.float64)
    scale = tf.minimum(scale, tf.reduce_min(canvas / size))
    return tf.maximum(1, tf.cast(size * scale + 0.5, tf.int32))


def detections(found: Tensors, shapes: tf.Tensor, sizes: tf.Tensor) -> Tensors:
    """Bring detections into the pictures' own pixels.

    Args:
        found: Outputs of a detector by name.
        shapes: Heights and widths of the pictures on the canvas, `(N, 2)`.
        sizes: Heights and widths that they came with, `(N, 2)`.

    Returns:
        Dictionary of `boxes` cut at the picture's edges, `scores` and `classes`, best
        first; a box of nothing but padding becomes an empty place, all of which come
        last. With `masks` also `whole_boxes`, which the masks cover.
    """
    ends = tf.cast(tf.tile(sizes[:, ::-1], [1, 2])[:, None], tf.float32)
    own = tf.cast(tf.tile(shapes[:, ::-1], [1, 2])[:, None], tf.float32)
    whole = found["boxes"] * (ends / own)
    boxes = tf.clip_by_value(whole, 0.0, ends)
    there = (found["classes"] >= 0) & tf.reduce_all(
        boxes[..., 2:] > boxes[..., :2], axis=-1
    )
    places = tf.argsort(tf.cast(~there, tf.int32), axis=1, stable=True)
    found = {**found, "boxes": boxes, "whole_boxes": whole}
    if "masks" not in found:
        del found["whole_boxes"]
    there = tf.gather(there, places, batch_dims=1)
    answers = {}
    for name, value in found.items():
        value, kept = tf.gather(value, places, batch_dims=1), there
        while kept.shape.rank < value.shape.rank:
            kept = kept[..., None]
        empty = tf.constant(-1 if name == "classes" else 0, value.dtype)
        answers[name] = tf.where(kept, value, empty)
    return answers


def class_maps(found: Tensors, shapes: tf.Tensor, sizes: tf.Tensor) -> Tensors:
    """Return the likeliest class of every pixel on the canvas.

    Args:
        found: Logits of a segmenter, by name.
        shapes: Heights and widths of the pictures on the canvas, `(N, 2)`.
        sizes: Heights and widths that they came with, `(N, 2)`.

    Returns:
        Dictionary of `classes` `(N, H, W)` uint8, 255 beyond the picture; `shapes` `(N,
        2)`, height and width of the picture there; `sizes` `(N, 2)`, those that it came
        with.
    """
    (logits,) = found.values()
    classes = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)
    rows, columns = (
        tf.sequence_mask(shapes[:, axis], classes.shape[1 + axis]) for axis in (0, 1)
    )
    inside = rows[:, :, None] & columns[:, None]
    classes = tf.where(inside, classes, tf.constant(VOID, tf.uint8))
    return {"classes": classes, "shapes": shapes, "sizes": sizes}


def _resized(pixels, shape):
    """Resize pixels to floats, antialiased and rounded as Pillow does."""
    scale = tf.cast(shape, tf.float32) / tf.cast(tf.shape(pixels)[:2], tf.float32)
    scaled = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=shape,
        scale=scale,
        translation=tf.zeros(2),
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.floor(scaled + 0.5)


def _row(values):
    return 255 * tf.constant(values, tf.float32)
