"""The JSON that travels within an artifact, and what `kmlp info` makes of it."""

import json
import re
import shutil
import zipfile

import artifacts
import cases
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.running import load_saved_model, load_tflite
from kmlp.commands import main
from kmlp.errors import KmlpError
from kmlp.preprocessing import Preprocessing, preprocessing_of

SMALL = "resmlp_local"
ENTRIES = {"format": 1, "architecture": "ä", "accuracies": {}}
PREPARED = Preprocessing(
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    image_size=32,
    test_crop=0.9,
    test_interpolation="bicubic",
    class_names=tuple("abcde"),
)


def keras_file(folder):
    path = folder / "model.keras"
    artifacts.built(SMALL).save(path)
    return path


def saved_model(folder):
    return shutil.copytree(artifacts.saved_model(SMALL), folder / "1")


def tflite(folder):
    return shutil.copy(artifacts.tflite(SMALL), folder / "model.tflite")


def said(path):
    """What an artifact says, but for the digest that every one has."""
    found = origin.read(path)
    assert re.fullmatch(r"[0-9a-f]{64}", found.pop(origin.DIGEST))
    return found


RUN = {
    keras_file: lambda path: lambda x: keras.saving.load_model(path)(x).numpy(),
    saved_model: lambda path: lambda x: load_saved_model(path)(x)["output_0"],
    tflite: lambda path: lambda x: load_tflite(path)(x)["output_0"],
}


@pytest.mark.parametrize("make", RUN)
def test_an_artifact_carries_it_and_answers_as_before(make, tmp_path):
    path = make(tmp_path)
    images = cases.images(artifacts.built(SMALL))
    before = RUN[make](path)(images)
    for entries in (ENTRIES, {**ENTRIES, "architecture": "b" * 5000}):
        origin.write(path, entries)
        assert said(path) == entries
    origin.add(path, accuracies={"x": 1}, further=None)
    assert said(path) == {**entries, "accuracies": {"x": 1}, "further": None}
    np.testing.assert_array_equal(RUN[make](path)(images), before)


def test_there_may_be_none(tmp_path):
    path = keras_file(tmp_path)
    assert origin.read(path) is None
    origin.add(path, further=1)
    assert said(path) == {"format": 1, "further": 1}


def test_constants_of_a_tflite_file_stay_aligned(tmp_path):
    path = tflite(tmp_path)
    origin.write(path, ENTRIES)
    content = path.read_bytes()
    model = schema.Model.GetRootAs(content)
    starts = {
        buffer._tab.Vector(buffer._tab.Offset(4)) % 16
        for buffer in map(model.Buffers, range(model.BuffersLength()))
        if not buffer.DataIsNone()
    }
    assert starts == {0}
    assert kmlp.export.audit(path) == kmlp.export.audit(artifacts.tflite(SMALL))


def test_the_description_is_the_models():
    model = artifacts.built(SMALL)
    found = origin.describe(model, form=origin.MERGED, preprocessing=PREPARED)
    assert found == json.loads(json.dumps(found))
    assert found["class"] == "kmlp.models.resmlp.ResMLP"
    again = kmlp.ResMLP.from_config(found["configuration"])
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    assert found["parameters"]["trainable"] == kmlp.profile(model).trainable
    assert found["preprocessing"]["test_crop"] == 0.9
    assert found["class_names"] == list("abcde")
    assert found["versions"]["keras"] == keras.__version__


def test_the_hash_is_of_the_values_alone(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert origin.weights_sha256(model) != origin.weights_sha256(other)
    other.set_weights(model.get_weights())
    assert origin.weights_sha256(model) == origin.weights_sha256(other)
    flat = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    kernel = model.get_weights()[0]
    flat.set_weights([kernel.reshape(2, 3), np.zeros(3)])
    other.set_weights([kernel, np.zeros(2)])
    assert origin.weights_sha256(flat) != origin.weights_sha256(other)


def test_a_write_that_fails_leaves_the_artifact(tmp_path, monkeypatch):
    path = keras_file(tmp_path)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space"):
        origin.write(path, ENTRIES)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_preprocessing_travels_within(tmp_path):
    path = keras_file(tmp_path)
    model = artifacts.built(SMALL)
    origin.write(
        path, origin.describe(model, form="train form", preprocessing=PREPARED)
    )
    found = preprocessing_of(path)
    for name in ("mean", "std", "image_size", "test_crop", "class_names"):
        assert getattr(found, name) == getattr(PREPARED, name)
    assert found.complete
    # The artifact itself knows better than what lies beside it.
    (tmp_path / "recipe.json").write_text(json.dumps({"mean": [0, 0, 0]}))
    assert preprocessing_of(path).mean == PREPARED.mean
    path.unlink()
    assert preprocessing_of(path).mean == (0, 0, 0)


@pytest.mark.parametrize("make", RUN)
def test_info_shows_it(make, tmp_path, capsys):
    path = make(tmp_path)
    origin.write(
        path,
        {
            **origin.describe(
                artifacts.built(SMALL), form=origin.MERGED, preprocessing=PREPARED
            ),
            "accuracies": {"top1": 0.875, "images": 1000, "trained_top1": 0.9},
            "equality": {"with": "train form", "relative_difference": 1.5e-6},
            "audit": {"fully_connected_only": True, "operations": {"MatMul": 3}},
        },
    )
    assert main.main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    for words in (
        f" {path}, ",
        "local_kernels=[1, 3]",
        "sha256 " + origin.weights_sha256(artifacts.built(SMALL)),
        "32x32, 0.9 of the shorter side, bicubic, mean 0.1 0.2 0.3",
        "5: a, b, c, d, e",
        "87.50% of 1,000 images (trained 90.00%)",
        "relative difference 1.5e-06",
        "fully connected only: MatMul 3",
        f"keras {keras.__version__}",
    ):
        assert words in shown
    assert main.main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == origin.read(path)


def test_info_opens_a_checkpoint_that_says_nothing(tmp_path, capsys):
    path = keras_file(tmp_path)
    assert main.main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "patch_size=8" in shown
    assert "sha256" in shown


def test_info_says_where_nothing_is_known(tmp_path, capsys):
    path = saved_model(tmp_path)
    shutil.rmtree(path / "assets.extra", ignore_errors=True)
    assert main.main(["info", str(path)]) == 0
    assert "unknown" in capsys.readouterr().out
    assert main.main(["info", str(path), "--json"]) == 2
    assert "says nothing of its origin" in capsys.readouterr().err


def damaged(folder):
    path = keras_file(folder)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def unreadable(folder):
    path = saved_model(folder)
    (path / "assets.extra").mkdir(exist_ok=True)
    (path / "assets.extra" / "origin.json").write_text("{")
    return path


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (damaged, [], ["damaged"]),
        (unreadable, [], ["damaged", "export it again"]),
        (lambda folder: folder / "none.keras", [], ["does not exist"]),
        (lambda folder: folder, [], ["has none of saved_model.pb"]),
        (keras_file, ["--layers"], ["--layers", "architecture"]),
        (keras_file, ["--num-classes", "3"], ["--num-classes", "architecture"]),
        (lambda _: "convmlp_s", ["--json"], ["--json", "'convmlp_s'"]),
    ],
)
def test_bad_input_gets_one_line(make, arguments, words, tmp_path, capsys):
    assert main.main(["info", str(make(tmp_path)), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    for word in (*words, "Received"):
        assert word in captured.err


def test_only_artifacts_take_one(tmp_path):
    (tmp_path / "text.keras").write_text("no archive")
    with pytest.raises(KmlpError, match="neither of them"):
        origin.write(tmp_path / "text.keras", ENTRIES)
