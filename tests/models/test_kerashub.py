"""Our backbones inside KerasHub's detector and segmenter, as they are."""

import keras
import numpy as np
import pytest
from dense_backbones import BACKBONES, SIZE, backbone, images

keras_hub = pytest.importorskip("keras_hub")


def output(model, x):
    return keras.tree.map_structure(
        keras.ops.convert_to_numpy, model(x, training=False)
    )


@pytest.mark.parametrize("family", BACKBONES)
def test_retinanet(family):
    taps = backbone(family)
    pyramid = keras_hub.models.RetinaNetBackbone(
        image_encoder=taps, min_level=3, max_level=7, use_p5=False, image_shape=SIZE
    )
    detector = keras_hub.models.RetinaNetObjectDetector(
        backbone=pyramid, num_classes=3, bounding_box_format="xyxy"
    )
    found = output(detector, images())
    # Nine anchors at each of 8×12 + 4×6 + 2×3 + 1×2 + 1 places.
    assert found["cls_logits"].shape == (2, 9 * 129, 3)
    assert found["bbox_regression"].shape == (2, 9 * 129, 4)
    assert all(np.isfinite(v).all() for v in found.values())
    own = {id(w) for w in taps.weights}
    assert own & {id(w) for w in detector.trainable_weights}
    assert pyramid.from_config(pyramid.get_config()).count_params() == (
        pyramid.count_params()
    )


@pytest.mark.parametrize("family", BACKBONES)
def test_deeplab(family):
    taps = backbone(family)
    encoder = keras_hub.models.DeepLabV3Backbone(
        image_encoder=taps,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[6, 12, 18],
        image_shape=SIZE,
    )
    segmenter = keras_hub.models.DeepLabV3ImageSegmenter(
        backbone=encoder, num_classes=3, activation=None
    )
    logits = output(segmenter, images())
    assert logits.shape == (2, *SIZE[:2], 3)
    assert np.isfinite(logits).all()
    assert {id(w) for w in taps.weights} & {id(w) for w in encoder.trainable_weights}
