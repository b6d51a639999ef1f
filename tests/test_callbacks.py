"""MergeAndExport: what it publishes, when, and that training does not notice."""

import json
import os
import pathlib
import subprocess
import sys

import cases
import keras
import numpy as np
import pytest

from kmlp import callbacks
from kmlp.artifacts import origin
from kmlp.artifacts.running import load_saved_model, load_tflite, run_model
from kmlp.callbacks import MergeAndExport

ROOT = pathlib.Path(__file__).parents[1]
SMALL = "resmlp_local"
IMAGES = np.random.default_rng(0).normal(size=(16, 32, 48, 3)).astype("float32")
LABELS = np.arange(16) % 10


def compiled(case=SMALL, optimizer=None, run_eagerly=True, jit_compile=False, **kwargs):
    keras.utils.set_random_seed(0)
    model = cases.build(case, **kwargs)
    model.compile(
        optimizer or keras.optimizers.AdamW(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        run_eagerly=run_eagerly,
        jit_compile=jit_compile,
    )
    return model


def fit(model, *used, epochs=2, **kwargs):
    return model.fit(
        IMAGES,
        LABELS,
        epochs=epochs,
        batch_size=8,
        verbose=0,
        callbacks=list(used),
        **kwargs,
    )


def values(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


class Logged(keras.callbacks.Callback):
    """Puts given values into the logs, as a metric would."""

    def __init__(self, **per_epoch):
        super().__init__()
        self.per_epoch = per_epoch

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: series[epoch] for name, series in self.per_epoch.items()})


class Recorder(keras.callbacks.Callback):
    """Keeps what every epoch's last step left: weights, averages, optimizer."""

    def __init__(self):
        super().__init__()
        self.averages = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights = values(self.model.weights)
        self.optimizer = values(self.model.optimizer.variables)
        if self.model.optimizer.use_ema:
            self.last = values(self.model.optimizer._model_variables_moving_average)

    def on_epoch_begin(self, epoch, logs=None):
        self.last = None

    def on_epoch_end(self, epoch, logs=None):
        self.averages.append(self.last)


class Unchanged(keras.callbacks.Callback):
    """Behind `MergeAndExport`: nothing of the training has changed."""

    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder
        self.checked = 0

    def on_epoch_end(self, epoch, logs=None):
        assert_same(values(self.model.weights), self.recorder.weights)
        assert_same(values(self.model.optimizer.variables), self.recorder.optimizer)
        self.checked += 1


def outputs(path):
    return load_saved_model(path)(IMAGES)["output_0"]


def assert_holds(path, trainable, model):
    """The version equals the model with these trainable weights."""
    twin = cases.build(SMALL)
    twin.set_weights(model.get_weights())
    for variable, value in zip(twin.trainable_variables, trainable, strict=True):
        variable.assign(value)
    expected = run_model(twin, IMAGES)["output_0"]
    assert cases.relative_error(outputs(path), expected) < 1e-5


def test_the_end_of_training_is_published(tmp_path, capsys):
    model = compiled()
    export = MergeAndExport(tmp_path)
    fit(model, export)
    assert export.exported == [tmp_path / "1"]
    assert os.listdir(tmp_path) == ["1"]
    expected = run_model(model, IMAGES)["output_0"]
    assert cases.relative_error(outputs(tmp_path / "1"), expected) < 1e-5
    lite = load_tflite(tmp_path / "1" / "model.tflite")(IMAGES)["output_0"]
    assert cases.relative_error(lite, expected) < 1e-5
    report = json.loads((tmp_path / "1" / "report.json").read_text())
    assert report["epoch"] == export.report["epoch"] == 2
    assert export.report["failure"] is None
    assert set(report["differences"]) == {"saved_model", "tflite"}
    assert all(0 < d < 1e-5 for d in report["differences"].values())
    assert export.report["fully_connected_only"]["tflite"]
    assert str(tmp_path / "1") in capsys.readouterr().out


def test_convolutions_become_fully_connected_on_request(tmp_path):
    one = {"depths": (1,), "widths": (8,), "mlp_ratios": (2,), "stem_width": 4}
    model = compiled("convmlp", input_shape=(32, 48, 3), **one)
    export = MergeAndExport(tmp_path, dense="all", verbose=0)
    fit(model, export, epochs=1)
    assert all(0 < d < 1e-5 for d in export.report["differences"].values())
    for path in (tmp_path / "1", tmp_path / "1" / "model.tflite"):
        known = origin.read(path)
        assert known["audit"]["convolution_free"]
        assert known["dense"]["layers"]["tokenizer_pool"] == "shifts"
    with pytest.raises(ValueError, match="dense"):
        MergeAndExport(tmp_path, dense="some")


@pytest.mark.parametrize(
    ("monitor", "mode", "series", "epochs"),
    [
        ("val_accuracy", "auto", [0.5, 0.4, 0.7, 0.7], [1, 3]),
        cases.long("val_loss", "auto", [3.0, 4.0, 2.0, 1.0], [1, 3, 4]),
        ("mystery", "min", [3.0, 4.0], [1]),
    ],
)
def test_best_epochs_are_published(tmp_path, monitor, mode, series, epochs):
    export = MergeAndExport(tmp_path, monitor, mode, "best", tflite=False, verbose=0)
    fit(compiled(), Logged(**{monitor: series}), export, epochs=len(series))
    reports = [json.loads((p / "report.json").read_text()) for p in export.exported]
    assert [report["epoch"] for report in reports] == epochs
    assert reports[-1]["monitored"] == {monitor: series[epochs[-1] - 1]}


@pytest.mark.long
def test_training_does_not_notice(tmp_path):
    model, recorder = compiled(), Recorder()
    unchanged = Unchanged(recorder)
    export = MergeAndExport(tmp_path, "loss", save="best", tflite=False, verbose=0)
    with_export = fit(model, recorder, export, unchanged).history
    assert unchanged.checked == 2
    assert export.exported
    assert with_export["loss"] == fit(compiled()).history["loss"]


@pytest.mark.parametrize("order", ["alone", *map(cases.long, ("before", "after"))])
def test_averages_are_published_at_the_best_epoch(tmp_path, order):
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    model, recorder = compiled(optimizer=optimizer), Recorder()
    export = MergeAndExport(tmp_path, "loss", save="best", tflite=False, verbose=0)
    used = [recorder, Logged(loss=[2.0, 1.0, 3.0]), export]
    if order == "alone":
        used.append(unchanged := Unchanged(recorder))
    else:
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        used.insert(2 if order == "before" else 3, swap)
    statistics = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: statistics.append(values(model.non_trainable_variables))
    )
    fit(model, *used, keep, epochs=3, validation_data=(IMAGES, LABELS))
    assert export.report["averaged_weights"]
    assert len(export.exported) == 2
    for epoch, path in enumerate(export.exported):
        for variable, value in zip(model.non_trainable_variables, statistics[epoch]):
            variable.assign(value)
        assert_holds(path, recorder.averages[epoch], model)
    if order == "alone":
        assert unchanged.checked == 3


def test_averages_are_published_at_the_end(tmp_path):
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    model, recorder = compiled(optimizer=optimizer), Recorder()
    export = MergeAndExport(tmp_path, tflite=False, verbose=0)
    fit(model, recorder, export)
    assert_holds(export.exported[0], recorder.averages[-1], model)


def test_weights_that_another_callback_restores_are_published(tmp_path):
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    model = compiled(optimizer=optimizer)
    stop = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    export = MergeAndExport(tmp_path, tflite=False, verbose=0)
    fit(model, Logged(loss=[1.0, 2.0, 3.0]), stop, export, epochs=3)
    assert_holds(export.exported[0], values(model.trainable_variables), model)


def corrupt(monkeypatch, when):
    """Writes wrong SavedModels while `when()` holds."""
    write = callbacks.write_saved_model

    def corrupted(model, folder, **options):
        if when():
            head = model.layers[-1].dense
            head.kernel.assign(head.kernel * 1.01)
        write(model, folder, **options)

    monkeypatch.setattr(callbacks, "write_saved_model", corrupted)


def test_a_wrong_artifact_is_not_published(tmp_path, monkeypatch):
    export = MergeAndExport(tmp_path, "loss", save="best", tflite=False, verbose=0)
    corrupt(monkeypatch, lambda: export._epoch == 1)
    with pytest.warns(UserWarning, match="saved_model differ .* tolerance=0.0001"):
        fit(compiled(), Logged(loss=[3.0, 1.0, 2.0]), export, epochs=3)
    # The second epoch was not published, so that the third is the best so far.
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    reports = [json.loads((p / "report.json").read_text()) for p in export.exported]
    assert [report["epoch"] for report in reports] == [1, 3]
    assert export.best == 2.0


def test_a_wrong_tflite_file_is_not_published(tmp_path, monkeypatch):
    write = callbacks.write_tflite

    def corrupted(model, file, **options):
        head = model.layers[-1].dense
        head.kernel.assign(head.kernel * 1.01)
        write(model, file, **options)

    monkeypatch.setattr(callbacks, "write_tflite", corrupted)
    with pytest.warns(UserWarning, match="tflite differ"):
        fit(compiled(), export := MergeAndExport(tmp_path, verbose=0), epochs=1)
    assert not os.listdir(tmp_path)
    assert export.report["published"] is None
    assert export.report["differences"]["saved_model"] < 1e-5


def test_failure_raises_where_asked(tmp_path, monkeypatch):
    corrupt(monkeypatch, lambda: True)
    export = MergeAndExport(tmp_path, tflite=False, on_failure="raise")
    with pytest.raises(RuntimeError, match="saved_model differ"):
        fit(compiled(), export, epochs=1)
    assert not os.listdir(tmp_path)


def test_nan_is_not_published(tmp_path):
    model = compiled(optimizer=keras.optimizers.SGD(float("nan")))
    message = "NaN or infinite: go back .*Received: NaN or infinity in .*kernel"
    with pytest.warns(UserWarning, match=message):
        fit(model, MergeAndExport(tmp_path, tflite=False), epochs=1)
    assert not os.listdir(tmp_path)


def test_quantised_files_are_reported_only(tmp_path):
    export = MergeAndExport(
        tmp_path, quantize="int8", representative_data=IMAGES, verbose=0
    )
    fit(compiled(), export, epochs=1)
    assert export.report["differences"]["tflite"] > export.tolerance
    assert export.report["published"] == str(tmp_path / "1")
    assert (tmp_path / "1" / "model.tflite").exists()


@pytest.mark.long
def test_compiled_training_in_mixed_precision(tmp_path):
    model = compiled(dtype="mixed_bfloat16", run_eagerly=False, jit_compile=True)
    export = MergeAndExport(tmp_path, tflite=False, verbose=0, on_failure="raise")
    fit(model, export, epochs=1)
    # Exact against the same weights in float32, near what the model gives itself.
    assert export.report["differences"]["saved_model"] < 1e-5
    expected = run_model(model, IMAGES)["output_0"]
    assert cases.relative_error(outputs(tmp_path / "1"), expected) < 0.1


@pytest.mark.long
def test_two_replicas_within_their_scope(tmp_path):
    script = f"""
import sys
sys.path[:0] = ["{ROOT}", "{ROOT / "tests"}"]
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import keras
import kmlp
import test_callbacks as t
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    optimizer = keras.optimizers.AdamW(1e-3, use_ema=True)
    model = t.compiled(optimizer=optimizer, run_eagerly=False)
    recorder = t.Recorder()
    export = t.MergeAndExport(
        sys.argv[1], "loss", save="best", tflite=False, on_failure="raise"
    )
    t.fit(model, recorder, export, t.Unchanged(recorder), epochs=1)
    # Within the scope, like the callback's export.
    trained = kmlp.export.saved_model(model, sys.argv[1] + "/trained")
t.assert_holds(export.exported[0], recorder.averages[0], model)
t.assert_holds(trained, t.values(model.trainable_variables), model)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.long
def test_unknown_sizes_need_a_sample(tmp_path):
    small = {"widths": (8, 16), "depths": (1, 1), "mlp_ratios": (2, 2)}
    model = compiled("convmlp", input_shape=(None, None, 3), **small)
    with pytest.raises(ValueError, match="needs `sample`"):
        fit(model, MergeAndExport(tmp_path))
    fit(model, MergeAndExport(tmp_path, sample=IMAGES[:2], verbose=0), epochs=1)
    lite = load_tflite(tmp_path / "1" / "model.tflite")(IMAGES)["output_0"]
    expected = run_model(model, IMAGES)["output_0"]
    assert cases.relative_error(lite, expected) < 1e-5


def test_a_value_that_is_not_logged_is_named(tmp_path):
    export = MergeAndExport(tmp_path, save="best")
    with pytest.warns(UserWarning, match="'val_accuracy'.*not logged.*accuracy, loss"):
        fit(compiled(), export, epochs=1)
    assert not export.exported


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"save": "always"}, "Received: save='always'"),
        ({"mode": "up"}, "Received: mode='up'"),
        ({"on_failure": "ignore"}, "Received: on_failure='ignore'"),
        ({"save": "best", "monitor": None}, "needs `monitor`"),
        ({"tolerance": 0}, "positive. Received: tolerance=0"),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        MergeAndExport(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample": np.zeros((2, 8, 8, 3))}, r"Received: shape \(2, 8, 8, 3\)"),
        ({"quantize": "int4"}, "Received: quantize='int4'"),
        ({"quantize": "int8"}, "representative_data"),
    ],
)
def test_what_does_not_fit_is_named_before_training(arguments, message, tmp_path):
    before = values((model := compiled()).weights)
    with pytest.raises(ValueError, match=message):
        fit(model, MergeAndExport(tmp_path, **arguments))
    assert_same(values(model.weights), before)


def test_an_unwritable_folder_is_named_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Cannot write"):
        fit(compiled(), MergeAndExport(tmp_path / "file"))


def test_what_it_publishes_carries_its_origin(tmp_path):
    model = compiled(optimizer=keras.optimizers.AdamW(1e-3, use_ema=True))
    names = [f"class {index}" for index in range(10)]
    fit(model, MergeAndExport(tmp_path, class_names=names))
    for path in (tmp_path / "1", tmp_path / "1" / "model.tflite"):
        found = origin.read(path)
        # `fit` ends by putting the averages, which were exported, into the model.
        assert found["weights_sha256"] == origin.weights_sha256(model)
        assert found["class_names"] == names
        assert found["form"] == origin.MERGED
        assert found["artifact"]["epoch"] == 2
        batch = found["artifact"].get("batch")
        assert batch == ("any" if path.name == "model.tflite" else None)
        assert 0 < found["equality"]["relative_difference"] < 1e-5
        assert found["audit"]["fully_connected_only"]


@pytest.mark.parametrize("names", [["a"] * 10, ["a", "b"], "0123456789"])
def test_class_names_that_do_not_fit_are_refused_before_training(names, tmp_path):
    model = compiled()
    before = values(model.weights)
    with pytest.raises(ValueError, match=r"class_names.*Received"):
        fit(model, MergeAndExport(tmp_path, class_names=names))
    assert_same(values(model.weights), before)
