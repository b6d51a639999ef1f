"""The audit reads the artifact, and only fully connected networks pass it."""

import shutil

import artifacts
import cases
import keras
import pytest
import tensorflow as tf

import kmlp
from kmlp.artifacts import origin, origin_text

FORMATS = {"SavedModel": artifacts.saved_model, "TFLite": artifacts.tflite}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", cases.spread(cases.FULLY_CONNECTED))
def test_inference_forms_are_fully_connected_only(case, kind):
    found = kmlp.export.audit(FORMATS[kind](case))
    assert found.kind == kind
    assert found.other == {}
    assert found.fully_connected_only
    assert ": fully connected only" in str(found)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("case", "merge", "breaker"),
    [
        ("repmlpnet", False, "DepthwiseConv2dNative/DEPTHWISE_CONV_2D"),
        ("resmlp_layer_norm", True, "Rsqrt/RSQRT"),
        ("convmlp", True, "Conv2D/CONV_2D"),
        cases.long("resmlp_local", False, "DepthwiseConv2dNative/DEPTHWISE_CONV_2D"),
        cases.long("msmlp_mix_shift", True, "DepthwiseConv2dNative/DEPTHWISE_CONV_2D"),
        cases.long("smlpnet", True, "DepthwiseConv2dNative/DEPTHWISE_CONV_2D"),
    ],
)
def test_other_networks_are_not(case, merge, breaker, kind):
    found = kmlp.export.audit(FORMATS[kind](case, merge))
    name = breaker.split("/")[kind == "TFLite"]
    assert found.other[name] == found[name] > 0
    assert not found.fully_connected_only
    assert "not fully connected only" in str(found)
    assert f"{name} {found[name]}" in str(found).splitlines()[-1]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "case",
    cases.few(
        ("convmlp", "convmlp_plain_merge", "msmlp", "msmlp_mix_shift", "smlpnet"),
        "convmlp",
    ),
)
def test_no_convolution_is_left(case, kind):
    """The artifact's outputs equal the train form's, and norms are counted apart."""
    path = FORMATS[kind](case, dense="all")
    found = kmlp.export.audit(path)
    assert found.convolution_free
    assert not found.fully_connected_only  # ConvMLP and others keep layer norms
    assert sum(found.groups["norm"].values()) > 0
    assert found.groups["convolution"] == {}
    assert "not fully connected only, convolution free, " in str(found)
    assert "\n  norm: " in str(found)
    known = origin.read(path)
    assert known["audit"]["convolution_free"]
    assert known["audit"]["norm_operations"] == sum(found.groups["norm"].values())
    assert known["equality"]["relative_difference"] <= 1e-5
    entry = known["dense"]
    before, after = entry["multiply_adds"]
    assert entry["choice"] == "all"
    assert 0 < after <= before < known["multiply_adds"] * 1.01
    assert set(entry["layers"].values()) <= {"position FC", "shifts + FC", "shifts"}
    said = origin_text.describe(path, kind, known)
    assert f"multiply adds {before:,} -> {after:,}" in said
    assert "convolution free" in said


def test_dense_is_a_choice_of_merging(tmp_path):
    model = artifacts.built("convmlp")
    for write in (kmlp.export.saved_model, kmlp.export.tflite):
        with pytest.raises(ValueError, match="dense='all' with merge=False"):
            write(model, tmp_path / "m.tflite", merge=False, dense="all")
    assert not list(tmp_path.iterdir())


def test_counts_are_exact(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(2),
        ]
    )
    path = kmlp.export.saved_model(model, tmp_path)
    assert kmlp.export.audit(path) == {"MatMul": 2, "BiasAdd": 2, "Relu": 1}
    file = kmlp.export.tflite(model, tmp_path / "m.tflite")
    assert kmlp.export.audit(file) == {"FULLY_CONNECTED": 2}


def test_only_what_serving_runs_is_counted(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def inner(x):
        return tf.matmul(x, tf.ones((4, 4)))

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def serve(x):
        tf.sort(x)  # its result is not used
        return {"y": inner(inner(x))}

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def other(x):
        return {"y": tf.nn.l2_normalize(x)}

    module = tf.Module()
    module.weight = tf.Variable(1.0)  # saved and restored
    module.serve, module.other = serve, other
    tf.saved_model.save(
        module, str(tmp_path / "1"), {"serving_default": serve, "other": other}
    )
    assert kmlp.export.audit(tmp_path) == {"MatMul": 2}


def test_branches_and_loops_are_followed(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def serve(x):
        for _ in tf.range(3):
            x = tf.nn.l2_normalize(x)
        return {"y": x}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "1"), {"serving_default": serve})
    assert "Rsqrt" in kmlp.export.audit(tmp_path).other


def test_the_highest_version_is_read(tmp_path):
    shutil.copytree(artifacts.saved_model("resmlp"), tmp_path / "10")
    shutil.copytree(artifacts.saved_model("convmlp"), tmp_path / "9")
    found = kmlp.export.audit(tmp_path)
    assert found.path == tmp_path / "10"
    assert "Conv2D" not in found
    assert "Conv2D" in kmlp.export.audit(tmp_path / "9")


@pytest.mark.parametrize("name", ["missing", "empty", "text.tflite"])
def test_what_is_no_artifact_is_named(name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tflite").write_text("not a flatbuffer")
    with pytest.raises(ValueError, match=f"no artifact to audit.*{name}"):
        kmlp.export.audit(tmp_path / name)
