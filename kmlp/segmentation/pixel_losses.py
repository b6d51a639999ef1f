"""Cross-entropy of pixels, some of which nobody labelled."""

import keras
from keras import ops

from kmlp.layers.feature_pyramid import resize_bilinear

VOID = 255


def pixel_loss(logits, labels, void=VOID):
    """Cross-entropy of every image, averaged over all its pixels.

    Void pixels add nothing but count in the average, as in the reference framework:
    an image of void alone has the loss 0.

    Args:
        logits: `(N, h, w, K)`, resized to the labels' size.
        labels: `(N, H, W)` integers, `0 … K - 1` or `void`.
        void: label of what is not scored.

    Returns:
        `(N,)` float32.
    """
    logits = resize_bilinear(ops.cast(logits, "float32"), ops.shape(labels)[1:3])
    labels = ops.cast(labels, "int32")
    known = ops.not_equal(labels, void)
    losses = keras.losses.sparse_categorical_crossentropy(
        ops.where(known, labels, 0), logits, from_logits=True
    )
    return ops.mean(ops.where(known, losses, 0.0), axis=(1, 2))


def confusion(logits, labels, num_classes, void=VOID):
    """How often each class was taken for each: `(K, K)` float32, rows are the truth.

    Args:
        logits: `(N, H, W, K)` at the labels' size.
        labels: `(N, H, W)` integers; `void` is not counted.
    """
    labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
    found = ops.reshape(ops.cast(ops.argmax(logits, axis=-1), "int32"), (-1,))
    known = ops.cast(ops.not_equal(labels, void), "float32")
    # Void is no class: its row is that of zeros.
    truth = ops.one_hot(labels, num_classes, dtype="float32") * known[:, None]
    return ops.matmul(
        ops.transpose(truth), ops.one_hot(found, num_classes, dtype="float32")
    )
