"""Pictures as a detector or segmenter is evaluated on them."""

from kmlp.data.dense import geometry


def on_canvas(image, known):
    """A picture on a network's canvas.

    Args:
        image: `(H, W, 3)` uint8.
        known: `kmlp.dense_preprocessing.DensePreprocessing`.

    Returns:
        `(H', W', 3)` float32, and the height and width that the picture has there.
    """
    shape = geometry.fitted(image.shape[:2], known.canvas, *known.sides)
    image = geometry.resized(image, shape)
    return geometry.on_canvas(image, known.canvas, known.mean, known.std), shape


def alone(image, known):
    """A picture without a canvas, at the size at which it is segmented.

    Args:
        image, known: as in `on_canvas`.

    Returns:
        `(h, w, 3)` float32.
    """
    shape = geometry.fitted(image.shape[:2], None, *known.sides)
    image = geometry.resized(image, shape)
    return geometry.on_canvas(image, shape, known.mean, known.std)
