"""TFLite files: equal to the model, static, and quantised right."""

import os

import artifacts
import cases
import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import kmlp
from kmlp.export.running import load_tflite
from kmlp.export.spelling import spelled_for_tflite
from kmlp.quiet import quiet

SMALL = "resmlp_local"


@pytest.mark.parametrize("case", cases.CASES)
def test_outputs_equal_the_trained_models(case):
    images = cases.images(artifacts.built(case), 3)
    outputs = load_tflite(artifacts.tflite(case))(images)
    error = cases.relative_error(outputs["output_0"], artifacts.expected(case, images))
    assert error < 1e-5


def test_the_train_form_is_exported_where_asked():
    images = cases.images(artifacts.built(SMALL))
    outputs = load_tflite(artifacts.tflite(SMALL, merge=False))(images)
    expected = artifacts.expected(SMALL, images)
    assert cases.relative_error(outputs["output_0"], expected) < 1e-5


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_is_static(batch_size, tmp_path):
    model = artifacts.built(SMALL)
    path = kmlp.export.tflite(model, tmp_path / "m.tflite", batch_size=batch_size)
    assert path == tmp_path / "m.tflite"
    interpreter = Interpreter(str(path))
    (details,) = interpreter.get_input_details()
    assert details["shape_signature"].tolist() == [batch_size, 32, 48, 3]
    images = cases.images(model, 6)
    outputs = load_tflite(path)(images)["output_0"]
    assert cases.relative_error(outputs, artifacts.expected(SMALL, images)) < 1e-5


def rms_error(actual, expected):
    return (((actual - expected) ** 2).mean() / (expected**2).mean()) ** 0.5


@pytest.mark.parametrize(
    ("case", "quantize", "tolerance"),
    [
        ("repmlpnet", "float16", 2e-3),
        ("repmlpnet", "dynamic", 0.03),
        ("repmlpnet", "int8", 0.05),
        ("resmlp_local", "int8", 0.05),
        ("smlpnet", "int8", 0.05),
    ],
)
def test_quantised_outputs_stay_near(case, quantize, tolerance, tmp_path):
    model = artifacts.built(case)
    images = cases.images(model, 8)
    path = kmlp.export.tflite(
        model,
        tmp_path / "m.tflite",
        quantize=quantize,
        representative_data=[cases.images(model, 32, seed=2)],
    )
    interpreter = Interpreter(str(path))
    (inputs,), (outputs,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    assert inputs["dtype"] == outputs["dtype"] == np.float32
    actual = load_tflite(path)(images)["output_0"]
    error = rms_error(actual, artifacts.expected(case, images))
    assert 1e-6 < error < tolerance
    # One scale per output position, not one for all share-sets.
    found = kmlp.export.audit(path)
    assert ("BATCH_MATMUL" in found) == (quantize == "float16")
    assert ("QUANTIZE" in found) == (quantize == "int8")


@pytest.mark.parametrize("case", ["repmlpnet_partitioned", SMALL, "smlpnet_local"])
def test_the_spelling_is_equal_and_is_taken_back(case):
    model = artifacts.built(case)
    images = cases.images(model)
    expected = cases.run(model, images)
    attributes = [dict(vars(layer)) for layer in model._flatten_layers()]
    with spelled_for_tflite(model, integers=True):
        spelled = cases.run(model, images)
    assert not np.array_equal(spelled, expected)  # it is another computation
    assert cases.relative_error(spelled, expected) < 1e-5
    for layer, before in zip(model._flatten_layers(), attributes, strict=True):
        assert vars(layer).keys() == before.keys()
        assert all(vars(layer)[name] is value for name, value in before.items())


def test_representative_data_come_in_any_form(tmp_path):
    import tensorflow as tf

    model = artifacts.built(SMALL)
    images = cases.images(model, 10)
    labelled = tf.data.Dataset.from_tensor_slices((images, np.arange(10))).batch(4)
    contents = []
    for data in (images, [images[:3], images[3:]], labelled):
        path = kmlp.export.tflite(
            model, tmp_path / "m.tflite", quantize="int8", representative_data=data
        )
        contents.append(load_tflite(path)(images)["output_0"])
    np.testing.assert_array_equal(contents[0], contents[1])
    np.testing.assert_array_equal(contents[0], contents[2])


def test_an_int8_file_that_does_not_run_is_refused(tmp_path):
    keras.utils.set_random_seed(0)
    model = cases.build("repmlpnet")
    # A dead ReLU: calibration gives it no range.
    gate = model.get_layer("stage0_block0_global_perceptron")
    gate.fc1.bias.assign(np.full(gate.fc1.bias.shape, -1e3))
    with pytest.raises(RuntimeError, match="quantize='dynamic'"):
        kmlp.export.tflite(
            model,
            tmp_path / "m.tflite",
            quantize="int8",
            representative_data=cases.images(model, 8),
        )
    assert not list(tmp_path.iterdir())


def test_unknown_sizes_need_a_shape(tmp_path):
    model = artifacts.built("convmlp", input_shape=(None, None, 3))
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match=r"pass `input_shape=\(height"):
        kmlp.export.tflite(model, path)
    kmlp.export.tflite(model, path, input_shape=(45, 64, 3))
    images = np.random.default_rng(0).normal(size=(2, 45, 64, 3)).astype("float32")
    outputs = load_tflite(path)(images)["output_0"]
    expected = cases.run(model, images, training=False)
    assert cases.relative_error(outputs, expected) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantize": "int4"}, "None, 'float16', 'dynamic', 'int8'"),
        ({"quantize": "int8"}, "representative_data"),
        ({"quantize": "int8", "representative_data": []}, "at least one image"),
        (
            {"quantize": "int8", "representative_data": np.zeros((2, 8, 8, 3))},
            r"images \(32, 48, 3\). Received: a batch of shape \(2, 8, 8, 3\)",
        ),
        ({"input_shape": (64, 64, 3)}, r"\(32, 48, 3\). Received: .*\(64, 64, 3\)"),
        ({"batch_size": 0}, "positive integer"),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kmlp.export.tflite(artifacts.built(SMALL), tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_failed_export_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_text("good")
    inputs = keras.Input((32,))
    model = keras.Model(inputs, keras.ops.erf(keras.layers.Dense(4)(inputs)))
    with pytest.raises(RuntimeError, match=r"no operation .* Received: Erf$"):
        kmlp.export.tflite(model, path)
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_paths_are_refused(tmp_path):
    (tmp_path / "file").touch()
    model = artifacts.built(SMALL)
    with pytest.raises(OSError, match="Cannot write"):
        kmlp.export.tflite(model, tmp_path / "file" / "m.tflite")
    with pytest.raises(IsADirectoryError, match="a file's path"):
        kmlp.export.tflite(model, tmp_path)


def test_only_chatter_is_kept_off_the_terminal(capfd):
    with quiet():
        os.write(2, b"I0000 00:00:17.1  1 reader.cc:83] Reading\nan error\n")
        os.write(2, b"E0000 00:00:17.1  1 loader.cc:83] no memory\n")
    os.write(2, b"after\n")
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["an error", "E0000 00:00:17.1  1 loader.cc:83] no memory", "after"]
