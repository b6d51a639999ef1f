"""What the layers' spelling for TFLite leaves of a network."""

import cases
import keras
import numpy as np
import pytest

import kmlp
from kmlp.artifacts.running import load_tflite
from kmlp.export.device_spelling import spelled_for_integers


@pytest.mark.parametrize("case", ["convmlp", "msmlp", "resmlp_layer_norm"])
@pytest.mark.parametrize("merge", [False, True])
def test_layer_norms_are_equal(case, merge):
    model = cases.build(case)
    model = kmlp.merge(model) if merge else model
    images = cases.images(model, 32)
    expected = cases.run(model, images)
    with spelled_for_integers(model):
        spelled = cases.run(model, images)
    assert not np.array_equal(spelled, expected)  # it is another computation
    assert cases.relative_error(spelled, expected) < 1e-5
    np.testing.assert_array_equal(cases.run(model, images), expected)


def test_layer_norms_over_other_axes_keep_their_spelling():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, keras.layers.LayerNormalization(axis=1)(inputs))
    images = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    expected = cases.run(model, images)
    with spelled_for_integers(model):
        np.testing.assert_array_equal(cases.run(model, images), expected)


@pytest.mark.parametrize("case", ["convmlp", "smlpnet"])
def test_int8_layer_norms_hold_integers_only(case, tmp_path):
    model = cases.build(case)
    images = cases.images(model, 8)
    path = kmlp.export.tflite(
        model,
        tmp_path / "m.tflite",
        quantize="int8",
        representative_data=cases.images(model, 32, seed=2),
    )
    found = kmlp.export.audit(path)
    assert "RSQRT" in found
    assert not {"NEG", "SQUARED_DIFFERENCE"} & set(found)
    assert (found["QUANTIZE"], found["DEQUANTIZE"]) == (1, 1)  # input and output
    actual = load_tflite(path)(images)["output_0"]
    expected = cases.run(model, images)
    error = ((actual - expected) ** 2).mean() / (expected**2).mean()
    assert error**0.5 < 0.06
