"""What a layer holds beside its weights is in every artifact, or is refused."""

import keras
import numpy as np
import pytest
from cases import build, images, long, relative_error, run
from keras import layers
from test_divergence import Table, attribute, graph, lora_inside, quantized

import kmlp
from kmlp.artifacts.running import load_saved_model, load_tflite
from kmlp.layers import BatchNorm

X = 3 * np.random.default_rng(0).normal(size=(4, 6, 4, 8)).astype("float32") + 2


def adapted(policy="float32"):
    norm = layers.Normalization(dtype=policy)
    norm.adapt(X)
    return graph(lambda x: BatchNorm(dtype=policy)(norm(x)))


def table():
    layer = Table()
    model = graph(lambda x: BatchNorm()(layer(x)))
    layer.table = np.arange(8, dtype="float32")
    return model


CASES = {
    "adapted": (adapted, 1e-5),
    "adapted in half precision": (lambda: adapted("mixed_bfloat16"), 2e-2),
    "table": (table, 1e-5),
    "LoRA": (lambda: lora_inside()[0], 1e-5),
}


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        ("saved_model", "adapted"),
        ("tflite", "adapted"),
        *(long(kind, c) for kind in ("saved_model", "tflite") for c in list(CASES)[1:]),
    ],
)
def test_states_are_exported(kind, case, tmp_path):
    make, allowed = CASES[case]
    model = make()
    expected = np.asarray(run(model, X), "float32")
    path = getattr(kmlp.export, kind)(model, tmp_path / "a.tflite")
    load = load_tflite if kind == "tflite" else load_saved_model
    (found,) = load(path)(X).values()
    assert relative_error(found, expected) <= allowed


@pytest.mark.parametrize("kind", ["saved_model", "tflite"])
def test_what_cannot_be_carried_is_refused(kind, tmp_path):
    with pytest.raises(ValueError, match="no equal form of 'attribute"):
        getattr(kmlp.export, kind)(attribute(), tmp_path / "a")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_precision_loses_no_state(tmp_path):
    """The step to float32 is a copy too."""
    model = attribute()
    for layer in model.layers:
        layer.dtype_policy = keras.dtype_policies.get("mixed_bfloat16")
    with pytest.raises(ValueError, match="no equal form of 'attribute"):
        kmlp.export.saved_model(model, tmp_path, merge=False)


def test_a_quantized_model_is_no_tflite_file(tmp_path):
    with pytest.raises(ValueError, match=r"quantization of their own.*to int8"):
        kmlp.export.tflite(quantized("int8"), tmp_path / "a.tflite")


def test_a_quantized_inference_form_is_a_saved_model(tmp_path):
    from test_divergence import quiet_quantize

    model = kmlp.merge(build("resmlp"))
    quiet_quantize(model, "int8")
    x = images(model)
    (found,) = load_saved_model(kmlp.export.saved_model(model, tmp_path))(x).values()
    assert relative_error(found, run(model, x)) <= 1e-5
