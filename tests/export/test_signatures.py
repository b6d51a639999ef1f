"""What a SavedModel offers beside the network: bytes in, names and maps out."""

import dataclasses
import importlib
import sys

import cases
import keras
import numpy as np
import pytest
import shipped
import tensorflow as tf
from serving import pictures, served

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.running import input_specs
from kmlp.data import decode
from kmlp.export.offer import offer
from kmlp.export.saved_model import CLASS_NAMES, EXTRA
from kmlp.export.serving_signatures import has_activation, prepared
from kmlp.export.warmup import FILE, LARGEST_FILE, read_warmup
from kmlp.preprocessing import Preprocessing
from kmlp.serving.session import Session

SMALL = served.SMALL
IMAGES = list(pictures.STRANGE.values())
METHOD = "tensorflow/serving/predict"


def evaluated(images, known=served.PREPROCESSING):
    """Images as evaluation prepares them."""
    crops = [
        decode.centre_crop(
            tf.constant(image), served.SIZE, known.test_crop, known.test_interpolation
        )
        for image in images
    ]
    return np.stack([decode.normalise(crop, known.mean, known.std) for crop in crops])


def ask(session, signature, values):
    (name,) = session.signatures[signature].inputs
    return session.predict({name: values}, signature)


def encoded(*images):
    return np.array(images, object)


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("case", cases.few(served.FAMILIES, "repmlpnet", "convmlp"))
def test_all_signatures_agree(case):
    session = served.session(case)
    assert set(session.signatures) == {
        "serving_default",
        "serving_bytes",
        "classify",
        "features",
    }
    assert {s.method_name for s in session.signatures.values()} == {METHOD}
    images = evaluated(IMAGES)
    expected = cases.run(served.model(case), images, training=False)
    found = ask(session, "serving_default", images)["output_0"]
    assert cases.relative_error(found, expected) < 1e-5
    from_bytes = ask(session, "serving_bytes", encoded(*IMAGES))
    np.testing.assert_array_equal(from_bytes["output_0"], found)
    classified = ask(session, "classify", encoded(*IMAGES))
    best = np.argsort(-found, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(classified["indices"], best)
    scores = np.take_along_axis(softmax(found), best, axis=1)
    np.testing.assert_allclose(classified["scores"], scores, rtol=1e-5)
    names = np.array(served.CLASS_NAMES, object)[best]
    assert [n.decode() for n in classified["classes"].ravel()] == names.ravel().tolist()
    model = served.model(case)
    pyramid = keras.Model(model.input, model.pyramid_outputs)
    maps = ask(session, "features", images)
    for key, value in cases.run(pyramid, images, training=False).items():
        assert cases.relative_error(maps.pop(key), value) < 1e-5
    assert not maps


def test_a_trained_network_names_photographs(tmp_path):
    session = Session(kmlp.export.saved_model(shipped.network(), tmp_path))
    photos = encoded(*(path.read_bytes() for path in shipped.files()))
    found, expected = ask(session, "classify", photos), shipped.logits()
    best = np.argsort(-expected, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found["indices"], best)
    scores = np.take_along_axis(softmax(expected), best, axis=1)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-5)
    right = [
        name.decode() == path.parent.name
        for name, path in zip(found["classes"][:, 0], shipped.files(), strict=True)
    ]
    assert sum(right) == shipped.top1(expected) >= 80


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("test_crop", [0.875, 1.0])
def test_images_are_prepared_as_in_evaluation(test_crop, interpolation, tmp_path):
    """Images of the model's own size too, which are not resized at a crop of 1."""
    known = dataclasses.replace(
        served.PREPROCESSING, test_crop=test_crop, test_interpolation=interpolation
    )
    own = [pictures.of_mode("RGB", kind, (32, 32)) for kind in ("PNG", "JPEG")]
    images = [*own, *IMAGES]
    module = tf.Module()
    module.prepare = tf.function(
        lambda images: {"prepared": prepared(images, known)},
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
        autograph=False,
    )
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.prepare})
    expected = evaluated(images, known)
    found = module.prepare(tf.constant(images))["prepared"]
    np.testing.assert_array_equal(found, expected)
    found = ask(Session(tmp_path), "serving_default", encoded(*images))["prepared"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("case", served.FAMILIES)
def test_any_number_of_images(case, count):
    session = served.session(case)
    images = evaluated(IMAGES[:2])
    asked = {"serving_default": images, "features": images}
    if not count:  # not every convolution takes no images
        asked = {}
    asked |= dict.fromkeys(("serving_bytes", "classify"), encoded(*IMAGES[:2]))
    for signature, given in asked.items():
        whole = ask(session, signature, given)
        for key, value in ask(session, signature, given[:count]).items():
            assert value.shape == (count, *whole[key].shape[1:])
            if value.dtype.kind == "f" and count:
                assert cases.relative_error(value, whole[key][:count]) < 1e-5


def test_the_network_and_its_variables_are_stored_once():
    from tensorflow.core.protobuf import saved_model_pb2

    folder = served.version(SMALL)
    stored = sum(f.stat().st_size for f in (folder / "variables").iterdir())
    merged = kmlp.merge(served.model(SMALL))
    assert stored < 4 * merged.count_params() + 10_000
    content = (folder / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
    products = sum(
        node.op in ("MatMul", "BatchMatMulV2", "Einsum")
        for function in graph.library.function
        for node in function.node_def
    )
    audit = kmlp.export.audit(folder)
    assert products == sum(audit.groups["fully connected"].values())
    assert audit.fully_connected_only


def test_what_lies_beside_the_model():
    folder = served.version(SMALL) / EXTRA
    names = (folder / CLASS_NAMES).read_text(encoding="utf-8").splitlines()
    assert tuple(names) == served.CLASS_NAMES
    assert (folder / FILE).stat().st_size < 50_000
    asked = [
        (
            request.model_spec.name,
            request.model_spec.signature_name,
            [tensor.tensor_shape.dim[0].size for tensor in request.inputs.values()],
        )
        for request in read_warmup(folder / FILE)
    ]
    signatures = list(served.session(SMALL).signatures)
    assert sorted(asked) == sorted(
        (SMALL, signature, [batch]) for signature in signatures for batch in (1, 4)
    )
    session = served.session(SMALL)
    for request in read_warmup(folder / FILE):
        tensors = {key: tf.make_ndarray(t) for key, t in request.inputs.items()}
        session.predict(tensors, request.model_spec.signature_name)


def test_the_origin_tells_what_was_embedded():
    known = origin.read(served.version(SMALL))
    assert known["preprocessing"]["test_crop"] == served.PREPROCESSING.test_crop
    assert tuple(known["class_names"]) == served.CLASS_NAMES
    assert known["equality"]["relative_difference"] < 1e-5
    assert known["audit"]["fully_connected_only"]


def test_all_is_there_before_the_version_appears(tmp_path, monkeypatch):
    module = importlib.import_module("kmlp.export.warmup")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_warmup", fail)
    with pytest.raises(OSError, match="No space left"):
        kmlp.export.saved_model(served.model(SMALL), tmp_path)
    assert not list(tmp_path.iterdir())


def test_warm_up_records_stay_small(tmp_path, monkeypatch):
    module = importlib.import_module("kmlp.export.warmup")
    specs = [tf.TensorSpec((None, 4096, 4096, 3), tf.float32, name="images")]
    function = tf.function(lambda images: images, input_signature=specs)
    module.write_warmup(tmp_path / FILE, {"serving_default": function}, "m")
    assert (tmp_path / FILE).stat().st_size < 1000 < LARGEST_FILE
    monkeypatch.setattr(module, "LARGEST_FILE", 100)
    module.write_warmup(tmp_path / FILE, {"serving_default": function}, "m")
    assert len(read_warmup(tmp_path / FILE)) == 1


def test_without_preprocessing_images_are_classified(tmp_path):
    model = served.model(SMALL)
    folder = kmlp.export.saved_model(
        model, tmp_path, class_names=list("abcdefghij"), top_k=50, warmup=False
    )
    session = Session(folder)
    assert set(session.signatures) == {"serving_default", "classify", "features"}
    images = cases.images(model)
    found = ask(session, "classify", images)
    assert found["classes"].shape == found["scores"].shape == (2, 10)
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, rtol=1e-5)
    assert not (folder / EXTRA / FILE).exists()


def test_classes_without_names_are_numbers(tmp_path):
    folder = kmlp.export.saved_model(served.model(SMALL), tmp_path, warmup=False)
    names = (folder / EXTRA / CLASS_NAMES).read_text().split()
    assert names == list(map(str, range(10)))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [(None, False), ("linear", False), ("softmax", True), ("sigmoid", True)],
)
def test_scores_of_a_head_with_an_activation_are_its_outputs(activation, expected):
    model = served.model(SMALL, head_activation=activation)
    assert has_activation(model) is expected
    assert has_activation(kmlp.merge(model)) is expected
    inputs = keras.Input((32, 32, 3))
    assert has_activation(keras.Model(inputs, model(inputs))) is expected
    assert has_activation(keras.Sequential([inputs, model])) is expected


@pytest.mark.parametrize(
    "end",
    [keras.layers.Softmax(), keras.layers.Activation("sigmoid"), keras.ops.softmax],
)
def test_activations_of_their_own_layer(end):
    inputs = keras.Input((4,))
    assert has_activation(keras.Model(inputs, end(keras.layers.Dense(3)(inputs))))


def test_outputs_that_are_scores_are_classified_as_they_are(tmp_path):
    model = served.model(SMALL, head_activation="sigmoid")
    session = Session(kmlp.export.saved_model(model, tmp_path, warmup=False))
    images = cases.images(model)
    found = ask(session, "classify", images)["scores"]
    outputs = ask(session, "serving_default", images)["output_0"]
    np.testing.assert_array_equal(found, -np.sort(-outputs, axis=1)[:, :5])


def changed(**values):
    return {"preprocessing": dataclasses.replace(served.PREPROCESSING, **values)}


NAMES = list("abcdefghij")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": NAMES[:9]}, "10 classes. Received: 9 class names"),
        ({"class_names": [*NAMES[:9], "a"]}, r"Received more than once: \['a'\]"),
        ({"class_names": [*NAMES[:9], " "]}, r"not empty. Received: \[' '\]"),
        ({"class_names": [*NAMES[:9], "a\nb"]}, r"one line each"),
        ({"class_names": [*NAMES[:9], "a\n"]}, r"one line each"),
        ({"class_names": range(10)}, r"a list of strings. Received: .*\[0, 1, 2\]"),
        ({"class_names": "abcdefghij"}, "a list of strings. Received: .*'abc'"),
        (changed(class_names=("a", "b")), "Received: 2 class names"),
        (changed(image_size=64), "32x32 pixels. Received: image_size=64"),
        (changed(test_crop=None, mean=None), "Received: no mean, test_crop"),
        ({"top_k": 0}, "positive integer. Received: top_k=0"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    arguments, message, tmp_path, monkeypatch
):
    module = importlib.import_module("kmlp.export.saved_model")
    monkeypatch.setattr(module, "in_dense_form", lambda *_: pytest.fail("worked"))
    with pytest.raises(ValueError, match=message) as error:
        kmlp.export.saved_model(served.model(SMALL), tmp_path, **arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_models_of_other_shapes_take_no_encoded_images():
    model = cases.build(SMALL)  # 32x48
    with pytest.raises(ValueError, match=r"square .* Received: .* 32x48"):
        offer(model, input_specs(model), preprocessing=served.PREPROCESSING)
    backbone = cases.build(SMALL, input_shape=(32, 32, 3), include_top=False)
    specs = input_specs(backbone)
    found = offer(backbone, specs, preprocessing=served.PREPROCESSING)
    assert found.class_names is None
    with pytest.raises(ValueError, match=r"one output \(N, classes\)"):
        offer(backbone, specs, class_names=NAMES)


def test_nothing_known_of_images_is_no_preprocessing():
    model = served.model(SMALL)
    unknown = Preprocessing(class_names=tuple(NAMES), image_size=32)
    found = offer(model, input_specs(model), preprocessing=unknown)
    assert found.preprocessing is None
    assert found.class_names == tuple(NAMES)


def test_missing_messages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(
        ImportError, match="pip install tensorflow-serving-api"
    ) as error:
        kmlp.export.saved_model(served.model(SMALL), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
