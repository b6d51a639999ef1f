"""Quantisation-aware training of the merged network, and its int8 file."""

import cases
import numpy as np
import pytest
import tensorflow as tf

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.running import load_tflite
from kmlp.compression import QuantizationAware


def rms_error(actual, expected):
    return (((actual - expected) ** 2).mean() / (expected**2).mean()) ** 0.5


def aware_of(case, **overrides):
    model = cases.build(case, **overrides)
    return model, QuantizationAware(kmlp.merge(model), cases.images(model, 32))


def fitted(aware, images, rate=1e-3, epochs=1):
    import tf_keras

    aware.model.compile(
        tf_keras.optimizers.SGD(rate),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    labels = np.arange(len(images)) % 10
    aware.model.fit(images, labels, batch_size=8, epochs=epochs, verbose=0)


@pytest.mark.parametrize(
    "case",
    [
        "repmlpnet_padded",
        "resmlp_local",
        "resmlp_partitioned",
        "resmlp_padded",
    ],
)
def test_the_file_is_what_was_trained(case, tmp_path):
    model, aware = aware_of(case)
    images = cases.images(model, 32)
    fitted(aware, images)
    path = aware.tflite(tmp_path / "m.tflite")
    audit = kmlp.export.audit(path)
    assert audit.fully_connected_only
    assert "BATCH_MATMUL" not in audit
    # One step in and one out: nothing in between is float.
    assert (audit["QUANTIZE"], audit["DEQUANTIZE"]) == (1, 1)
    said = origin.read(path)
    assert said["artifact"]["quantize"] == "int8, aware"
    assert said["artifact"]["batch"] in ("any", "fixed")
    assert said["audit"]["operations"] == dict(audit)
    assert 0 < said["equality"]["relative_difference"] < 0.2
    with pytest.raises(FileExistsError, match="overwrite=True"):
        aware.tflite(path)
    runner = load_tflite(path)
    assert runner.input_dtype == np.float32
    outputs = runner(images)["output_0"]
    expected = aware.model(images, training=False).numpy()
    assert rms_error(outputs, expected) < 0.02
    assert rms_error(outputs, cases.run(aware.merged(), images)) < 0.05


def test_what_is_rounded_is_the_equivalent_kernel():
    """The kernel that branches and norms merge into, on the grid of its outputs."""
    model, aware = aware_of("repmlpnet_partitioned")
    layer = model.get_layer("stage1_block0_channel_perceptron")
    kernels = kmlp.merge(model).get_layer(layer.name).kernel.numpy()
    images = cases.images(model, 8)
    aware.model(images, training=True)
    for index in range(layer.share_sets):
        wrapper = aware.model.get_layer(f"quant_{layer.name}_set{index}")
        aware.model(images, training=False)
        rounded = np.asarray(wrapper.layer.kernel).T
        bound = np.abs(kernels[index]).max(axis=1)
        by_hand = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernels[index].T, -bound, bound, num_bits=8, narrow_range=True
        )
        np.testing.assert_allclose(rounded, by_hand.numpy().T, atol=1e-6)
        steps = rounded / (bound[:, None] / 127)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        # That is not what rounding the FC kernel of the train form would give.
        error = np.abs(rounded - kernels[index]).max()
        assert 0 < error <= bound.max() / 127
        assert np.abs(rounded - layer.kernel.numpy()[index]).max() > 10 * error


def test_training_goes_through_the_rounding():
    model, aware = aware_of("resmlp", depth=1)
    images = cases.images(model, 32)
    before = cases.run(aware.merged(), images)
    assert cases.relative_error(before, cases.run(model, images)) < 1e-5
    fitted(aware, images, rate=0.05, epochs=2)
    losses = aware.model.evaluate(images, np.arange(32) % 10, verbose=0)
    assert np.isfinite(losses)
    after = cases.run(aware.merged(), images)
    assert rms_error(after, before) > 0.05
    assert rms_error(aware.model(images).numpy(), after) < 0.05


def test_ranges_begin_with_the_images(tmp_path):
    """Untrained, the file is as near as the one quantised after training."""
    model, aware = aware_of("resmlp_local")
    images = cases.images(model, 32)
    expected = cases.run(model, images)
    outputs = load_tflite(aware.tflite(tmp_path / "aware.tflite"))(images)["output_0"]
    assert rms_error(outputs, expected) < 0.02


def test_the_converter_does_not_repeat_a_bias(tmp_path):
    """Equal biases of a share-set, though the kernel's outputs differ in scale."""
    model = cases.build("repmlpnet_no_gate", depths=(1, 1), share_sets=(2, 2))
    for layer in model.layers:
        if layer.name.endswith("channel_perceptron"):
            kernel = layer.kernel.numpy()
            kernel *= np.geomspace(0.01, 1, kernel.shape[1])[:, None]
            layer.kernel.assign(kernel)
    merged = kmlp.merge(model)
    images = cases.images(model, 32)
    aware = QuantizationAware(merged, images)
    outputs = load_tflite(aware.tflite(tmp_path / "m.tflite"))(images)["output_0"]
    assert rms_error(outputs, cases.run(model, images)) < 0.03


def test_an_activation_that_is_always_zero_runs(tmp_path):
    model = cases.build("repmlpnet_partitioned")
    gate = model.get_layer("stage0_block0_global_perceptron")
    gate.fc1.bias.assign(gate.fc1.bias - 100.0)
    images = cases.images(model, 32)
    aware = QuantizationAware(kmlp.merge(model), images)
    outputs = load_tflite(aware.tflite(tmp_path / "m.tflite"))(images)["output_0"]
    assert rms_error(outputs, cases.run(model, images)) < 0.03


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (32, 48, 3), (0, 32, 48, 3)])
def test_images_must_fit(shape):
    merged = kmlp.merge(cases.build("resmlp", depth=1))
    with pytest.raises(ValueError, match=r"batch of images \(32, 48, 3\)"):
        QuantizationAware(merged, np.zeros(shape))


def test_the_train_form_has_no_twin():
    model = cases.build("repmlpnet")
    with pytest.raises(ValueError, match="merge the model first"):
        QuantizationAware(model, cases.images(model))
