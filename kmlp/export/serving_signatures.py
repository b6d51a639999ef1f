"""What a server offers besides the network itself: bytes in, names and maps out."""

import keras
import tensorflow as tf

from kmlp.artifacts.running import call_flat, named_outputs
from kmlp.data.decode import centre_crop, checked, normalise
from kmlp.keras_internals import operation_of

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


def signatures(model, specs, offered):
    """The signatures as `tf.function`s over one graph of the network.

    `serving_default` takes what the model takes. `serving_bytes` gives the same for
    encoded images, `classify` the names and scores of the likeliest classes,
    `features` the pyramid, where the model has one.

    Args:
        model: a float32 model, as it is served.
        specs: of its inputs.
        offered: `Offer`.

    Returns:
        `{name: function}`, each with an input signature.
    """
    network = _network(model, specs)

    def default(*inputs):
        return network(*inputs)["outputs"]

    def features(*inputs):
        return network(*inputs)["pyramid"]

    found = {DEFAULT: _function(default, specs)}

    def from_bytes(image_bytes):
        images = prepared(image_bytes, offered.preprocessing)
        count = tf.shape(images)[0]
        found = default(at_least_one(images))
        return {name: value[:count] for name, value in found.items()}

    takes, outputs_of = specs, default
    if offered.preprocessing is not None:
        takes = [tf.TensorSpec([None], tf.string, name=IMAGE_BYTES)]
        outputs_of = from_bytes
        found[BYTES] = _function(from_bytes, takes)
    if offered.class_names is not None:
        gives_scores = has_activation(model)

        def classify(*inputs):
            (outputs,) = outputs_of(*inputs).values()
            return likeliest(outputs, offered, gives_scores)

        found[CLASSIFY] = _function(classify, takes)
    if getattr(model, "pyramid_outputs", None):
        found[FEATURES] = _function(features, specs)
    return found


def at_least_one(images):
    """The images, or one of zeros: not every convolution takes none."""
    missing = tf.cast(tf.shape(images)[0] == 0, tf.int32)
    return tf.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])


def prepared(image_bytes, preprocessing):
    """Encoded images as the model is evaluated on them.

    Args:
        image_bytes: `(N,)` strings of JPEG or PNG; N may be 0.
        preprocessing: complete.

    Returns:
        `(N, S, S, 3)` float32.
    """
    size = preprocessing.image_size
    crop, method = preprocessing.test_crop, preprocessing.test_interpolation

    def prepare(image):
        pixels = centre_crop(image, size, crop, method)
        return normalise(pixels, preprocessing.mean, preprocessing.std)

    with tf.device("CPU"):  # there are no kernels for anything else
        return tf.map_fn(
            prepare,
            checked(image_bytes, IMAGE_BYTES),
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32),
            parallel_iterations=DECODED_AT_ONCE,
        )


def likeliest(outputs, offered, gives_scores):
    """Names, scores and numbers of the likeliest classes, the best first.

    Args:
        outputs: `(N, classes)`.
        offered: `Offer`.
        gives_scores: whether the outputs are scores already, and no logits.
    """
    scores = outputs if gives_scores else tf.nn.softmax(outputs)
    scores, indices = tf.math.top_k(scores, offered.top_k)
    names = tf.constant([name.encode() for name in offered.class_names])
    return {"classes": tf.gather(names, indices), "scores": scores, "indices": indices}


def has_activation(model):
    """Whether the layer that ends the graph has an activation, or is one.

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


def _network(model, specs):
    """Outputs and pyramid at once, so that the network is traced and stored once."""
    pyramid = getattr(model, "pyramid_outputs", None)
    if pyramid:
        both = {"outputs": model.output, "pyramid": dict(pyramid)}
        both = keras.Model(model.input, both)

    def run(*inputs):
        if not pyramid:
            return {"outputs": named_outputs(call_flat(model, inputs))}
        found = call_flat(both, inputs)
        return {**found, "outputs": named_outputs(found["outputs"])}

    return _function(run, specs)


def _function(function, specs):
    return tf.function(function, input_signature=specs, autograph=False)
