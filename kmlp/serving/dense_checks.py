"""What `kmlp.serving.check` checks of detectors and segmenters alone."""

import tensorflow as tf

from kmlp.artifacts import origin
from kmlp.artifacts.detection_difference import apart
from kmlp.export.offer import DETECTION
from kmlp.export.saved_model import CLASS_NAMES, EXTRA
from kmlp.export.serving_signatures import (
    BYTES,
    DEFAULT,
    class_maps,
    detections,
    prepared_pictures,
)
from kmlp.preprocessing import DensePreprocessing

# Of answers by other signatures or in batches of other sizes, over the largest.
TOLERANCE = 1e-5


def preprocessing(artifact):
    """`DensePreprocessing` of a detector or segmenter, `None` of anything else."""
    return DensePreprocessing.from_origin(origin.read(artifact.folder))


def class_names(artifact):
    """The file against the origin; the graph gives numbers."""
    file = artifact.folder / EXTRA / CLASS_NAMES
    known = preprocessing(artifact).class_names
    if not file.is_file():
        return f"none, {EXTRA}/{CLASS_NAMES} is missing"
    names = tuple(file.read_text(encoding="utf-8").splitlines())
    if known is not None and names != known:
        raise AssertionError(f"the origin and {EXTRA}/{CLASS_NAMES} disagree")
    return f"{len(names)}, the same in the origin and in {EXTRA}; the graph has numbers"


def evaluation(artifact):
    """Encoded pictures against the same, prepared outside of the artifact."""
    known = preprocessing(artifact)
    images, shapes, sizes = prepared_pictures(tf.constant(artifact.pictures), known)
    (name,) = artifact.requests[DEFAULT]
    found = artifact.ask(DEFAULT, {name: images.numpy()})
    answer = detections if known.task == DETECTION else class_maps
    found = {key: tf.constant(value) for key, value in found.items()}
    expected = {k: v.numpy() for k, v in answer(found, shapes, sizes).items()}
    worst = apart(artifact.ask(BYTES), expected)
    if not worst <= TOLERANCE:
        raise AssertionError(f"{BYTES} and {DEFAULT} differ by {worst:.1e}")
    return f"{BYTES} equals {DEFAULT} on prepared pictures, to {worst:.1e}"
