"""TFLite files: equal to the model, static, and quantised right."""

import errno
import os

import artifacts
import cases
import keras
import numpy as np
import pytest
import shipped
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.flatbuffer import unpacked
from kmlp.artifacts.locating import TFLITE
from kmlp.artifacts.origin_text import describe
from kmlp.artifacts.running import load_tflite
from kmlp.console import quiet
from kmlp.export.device_spelling import equalised, spelled_for_integers
from kmlp.export.tflite import compact
from kmlp.preprocessing import Preprocessing

SMALL = "resmlp_local"
NAMES = tuple("abcdefghij")
# The module's; as an attribute of `kmlp.export` the function hides it.
GLOBALS = kmlp.export.tflite.__wrapped__.__globals__


def resized(path, images):
    """What an interpreter answers to a batch of another size; `None` if it fails."""
    interpreter = Interpreter(str(path))
    (inputs,), (output,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    interpreter.resize_tensor_input(inputs["index"], images.shape)
    try:
        with quiet(everything=True):
            interpreter.allocate_tensors()
            interpreter.set_tensor(inputs["index"], images)
            interpreter.invoke()
    except RuntimeError:
        return None
    return interpreter.get_tensor(output["index"])


@pytest.mark.parametrize("case", cases.spread(cases.CASES))
def test_outputs_equal_the_trained_models(case):
    images = cases.images(artifacts.built(case), 3)
    outputs = load_tflite(artifacts.tflite(case))(images)
    error = cases.relative_error(outputs["output_0"], artifacts.expected(case, images))
    assert error < 1e-5


def _from_saved_model(case, folder):
    path = str(artifacts.saved_model(case))
    keys = ["serving_default"]
    converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=keys)
    return converter.convert()


def _from_keras_model(case, folder):
    merged = kmlp.merge(artifacts.built(case))
    return tf.lite.TFLiteConverter.from_keras_model(merged).convert()


def _keras_export(case, folder):
    path = folder / "m.tflite"
    kmlp.merge(artifacts.built(case)).export(path, format="litert", verbose=False)
    return path.read_bytes()


# The converter is the same behind all three: all cases by one, a few by the others.
@pytest.mark.parametrize(
    ("case", "convert"),
    [
        *(
            pytest.param(*case.values, _from_saved_model, marks=case.marks)
            for case in cases.spread(cases.CASES)
        ),
        ("convmlp", _from_keras_model),
        ("repmlpnet", _keras_export),
        *(
            cases.long(family, convert)
            for family in cases.FAMILIES
            for convert in (_from_keras_model, _keras_export)
        ),
    ],
)
def test_a_plain_converter_takes_what_is_published(case, convert, tmp_path):
    """Without our exporter: TensorFlow's own operations alone, and equal answers."""
    path = tmp_path / "plain.tflite"
    with quiet():
        path.write_bytes(convert(case, tmp_path))
    images = cases.images(artifacts.built(case), 3)
    found = resized(path, images)  # by an interpreter without Flex operations
    assert cases.relative_error(found, artifacts.expected(case, images)) < 1e-5


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


@pytest.mark.parametrize("case", cases.spread(cases.CASES))
def test_a_file_of_one_batch_says_whether_it_takes_others(case):
    images = cases.images(artifacts.built(case), 3)
    outputs = resized(artifacts.tflite(case), images)
    batch = origin.read(artifacts.tflite(case))["artifact"]["batch"]
    assert batch == ("fixed" if outputs is None else "any")
    if outputs is not None:
        expected = artifacts.expected(case, images)
        assert cases.relative_error(outputs, expected) < 1e-5


@pytest.mark.parametrize(
    ("case", "quantize"),
    [
        *((case, None) for case in ("repmlpnet", "smlpnet")),
        *(
            cases.long(case, quantize)
            for case in cases.CASES
            for quantize in (None, "int8")
            if quantize or case not in ("repmlpnet", "smlpnet")
        ),
    ],
)
def test_a_file_of_any_batch(case, quantize, tmp_path):
    model = artifacts.built(case)
    images = cases.images(model, 3)
    path = kmlp.export.tflite(
        model,
        tmp_path / "m.tflite",
        quantize=quantize,
        representative_data=cases.images(model, 16, seed=2),
        batch_size=None,
    )
    expected, error = artifacts.expected(case, images), 0.1 if quantize else 1e-5
    for outputs in (resized(path, images), load_tflite(path)(images)["output_0"]):
        assert cases.relative_error(outputs, expected) < error
    known = origin.read(path)["artifact"]
    assert known["batch"] == "any"
    assert known["input_shape"] == [None, *images.shape[1:]]


def test_a_batch_that_is_not_free_is_refused_or_told(tmp_path):
    """Of a network whose answers depend on the other images of the batch."""
    inputs = keras.Input((4,))
    mean = keras.ops.mean(inputs, axis=0, keepdims=True)
    model = keras.Model(inputs, 1 + inputs - mean)
    path = tmp_path / "m.tflite"
    with pytest.raises(RuntimeError, match=r"Pass `batch_size`.* batch_size=None"):
        kmlp.export.tflite(model, path, batch_size=None)
    assert not list(tmp_path.iterdir())
    kmlp.export.tflite(model, path, batch_size=4)  # as many as are compared
    assert "batch fixed" in describe(path, TFLITE, origin.read(path))


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
    if case in cases.FULLY_CONNECTED:
        assert found.fully_connected_only


@pytest.mark.parametrize(
    ("quantize", "alike"),
    [(None, 100), ("float16", 100), ("dynamic", 96), ("int8", 95)],
)
def test_a_trained_network_names_photographs_alike(quantize, alike, tmp_path):
    images, _ = shipped.photos()
    path = kmlp.export.tflite(
        shipped.network(),
        tmp_path / "m.tflite",
        quantize=quantize,
        representative_data=[images[::4]] if quantize == "int8" else None,
    )
    found, expected = load_tflite(path)(images)["output_0"], shipped.logits()
    assert np.sum(found.argmax(-1) == expected.argmax(-1)) >= alike
    assert shipped.top1(found) >= shipped.top1(expected) - 2


@pytest.mark.parametrize(
    "case", ["repmlpnet_partitioned", "resmlp_layer_norm", "smlpnet_local"]
)
def test_the_spelling_is_equal_and_is_taken_back(case):
    model = artifacts.built(case)
    images = cases.images(model, 32)
    expected = cases.run(model, images)
    attributes = [dict(vars(layer)) for layer in model._flatten_layers()]
    with spelled_for_integers(model):
        spelled = cases.run(model, images)
        layers = zip(model._flatten_layers(), attributes, strict=True)
        assert any(vars(layer).keys() != before.keys() for layer, before in layers)
    assert cases.relative_error(spelled, expected) < 1e-5
    for layer, before in zip(model._flatten_layers(), attributes, strict=True):
        assert vars(layer).keys() == before.keys()
        assert all(vars(layer)[name] is value for name, value in before.items())


def uneven(case):
    """A ResMLP with a channel that is far larger than the others, and read so."""
    keras.utils.set_random_seed(0)
    model = cases.build(case)
    factors = np.where(np.arange(16) == 3, 200.0, 1.0)
    kernel = model.get_layer("patch_embed").dense.kernel
    kernel.assign(kernel * factors)
    for layer in model.layers:
        if getattr(layer, "normalize", None) is not None:
            layer.normalize.alpha.assign(layer.normalize.alpha / factors)
    return model


@pytest.mark.parametrize("case", ["resmlp", SMALL, "resmlp_partitioned"])
def test_a_residual_stream_is_equalised(case):
    model = kmlp.merge(uneven(case))
    images = cases.images(model, 4)
    before = [np.array(weight) for weight in model.weights]
    twin = equalised(model, images)
    expected = cases.run(model, images)
    assert cases.relative_error(cases.run(twin, images), expected) < 1e-5
    spread = []
    for network in (model, twin):
        stream = keras.Model(network.inputs, network.get_layer("block1_add2").output)
        largest = np.abs(cases.run(stream, images)).max(axis=(0, 1, 2))
        spread.append(largest.max() / largest.min())
    assert spread[0] > 50
    assert spread[1] < 10
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("case", ["resmlp_layer_norm", "repmlpnet", "convmlp"])
def test_other_streams_are_left_alone(case):
    for model in (artifacts.built(case), kmlp.merge(artifacts.built(case))):
        assert equalised(model, cases.images(model)) is model
    trained = artifacts.built(SMALL)
    assert equalised(trained, cases.images(trained)) is trained


def test_large_channels_cost_an_int8_file_nothing(tmp_path, monkeypatch):
    model = uneven(SMALL)
    images = cases.images(model, 8)
    expected = cases.run(model, images)
    errors = []
    for function in (equalised, lambda model, images: model):
        monkeypatch.setitem(GLOBALS, "equalised", function)
        path = kmlp.export.tflite(
            model,
            tmp_path / f"{len(errors)}.tflite",
            quantize="int8",
            representative_data=cases.images(model, 32, seed=2),
        )
        errors.append(rms_error(load_tflite(path)(images)["output_0"], expected))
    assert errors[0] < 0.05
    assert errors[1] > 2 * errors[0]


def test_representative_data_come_in_any_form(tmp_path):
    import tensorflow as tf

    model = artifacts.built(SMALL)
    images = cases.images(model, 10)
    labelled = tf.data.Dataset.from_tensor_slices((images, np.arange(10))).batch(4)
    contents = []
    for data in (images, [images[:3], images[3:]], labelled):
        path = kmlp.export.tflite(
            model,
            tmp_path / "m.tflite",
            quantize="int8",
            representative_data=data,
            overwrite=True,
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
        kmlp.export.tflite(model, path, overwrite=True)
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_carries_its_origin(tmp_path):
    model = artifacts.built(SMALL)
    prepared = Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3, class_names=NAMES)
    path = kmlp.export.tflite(
        model,
        tmp_path / "m.tflite",
        quantize="int8",
        representative_data=cases.images(model, 8),
        preprocessing=prepared,
    )
    known = origin.read(path)
    assert known["class_names"] == list(NAMES)
    assert known["preprocessing"]["mean"] == [0.5] * 3
    assert known["form"] == origin.MERGED
    assert known["weights_sha256"] == origin.weights_sha256(model)
    assert known["artifact"] == {
        "kind": "TFLite",
        "quantize": "int8",
        "input_shape": [1, 32, 48, 3],
        "batch": "any",
        "calibration_images": 8,
    }
    assert known["audit"]["fully_connected_only"]
    assert known["audit"]["operations"] == dict(kmlp.export.audit(path))
    # Reported where it is quantised, demanded where it is not.
    assert known["equality"]["relative_difference"] > 1e-4
    assert known["equality"]["allowed"] is None
    known = origin.read(artifacts.tflite(SMALL, merge=False))
    assert known["form"] == origin.TRAIN_FORM
    assert known["equality"]["relative_difference"] < known["equality"]["allowed"]


def test_a_file_that_is_not_the_model_is_refused(tmp_path, monkeypatch):
    keras.utils.set_random_seed(1)
    other = cases.build(SMALL)
    monkeypatch.setitem(GLOBALS, "in_dense_form", lambda *_: (other, None))
    with pytest.raises(RuntimeError, match=r"does not equal .* merge=False"):
        kmlp.export.tflite(artifacts.built(SMALL), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_where_asked(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_text("earlier")
    model = artifacts.built(SMALL)
    with pytest.raises(FileExistsError, match=r"overwrite=True .*m.tflite"):
        kmlp.export.tflite(model, path)
    assert path.read_text() == "earlier"
    kmlp.export.tflite(model, path, overwrite=True)
    assert load_tflite(path).input_shape == (1, 32, 48, 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:3], "10 classes.*3 class names"),
        (("a",) * 10, r"more than once: \['a'\]"),
    ],
)
def test_class_names_fit_the_outputs(names, message, tmp_path, monkeypatch):
    # Before any work is done.
    monkeypatch.delattr("tensorflow.lite.TFLiteConverter.from_saved_model")
    model = artifacts.built(SMALL)
    for arguments in (
        {"class_names": names},
        {"preprocessing": Preprocessing(class_names=names)},
    ):
        with pytest.raises(ValueError, match=message):
            kmlp.export.tflite(model, tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["write_tflite", "origin"])
def test_a_disk_that_fills_leaves_the_earlier_file(step, tmp_path, monkeypatch):
    def full(file, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    if step == "origin":
        monkeypatch.setattr(origin, "write", full)
    else:
        monkeypatch.setitem(GLOBALS, "write_tflite", full)
    path = tmp_path / "m.tflite"
    path.write_text("earlier")
    with pytest.raises(OSError, match=r"No space left.* untouched: .*m.tflite"):
        kmlp.export.tflite(artifacts.built(SMALL), path, overwrite=True)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_built_model_is_refused(tmp_path):
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    for model in (unbuilt, object(), "model.keras"):
        with pytest.raises(ValueError, match=r"takes a built keras\.Model"):
            kmlp.export.tflite(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_a_model_of_others_is_exported(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    path = kmlp.export.tflite(model, tmp_path / "m.tflite")
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")
    outputs = load_tflite(path)(images)["output_0"]
    assert cases.relative_error(outputs, cases.run(model, images)) < 1e-5
    known = origin.read(path)
    assert known["configuration"] is None
    assert not known["audit"]["fully_connected_only"]


def test_a_compacted_file_is_the_same_and_smaller(tmp_path, monkeypatch):
    model = artifacts.built("repmlpnet")
    monkeypatch.setitem(GLOBALS, "compact", lambda file: None)
    path = kmlp.export.tflite(
        model,
        tmp_path / "m.tflite",
        quantize="int8",
        representative_data=cases.images(model, 8),
    )
    before = path.read_bytes()
    images = cases.images(model)
    expected = load_tflite(path)(images)["output_0"]
    compact(path)
    np.testing.assert_array_equal(load_tflite(path)(images)["output_0"], expected)
    assert path.stat().st_size < 0.95 * len(before)
    (old,), (new,) = (unpacked(c).subgraphs for c in (before, path.read_bytes()))
    names = [tensor.name for tensor in new.tensors]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 100
    for index in (*new.inputs, *new.outputs):
        assert names[index] == old.tensors[index].name


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
