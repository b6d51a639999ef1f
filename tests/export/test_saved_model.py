"""SavedModels: equal to the model, versioned, whole or absent."""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import threading

import artifacts
import cases
import keras
import numpy as np
import pytest
import tensorflow as tf

import kmlp
from kmlp import atomic
from kmlp.artifacts.running import load_saved_model, run_model
from kmlp.errors import InputError
from kmlp.models.registry import VARIANTS

ROOT = pathlib.Path(__file__).parents[2]
SMALL = "resmlp_local"


def test_the_table_covers_all_families():
    families = {family.__name__ for family, _ in cases.CASES.values()}
    assert families == {family for family, _ in VARIANTS.values()}


@pytest.mark.parametrize("case", cases.spread(cases.CASES))
def test_outputs_equal_the_trained_models(case):
    run = load_saved_model(artifacts.saved_model(case))
    for batch in (1, 3):
        images = cases.images(artifacts.built(case), batch)
        outputs = run(images)
        assert list(outputs) == ["output_0"]
        error = cases.relative_error(
            outputs["output_0"], artifacts.expected(case, images)
        )
        assert error < 1e-5


def test_the_train_form_is_exported_where_asked():
    images = cases.images(artifacts.built(SMALL))
    outputs = load_saved_model(artifacts.saved_model(SMALL, merge=False))(images)
    expected = artifacts.expected(SMALL, images)
    assert cases.relative_error(outputs["output_0"], expected) < 1e-6


def test_the_signature_is_the_models_with_a_free_batch():
    from tensorflow.core.protobuf import saved_model_pb2

    content = (artifacts.saved_model(SMALL) / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    signature = graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert list(signature.inputs) == ["images"]
    images = signature.inputs["images"]
    assert images.dtype == tf.float32.as_datatype_enum
    assert [d.size for d in images.tensor_shape.dim] == [-1, 32, 48, 3]


def test_each_variable_is_stored_once():
    folder = artifacts.saved_model(SMALL)
    stored = sum(f.stat().st_size for f in (folder / "variables").iterdir())
    merged = kmlp.merge(artifacts.built(SMALL))
    assert stored < 4 * merged.count_params() + 10_000


def test_the_model_is_left_untouched(tmp_path):
    model = artifacts.built(SMALL)
    before = model.get_weights()
    kmlp.export.saved_model(model, tmp_path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.long
def test_a_fresh_session_serves_it(tmp_path):
    """The loader of TensorFlow 1 is the one nearest to the serving binary's."""
    images = cases.images(artifacts.built(SMALL))
    np.save(tmp_path / "images.npy", images)
    script = """
import sys
import numpy as np
import tensorflow as tf
assert "kmlp" not in sys.modules
folder, inputs, outputs = sys.argv[1:]
v1 = tf.compat.v1
with v1.Session(graph=tf.Graph()) as session:
    graph = v1.saved_model.load(session, ["serve"], folder)
    signature = graph.signature_def["serving_default"]
    fetched = session.run(
        signature.outputs["output_0"].name,
        {signature.inputs["images"].name: np.load(inputs)},
    )
np.save(outputs, fetched)
"""
    files = (artifacts.saved_model(SMALL), tmp_path / "images.npy", tmp_path / "o.npy")
    subprocess.run([sys.executable, "-c", script, *map(str, files)], check=True)
    expected = artifacts.expected(SMALL, images)
    assert cases.relative_error(np.load(tmp_path / "o.npy"), expected) < 1e-5


def test_versions_ascend(tmp_path):
    (tmp_path / "9").mkdir()
    (tmp_path / "10").mkdir()
    (tmp_path / "notes-11").mkdir()
    assert kmlp.export.saved_model(artifacts.built(SMALL), tmp_path) == tmp_path / "11"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.long
def test_a_killed_export_leaves_no_version(tmp_path):
    script = f"""
import sys, time
sys.path[:0] = ["{ROOT}", "{ROOT / "tests"}"]
import tensorflow as tf
import cases, kmlp
save = tf.saved_model.save
def hang(*args, **kwargs):
    save(*args, **kwargs)
    print("written", flush=True)
    time.sleep(600)
tf.saved_model.save = hang
kmlp.export.saved_model(cases.build("{SMALL}"), sys.argv[1])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"written\n"
        (draft,) = filter(pathlib.Path.is_dir, tmp_path.iterdir())
        assert (draft / "saved_model.pb").exists()
        # An export beside it does not take the living one's draft for abandoned.
        with atomic.new_version(tmp_path) as other:
            (other.folder / "file").touch()
        assert other.path == tmp_path / "1"
        assert draft.exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [name for name in os.listdir(tmp_path) if name.isdecimal()] == ["1"]
    with atomic.new_version(tmp_path) as next_one:
        assert not draft.exists()
        (next_one.folder / "file").touch()
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_an_error_leaves_no_version(tmp_path):
    def export():
        with atomic.new_version(tmp_path) as draft:
            (draft.folder / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export()
    assert not os.listdir(tmp_path)


def test_concurrent_versions_do_not_replace_each_other(tmp_path):
    barrier = threading.Barrier(8)
    paths = []

    def export(index):
        with atomic.new_version(tmp_path) as draft:
            (draft.folder / "index").write_text(str(index))
            barrier.wait()
        paths.append((draft.path, index))

    threads = [threading.Thread(target=export, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(tmp_path), key=int) == [str(i) for i in range(1, 9)]
    for path, index in paths:
        assert (path / "index").read_text() == str(index)


def test_a_number_taken_meanwhile_is_passed_over(tmp_path, monkeypatch):
    listings = iter([{}, {1: "1"}])
    monkeypatch.setattr(atomic, "_versions", lambda path: next(listings))
    with atomic.new_version(tmp_path) as draft:
        (draft.folder / "file").write_text("late")
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "file").write_text("early")
    assert draft.path == tmp_path / "2"
    assert (tmp_path / "1" / "file").read_text() == "early"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_unwritable_path_is_refused_before_any_work(tmp_path, name, monkeypatch):
    module = importlib.import_module("kmlp.export.saved_model")
    monkeypatch.setattr(module, "in_dense_form", lambda *_: pytest.fail("worked"))
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match=r"Cannot write .* Received: '.*file"):
        kmlp.export.saved_model(artifacts.built(SMALL), tmp_path / name)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_model_that_is_not_built_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="built"):
        kmlp.export.saved_model(model, tmp_path)


@pytest.mark.parametrize("form", ["saved_model", "tflite"])
def test_a_model_that_takes_text_is_refused(form, tmp_path):
    text = keras.Input((), dtype="string")
    words = keras.layers.TextVectorization(vocabulary=["a"], output_mode="multi_hot")
    model = keras.Model(text, keras.layers.Dense(2)(words(text)))
    with pytest.raises(InputError, match=r"Artifacts take numbers.* dtype string"):
        getattr(kmlp.export, form)(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())
    assert kmlp.profile(model).trainable == 6  # `kmlp info` shows it all the same


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        ("repmlpnet_partitioned", "mixed_bfloat16"),
        ("convmlp", "mixed_float16"),
        (SMALL, "bfloat16"),
    ],
)
def test_low_precision_is_exported_in_float32(case, dtype, tmp_path):
    low = artifacts.built(case, dtype=dtype)
    full = cases.build(case)
    full.set_weights([np.asarray(w, "float32") for w in low.get_weights()])
    images = cases.images(full)
    outputs = load_saved_model(kmlp.export.saved_model(low, tmp_path))(images)
    assert outputs["output_0"].dtype == np.float32
    expected = cases.run(full, images, training=False)
    assert cases.relative_error(outputs["output_0"], expected) < 1e-5
    assert low.dtype_policy.name == dtype


class Around(keras.Model):
    """A subclassed model around one of ours."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        family, arguments = cases.CASES[SMALL]
        self.body = family(5, **arguments, dtype=self.dtype_policy)
        self.head = keras.layers.Dense(4, dtype=self.dtype_policy)

    def call(self, inputs):
        return self.head(self.body(inputs))


def nested(kind, dtype):
    inner = artifacts.built(SMALL, dtype=dtype)
    if kind == "sequential":
        return keras.Sequential(
            [keras.Input((32, 48, 3)), keras.layers.Rescaling(0.5), inner]
        )
    if kind == "functional":
        inputs = keras.Input((32, 48, 3), name="pixels")
        outputs = {"one": inner(inputs), "two": inner(inputs * 2.0)}
        return keras.Model(inputs, outputs)
    if kind == "wrapper":
        return keras.Sequential(
            [keras.Input((2, 32, 48, 3)), keras.layers.TimeDistributed(inner)]
        )
    model = Around(dtype=dtype)
    model(np.zeros((1, 32, 48, 3), "float32"))
    return model


@pytest.mark.parametrize("dtype", ["float32", cases.long("mixed_bfloat16")])
@pytest.mark.parametrize("kind", ["sequential", "functional", "wrapper", "subclassed"])
def test_models_around_ours(kind, dtype, tmp_path):
    model = nested(kind, dtype)
    shape = (32, 48, 3) if kind == "subclassed" else model.input_shape[1:]
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    outputs = load_saved_model(kmlp.export.saved_model(model, tmp_path))(images)
    expected = run_model(model, images)
    assert set(outputs) == set(expected)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    for name, value in expected.items():
        assert outputs[name].dtype == np.float32
        assert cases.relative_error(outputs[name], value) < tolerance


def test_unknown_sizes_stay_open(tmp_path):
    model = artifacts.built("convmlp", input_shape=(None, None, 3))
    run = load_saved_model(kmlp.export.saved_model(model, tmp_path))
    for size in ((32, 32), (45, 64)):
        images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        expected = cases.run(model, images, training=False)
        assert cases.relative_error(run(images)["output_0"], expected) < 1e-5


def test_another_backend_gets_one_line_that_names_the_remedy(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.delitem(sys.modules, "kmlp.export")
    with pytest.raises(ImportError, match="KERAS_BACKEND=tensorflow") as error:
        importlib.import_module("kmlp.export")
    assert "\n" not in str(error.value)
