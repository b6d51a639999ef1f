"""`kmlp export`: files that were run before they are published."""

import errno
import json
import os
import shutil
import zipfile

import cases
import keras
import numpy as np
import pytest
import runs

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.opening import open_weights
from kmlp.artifacts.running import load_tflite
from kmlp.commands import main
from kmlp.data.images import some_of
from kmlp.data.sources import open_source
from kmlp.export import forms
from kmlp.export.layer_losses import layer_losses
from kmlp.pretrained.restoring import load_checkpoint

ALL = ("none", "float16", "dynamic", "int8")
FOLDERS = ("saved_model", "openvino")
FEW = ("--images", "60", "--calibration-images", "20")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of a small ResMLP, of a model of Keras' layers and of a spoilt one."""
    folder = tmp_path_factory.mktemp("runs")
    runs.write_run(folder / "resmlp" / "2", runs.resmlp())
    runs.write_run(folder / "reader" / "1", runs.reader())
    runs.write_run(folder / "spoilt" / "1", runs.sabotage(runs.reader()))
    (folder / "resmlp" / "1").mkdir()
    return folder


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs")


def export(*argv):
    return main.main(["export", *map(str, argv)])


def test_a_run_becomes_every_file_beside_its_checkpoint(copied, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    arguments = ("--quantize", *ALL, "--max-drop", "100", "--json", figures)
    assert export(copied / "resmlp", *arguments, *FEW) == 0
    output = capsys.readouterr().out
    assert "run's own data: scikit-learn's handwritten digits" in output
    version = copied / "resmlp" / "2"
    report = json.loads(figures.read_text())
    assert list(report["forms"]) == ["trained", "float32", "float16", "dynamic", "int8"]
    for name in ("float32", "float16", "dynamic", "int8"):
        file = version / f"model.{name}.tflite"
        assert str(file) in output
        form, known = report["forms"][name], origin.read(file)
        assert form["bytes"] > 0
        assert set(form["latency_ms"]) == {"1", "2"}
        assert form["fully_connected_only"]
        assert known["audit"]["fully_connected_only"]
        assert known["accuracies"]["top1"] == form["top1"]
        assert known["accuracies"]["images"] == 60
        assert known["class_names"] == list("0123456789")
        assert known["preprocessing"]["image_size"] == runs.SIZE
        assert known["form"] == "merged"
    assert report["forms"]["float32"]["drop_points"] == 0
    assert report["forms"]["float32"]["relative_logit_error"] == 0
    assert report["forms"]["trained"]["relative_logit_error"] < 1e-5
    assert 0 < report["forms"]["int8"]["relative_logit_error"] < 0.3
    assert "20 images of" in origin.read(file)["calibration"]
    assert not [p for p in version.iterdir() if p.name.startswith(".")]


def test_every_runtime_answers_as_trained(copied, tmp_path, capsys):
    for package in ("tf2onnx", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(package)
    figures, folder = tmp_path / "figures.json", tmp_path / "made"
    arguments = (
        *("--format", "saved_model", "litert", "onnx", "openvino"),
        *("--precision", "float32", "bfloat16", "int8", "--max-drop", "100"),
    )
    assert export(copied / "resmlp", folder, *arguments, *FEW, "--json", figures) == 0
    output = capsys.readouterr().out
    report = json.loads(figures.read_text())
    written = {
        "saved_model float32": folder / "model.saved_model.float32" / "1",
        "saved_model bfloat16": folder / "model.saved_model.bfloat16" / "1",
        "float32": folder / "model.float32.tflite",
        "int8": folder / "model.int8.tflite",
        "onnx float32": folder / "model.float32.onnx",
        "openvino float32": folder / "model.openvino.float32" / "1",
        "openvino bfloat16": folder / "model.openvino.bfloat16" / "1",
        "openvino int8": folder / "model.openvino.int8" / "1",
    }
    assert report["published"] == {name: str(path) for name, path in written.items()}
    assert list(report["forms"]) == ["trained", *written]
    trained = load_checkpoint(copied / "resmlp" / "2" / "trained.keras")
    images = np.random.default_rng(0).normal(size=(3, runs.SIZE, runs.SIZE, 3))
    expected = cases.run(trained, images.astype("float32"), training=False)
    for name, path in written.items():
        assert str(path) in output
        form, known = report["forms"][name], origin.read(path)
        assert set(form["latency_ms"]) == {"1", "2"}
        assert form["fully_connected_only"]
        assert known["accuracies"]["top1"] == form["top1"]
        precision = known["artifact"].get("precision") or known["artifact"]["quantize"]
        assert (precision or "float32") == name.split()[-1]
        assert known["class_names"] == list("0123456789")
        assert origin.verify(path) == known["artifact_sha256"]
        assert kmlp.export.audit(path).fully_connected_only
        opened = open_weights(path)
        assert opened.classes == 10
        error = cases.relative_error(opened.run(images.astype("float32")), expected)
        assert (
            error <= {"float32": 1e-5, "bfloat16": 0.03, "int8": 0.3}[name.split()[-1]]
        )
        assert name.endswith("float32") or error > 1e-5
    for weights in ("variables/variables.data-00000-of-00001", "model.bin"):
        sizes = [
            (p / weights).stat().st_size
            for p in written.values()
            if (p / weights).is_file()
        ]
        assert sizes[1] < 0.6 * sizes[0]


def test_the_figures_are_those_of_the_files(copied, tmp_path):
    figures = tmp_path / "figures.json"
    export(copied / "reader", "--quantize", "int8", "--json", figures)
    report = json.loads(figures.read_text())
    split = open_source(None).validation
    assert report["images"] == split.count
    images, right = runs.prepared(split, split.count), split.labels
    file = copied / "reader" / "1" / "model.int8.tflite"
    answers = load_tflite(file)(images)["output_0"].argmax(-1)
    assert report["forms"]["int8"]["top1"] == (answers == right).mean() > 0.85
    drop = report["forms"]["float32"]["top1"] - report["forms"]["int8"]["top1"]
    assert report["forms"]["int8"]["drop_points"] == pytest.approx(100 * drop)
    # float32 was the yardstick only.
    assert [p.name for p in file.parent.glob("*.tflite")] == [file.name]


def test_the_old_command_line_writes_one_file_or_a_saved_model(copied, tmp_path):
    checkpoint = copied / "reader" / "1" / "trained.keras"
    assert export(checkpoint, tmp_path / "m.tflite", "--images", "20") == 0
    assert load_tflite(tmp_path / "m.tflite").input_shape == (1, 16, 16, 3)
    assert export(checkpoint, tmp_path / "served") == 0
    assert (tmp_path / "served" / "1" / "saved_model.pb").is_file()
    known = origin.read(tmp_path / "served" / "1")
    assert known["class_names"] == list("0123456789")
    assert known["preprocessing"]["test_crop"] == 1.0


@pytest.mark.parametrize(("batch", "shape"), [("any", None), ("2", 2)])
def test_a_file_takes_the_batch_that_was_asked_for(batch, shape, made, tmp_path):
    target = tmp_path / "m.tflite"
    assert export(made / "resmlp", target, "--batch", batch, "--images", "20") == 0
    assert load_tflite(target).input_shape[0] == shape


def test_what_loses_too_much_is_refused_with_its_layers(copied, capsys):
    version = copied / "spoilt" / "1"
    earlier = version / "model.int8.tflite"
    earlier.write_text("earlier")
    arguments = ("--quantize", "int8", "float16", "--overwrite")
    assert export(copied / "spoilt", *arguments, "--images", "100") == 1
    captured = capsys.readouterr()
    assert earlier.read_text() == "earlier"
    assert (version / "model.float16.tflite").is_file()
    assert captured.err.count("\n") == 1
    assert "int8 loses" in captured.err
    assert "allowed: 1" in captured.err
    lines = captured.out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("int8: change"))
    assert lines[first + 1].split()[0] == "features"


def test_a_drop_that_is_asked_for_is_taken(copied):
    arguments = ("--quantize", "int8", "--max-drop", "100", "--images", "100")
    assert export(copied / "spoilt", *arguments) == 0
    known = origin.read(copied / "spoilt" / "1" / "model.int8.tflite")
    assert known["accuracies"]["drop_points"] > 20


@pytest.mark.parametrize(
    ("quantize", "factor", "layer"),
    [
        ("int8", 1e5, "features"),  # its outputs
        ("dynamic", 1e5, "answer"),  # its inputs
        ("float16", 1e-9, "answer"),  # a kernel that overflows
    ],
)
def test_the_layer_that_loses_is_named_first(quantize, factor, layer):
    model = runs.sabotage(runs.reader(), factor)
    before = [np.array(weight) for weight in model.weights]
    images = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
    losses = layer_losses(model, images, quantize)
    assert losses[0].layer == layer
    assert losses[0].change > 0.01
    assert losses[0].change > 10 * losses[1].change or quantize == "dynamic"
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not [layer for layer in model.layers if "call" in vars(layer)]


def test_composite_layers_are_named_by_their_parts():
    model = kmlp.merge(runs.resmlp())
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    names = [loss.layer for loss in layer_losses(model, images, "int8")]
    assert any(name.endswith("/fc1") for name in names)
    assert any(name.endswith("/mix") for name in names)
    assert len(set(names)) == len(names)


def test_any_folder_shows_the_ranges_of_int8(made, tmp_path, capsys):
    for index in range(3):
        runs.write_image(tmp_path / "photos" / "nested" / f"{index}.png", seed=index)
    runs.write_image(tmp_path / "photos" / "flat.jpg")
    checkpoint = tmp_path / "alone.keras"
    shutil.copy(made / "resmlp" / "2" / "trained.keras", checkpoint)
    prepared = ("--mean", "0.3,0.3,0.3", "--std", "0.4,0.4,0.4")
    arguments = ("--quantize", "int8", "--representative", tmp_path / "photos")
    assert export(checkpoint, *arguments, *prepared) == 0
    output = capsys.readouterr().out
    assert "Ranges of int8 from 4 images" in output
    assert "top-1" not in output  # nothing to evaluate on
    known = origin.read(tmp_path / "alone.int8.tflite")
    assert known["accuracies"] is None
    assert known["preprocessing"]["mean"] == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("output", ["versions", cases.long("m.tflite")])
def test_dense_is_printed_and_written_down(output, tmp_path, capsys):
    keras.utils.set_random_seed(0)
    small = {"stem_width": 8, "conv_blocks": 1, "widths": (8, 8), "depths": (1, 1)}
    shape = (runs.SIZE, runs.SIZE, 3)
    model = kmlp.ConvMLP(10, shape, mlp_ratios=(2, 2), **small)
    runs.write_run(tmp_path / "1", model)
    assert export(tmp_path / "1", tmp_path / output, "--dense", "all") == 0
    printed = capsys.readouterr().out
    assert "dense: all: shifts + FC " in printed
    path = tmp_path / output / "1" if output == "versions" else tmp_path / output
    known = origin.read(path)
    before, after = known["dense"]["multiply_adds"]
    assert f"multiply adds {before:,} -> {after:,}, parameters" in printed
    assert known["audit"]["convolution_free"]
    assert main.main(["info", str(path)]) == 0
    assert "convolution free" in capsys.readouterr().out
    wrong = ("--dense", "all", "--train-form")
    assert export(tmp_path / "1", tmp_path / output, *wrong) == 2
    assert "--train-form" in capsys.readouterr().err


def test_folders_give_training_and_validation_images(made, tmp_path, capsys):
    names = [f"c{n}" for n in range(10)]
    data = runs.write_folder(tmp_path / "data", classes=names, count=1)
    (tmp_path / "names.txt").write_text("\n".join(names))
    arguments = (
        *("--format", "tflite", "--quantize", "int8", "--data", data),
        *("--class-names", tmp_path / "names.txt", "--max-drop", "100"),
    )
    target = tmp_path / "int8.tflite"
    assert export(made / "resmlp", target, *arguments) == 0
    assert "10 images of" in capsys.readouterr().out
    known = origin.read(target)
    assert known["class_names"] == names
    assert known["accuracies"]["images"] == 10


def test_subsets_are_spread_over_the_classes():
    split = open_source(None).train
    some = some_of(split, 50)
    assert some.count == 50
    counts = np.bincount(some.labels, minlength=10)
    assert counts.min() >= 4
    assert counts.max() <= 6
    image, label = some.store.reader()(7)
    assert label == some.labels[7]
    np.testing.assert_array_equal(image, split.store.images[some.store.indices[7]])
    assert some_of(split, None) is split
    assert some_of(split, split.count) is split


def spoil(made, tmp_path):
    """A folder with what can be wrong; its names stand in the cases below."""
    trained = made / "resmlp" / "2" / "trained.keras"
    shutil.copy(trained, tmp_path / "alone.keras")
    content = trained.read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.keras").write_text("no checkpoint")
    with (
        zipfile.ZipFile(trained) as old,
        zipfile.ZipFile(tmp_path / "foreign.keras", "w") as new,
    ):
        for member in old.infolist():
            value = old.read(member).replace(b"ResMLP", b"Unknown")
            new.writestr(member, value.replace(b"kmlp.models", b"nowhere.at"))
    for suffix in ("tflite", "onnx"):
        (tmp_path / f"there.{suffix}").write_text("earlier")
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "b").mkdir()
    runs.write_folder(tmp_path / "two")


INT8 = ("--quantize", "int8")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nothing.keras", "m.tflite"), ["does not exist"]),
        (("text.keras", "m.tflite"), ["neither of them"]),
        (("cut.keras", "m.tflite"), ["damaged", "save the model again"]),
        (("foreign.keras", "m.tflite"), ["neither Keras nor kmlp knows", "import"]),
        (("empty", "m.tflite"), ["trained.keras"]),
        (("alone.keras",), ["needs OUTPUT", "--format tflite"]),
        (("alone.keras", "m.tflite", *INT8), ["--data digits", "--representative"]),
        (
            ("alone.keras", *INT8, "--representative", "empty"),
            ["A folder without images", "'empty'"],
        ),
        (("alone.keras", *INT8, "--representative", "no"), ["does not exist"]),
        (("alone.keras", "there.tflite"), ["--overwrite", "there.tflite"]),
        (
            ("alone.keras", "m.tflite", "--class-names", "three.txt"),
            ["3 class names", "10 classes"],
        ),
        (("alone.keras", "m.tflite", "--class-names", "no.txt"), ["one name per"]),
        (("alone.keras", "m.tflite", "--quantize", "none", "int8"), ["a folder"]),
        (("alone.keras", "m.tflite", "--max-drop", "1"), ["--max-drop", "--data"]),
        (("alone.keras", "m.tflite", "--data", "two"), ["10 outputs", "2 classes"]),
        (("alone.keras", "m.tflite", "--data", "val"), ["without images"]),
        (("alone.keras", "m.tflite", "--data", "no"), ["does not exist"]),
        (("alone.keras", "there.tflite/m.tflite"), ["Cannot write", "there.tflite"]),
        (("alone.keras", "m.tflite", "--json", "no/x.json"), ["--json", "no/x.json"]),
        (("alone.keras", "m.tflite", "--image-size", "32"), ["16x16"]),
        (("alone.keras", "m.tflite", "--format", "saved_model"), ["of one form"]),
        (("alone.keras", "m.onnx", "--format", "onnx", "tflite"), ["a folder"]),
        (("alone.keras", "served", "--format", "saved_model", *INT8), ["--precision"]),
        (("alone.keras", "m.onnx", "--precision", "bfloat16"), ["onnx: float32"]),
        (("alone.keras", "--format", "openvino"), ["needs OUTPUT"]),
        (("alone.keras", "there.onnx"), ["--overwrite", "there.onnx"]),
        (("resmlp", "m.tflite", "--weights", "best"), ["best.keras"]),
    ],
)
def test_bad_input_gets_one_line(argv, words, made, tmp_path, monkeypatch, capsys):
    spoil(made, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resmlp").symlink_to(made / "resmlp")
    before = sorted(os.listdir(tmp_path))
    assert export(*argv) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    for word in (*words, "Received"):
        assert word in captured.err
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "there.tflite").read_text() == "earlier"


@pytest.mark.parametrize("value", ["-1", "101", "few", "nan"])
def test_points_are_not_negative(value, capsys):
    with pytest.raises(SystemExit) as stop:
        export("a.keras", "m.tflite", f"--max-drop={value}")
    assert stop.value.code == 2
    assert f"not '{value}'" in capsys.readouterr().err


def test_a_disk_that_fills_leaves_the_earlier_file(copied, monkeypatch, capsys):
    def full(source, target):
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(forms.shutil, "copyfile", full)
    earlier = copied / "reader" / "1" / "model.float32.tflite"
    earlier.write_text("earlier")
    before = sorted(os.listdir(earlier.parent))
    arguments = ("--format", "tflite", "--overwrite", "--images", "20")
    assert export(copied / "reader", *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left" in error
    assert str(earlier) in error
    assert earlier.read_text() == "earlier"
    assert sorted(os.listdir(earlier.parent)) == before


@pytest.mark.long
@pytest.mark.parametrize("name", ["repmlpnet_cifar", "resmlp_12_cifar", "convmlp_s"])
def test_int8_has_less_than_a_third_of_float32s_size(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = kmlp.create_model(name, num_classes=10, input_shape=(32, 32, 3))
    images = np.random.default_rng(0).normal(size=(20, 32, 32, 3))
    sizes = [
        kmlp.export.tflite(
            model,
            tmp_path / f"{quantize}.tflite",
            quantize=quantize,
            representative_data=images,
        )
        .stat()
        .st_size
        for quantize in (None, "int8")
    ]
    assert sizes[1] <= 0.3 * sizes[0]
