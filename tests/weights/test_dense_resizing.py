"""Detectors and segmenters at other sizes."""

import numpy as np
import pytest
from cases import long
from dense_backbones import backbone, images, randomised, relative
from dense_models import dense_model
from keras import ops

import kmlp
from kmlp.segmentation import SemanticFPN

OTHER = (96, 64, 3)


def run(model, x):
    return ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize(
    ("head", "family"), [long("upernet", "convmlp"), ("semantic_fpn", "msmlp")]
)
def test_any_size(head, family):
    model = dense_model(head, family)
    twin = kmlp.resize(model, (None, None, 3))
    assert type(twin) is type(model)
    assert twin.input_shape == (None, None, None, 3)
    assert relative(run(twin, images()), run(model, images())) < 1e-6
    assert twin.preprocessing == model.preprocessing
    # As one that was built for that size and given the same weights.
    built = kmlp.resize(model, OTHER)
    x = images(size=OTHER)
    assert relative(run(twin, x), run(built, x)) < 1e-6
    assert built.preprocessing.canvas == OTHER[:2]


@pytest.mark.parametrize("family", ["repmlpnet", long("smlpnet")])
def test_blocks_of_another_size(family):
    def built(shape):
        return SemanticFPN(backbone(family, shape), 3, fpn_filters=16, filters=8)

    model, by_hand = randomised(built((64, 96, 3))), built(OTHER)
    by_hand.set_weights(model.get_weights())
    twin = kmlp.resize(model, OTHER, "partition")
    x = images(size=OTHER)
    assert np.array_equal(run(twin, x), run(by_hand, x))
    with pytest.raises(ValueError, match="fully connected over positions"):
        kmlp.resize(model, (None, None, 3))


def test_detectors_too():
    model = dense_model("retinanet")
    twin = kmlp.resize(model, (128, 128, 3))
    assert twin.preprocessing.canvas == (128, 128)
    for new, old in zip(twin.weights, model.weights, strict=True):
        assert np.array_equal(ops.convert_to_numpy(new), ops.convert_to_numpy(old))
