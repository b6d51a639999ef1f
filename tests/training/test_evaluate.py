"""Evaluation: labels of every kind, weights in every form, counted by hand."""

import functools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import long
from commands import run_main

import kmlp
from kmlp.artifacts.locating import KERAS, SAVED_MODEL, TFLITE
from kmlp.commands import evaluate
from kmlp.data.labelled import class_numbers, read_labels
from kmlp.data.scoring import Score
from kmlp.errors import KmlpError
from kmlp.weights.grid_resizing import RESOLUTIONS

SCRIPT = Path(__file__).parents[2] / "training" / "evaluate.py"
SIZE, CLASSES, APART = 8, 12, 20
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
FLAGS = ("--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.5")


def grey_network():
    """Answers an image of one grey with the classes nearest to it.

    Class k stands for grey `APART` k of 255; -(x - k)² has the order of 2 k x - k².
    """
    centres = np.arange(CLASSES) * APART / 255
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(CLASSES)
    model = keras.Model(inputs, dense(x))
    # The grey of a normalised image is the mean over channels of x std + mean.
    kernel = np.array(STD)[:, None] / 3 * 2 * centres
    dense.set_weights([kernel, np.mean(MEAN) * 2 * centres - centres**2])
    return model


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """`{form: path}` of one network."""
    folder, model = tmp_path_factory.mktemp("artifacts"), grey_network()
    model.save(folder / "model.keras")
    return {
        KERAS: folder / "model.keras",
        SAVED_MODEL: kmlp.export.saved_model(model, folder / "saved", merge=False),
        TFLITE: Path(kmlp.export.tflite(model, folder / "model.tflite", merge=False)),
    }


def write_grey(path, answer):
    """An image taken for `answer`, and next for `answer` + 1, - 1, + 2, - 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIZE + 3, SIZE + 1, 3), answer * APART + 3, np.uint8)
    path.write_bytes(tf.io.encode_png(pixels).numpy())


# True class -> answers: of these 11, 6 are right at first and 8 among the first five.
# At the edge, where there are no classes below, the five nearest to 0 are 0…4.
ANSWERS = {0: [0, 4], 2: [2, 0, 5], 10: [10, 10, 9], 11: [11, 11, 2]}
TOP1, TOP5, IMAGES = 6, 8, 11
NAMES = {k: f"n{9 - k % 10}{k:02}" for k in range(CLASSES)}  # in no order


def write_classes(folder, names=None):
    """Class folders with the images of `ANSWERS`; others have one, right, image."""
    for number in range(CLASSES):
        name = str(number) if names is None else names[number]
        for index, answer in enumerate(ANSWERS.get(number, [number])):
            write_grey(folder / name / f"{index}.png", answer)
    return folder


OTHERS = CLASSES - len(ANSWERS)
EXPECTED = {
    "images": IMAGES + OTHERS,
    "top1": (TOP1 + OTHERS) / (IMAGES + OTHERS),
    "top5": (TOP5 + OTHERS) / (IMAGES + OTHERS),
}


def write_run(artifact, folder, **written):
    """Weights beside what a run wrote."""
    folder.mkdir(parents=True)
    report = {"recipe": {"mean": MEAN, "std": STD, "test_crop": 1.0}, "data": written}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "trained.keras").write_bytes(artifact.read_bytes())
    return folder


run = functools.partial(run_main, evaluate.main)


def evaluated(capfd, tmp_path, *arguments):
    """The result as JSON."""
    file = tmp_path / "result.json"
    code, output, error = run(capfd, *arguments, "--json", file)
    assert (code, error) == (0, "")
    result = json.loads(file.read_text())
    assert f"top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%}" in output
    assert result["images_per_second"] > 0
    return result


@pytest.mark.parametrize("batch_size", [long(1), 4, long(64)])
@pytest.mark.parametrize("form", [KERAS, SAVED_MODEL, TFLITE])
def test_every_form_counts_alike(form, batch_size, artifacts, tmp_path, capfd):
    data = write_classes(tmp_path / "data")
    arguments = (artifacts[form], "--data", data, "--batch-size", batch_size, *FLAGS)
    result = evaluated(capfd, tmp_path, *arguments)
    assert {name: result[name] for name in EXPECTED} == EXPECTED
    assert result["form"] == form
    assert (result["mean"], result["std"]) == (list(MEAN), list(STD))


# What the run wrote of its classes, and the names of the data's.
ORDERS = {
    "numbers by value": (None, None),
    "numbers for names": ([f"wnid{k}" for k in range(CLASSES)], None),
    "numbers as strings sort": (sorted(map(str, range(CLASSES))), None),
    "names in the run's order": ([NAMES[k] for k in range(CLASSES)], NAMES),
    "sorted names": (None, {k: f"{k:03}" for k in range(CLASSES)}),
}


@pytest.mark.parametrize(
    ("order", "where"),
    [
        *((order, "") for order in ORDERS),
        ("sorted names", "val"),
        ("sorted names", "test"),
    ],
)
def test_class_folders(order, where, artifacts, tmp_path, capfd):
    written, names = ORDERS[order]
    model = artifacts[KERAS]
    expected = EXPECTED
    if order == "numbers as strings sort":  # the run had 0, 1, 10, 11, 2, …
        model = keras.models.load_model(model)
        places = [int(name) for name in written]
        kernel, bias = model.get_weights()
        model.set_weights([kernel[:, places], bias[places]])
        model.save(tmp_path / "sorted.keras")
        model = tmp_path / "sorted.keras"
    weights = write_run(model, tmp_path / "run", class_names=written)
    write_classes(tmp_path / "data" / where, names)
    result = evaluated(capfd, tmp_path, weights, "--data", tmp_path / "data")
    assert {name: result[name] for name in expected} == expected
    assert result["weights"] == str(weights / "trained.keras")


def test_newest_version(artifacts, tmp_path, capfd):
    for version in (9, 10):
        write_run(artifacts[KERAS], tmp_path / "arch" / str(version))
    (tmp_path / "arch/unfinished-1").mkdir()
    data = write_classes(tmp_path / "data")
    result = evaluated(capfd, tmp_path, tmp_path / "arch", "--data", data)
    assert result["weights"] == str(tmp_path / "arch/10/trained.keras")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A network with a grid, one without, and the former as a SavedModel."""
    folder = tmp_path_factory.mktemp("checkpoints")
    small = {"patch_size": 4, "width": 8, "depth": 1}
    model = kmlp.ResMLP(CLASSES, (16, 16, 3), **small)
    model.save(folder / "grid.keras")
    kmlp.export.saved_model(model, folder / "saved")
    arguments = {"stem_width": 8, "conv_blocks": 0, "widths": (8,), "depths": (1,)}
    convmlp = kmlp.ConvMLP(CLASSES, (16, 16, 3), mlp_ratios=(1,), **arguments)
    convmlp.save(folder / "free.keras")
    write_classes(folder / "data")
    return folder


@pytest.mark.parametrize(
    ("name", "size", "resolution", "words"),
    [
        ("grid", 24, None, "spatial kernels interpolated"),
        long("grid", 23, "interpolate_cubic", "spatial kernels interpolated cubically"),
        long("grid", 23, "partition", "maps cut into blocks of the trained grid"),
        ("free", 23, "partition", "its weights fit any size"),
        long("grid", 16, "partition", None),
    ],
)
def test_checkpoints_are_resized(
    name, size, resolution, words, checkpoints, tmp_path, capfd
):
    path = checkpoints / f"{name}.keras"
    model = keras.models.load_model(path)
    given = () if resolution is None else ("--resolution", resolution)
    file = tmp_path / "result.json"
    flags = ("--data", checkpoints / "data", "--image-size", size, *given, *FLAGS)
    code, output, error = run(capfd, path, *flags, "--json", file)
    assert (code, error) == (0, "")
    if words is None:
        assert "resized" not in output
    else:
        assert output.startswith(f"resized from 16x16: {words}\n")
    result = json.loads(file.read_text())
    assert result["image_size"] == size
    if size == 16:
        assert "resized_from" not in result
        return
    assert result["resized_from"] == 16
    way = (resolution or "interpolate") if name == "grid" else None
    assert result["resolution"] == way
    twin = kmlp.resize(model, (size, size, 3), way or "interpolate")
    twin.save(tmp_path / "twin.keras")
    flags = ("--data", checkpoints / "data", *FLAGS)
    expected = evaluated(capfd, tmp_path, tmp_path / "twin.keras", *flags)
    assert [result[k] for k in ("top1", "top5")] == [
        expected[k] for k in ("top1", "top5")
    ]


def test_the_command_knows_the_librarys_ways():
    assert tuple(RESOLUTIONS) == evaluate.RESOLUTIONS


@pytest.mark.parametrize(
    ("path", "arguments", "words"),
    [
        ("saved", ("--image-size", 24), r"pass a \.keras checkpoint.*--image-size 24"),
        ("grid.keras", ("--image-size", 24, "--resolution", "crop"), "--resolution"),
    ],
)
def test_what_is_not_resized(path, arguments, words, checkpoints, capfd):
    flags = ("--data", checkpoints / "data", *arguments, *FLAGS)
    code, _, error = run(capfd, checkpoints / path, *flags)
    assert code == 2
    assert re.search(words, error)
    assert len(error.splitlines()) == 1


# ReaL: image -> (answer, right classes). Of six with a class, three are right at
# first and five among the first five.
REAL = {
    1: (3, [3]),
    2: (3, [7, 3, 1]),
    3: (6, [7, 8]),
    4: (6, []),
    5: (2, [11]),
    7: (0, [4]),
    9: (8, [0, 8]),
}


def write_real(folder, suffix="JPEG"):
    for number, (answer, _) in REAL.items():
        # The content decides, not the name.
        write_grey(folder / f"ILSVRC2012_val_{number:08}.{suffix}", answer)
    labels = [REAL.get(number, (0, [0]))[1] for number in range(1, 11)]
    (folder.parent / "real.json").write_text(json.dumps(labels))
    return folder.parent / "real.json"


def test_real(artifacts, tmp_path, capfd):
    labels = write_real(tmp_path / "val")
    arguments = ("--data", tmp_path / "val", "--labels", labels, *FLAGS)
    result = evaluated(capfd, tmp_path, artifacts[KERAS], *arguments)
    assert result["images"] == 6
    assert (result["top1"], result["top5"]) == (3 / 6, 5 / 6)


def test_real_in_class_folders(artifacts, tmp_path, capfd):
    labels = write_real(tmp_path / "val/n1")
    (tmp_path / "val/n2").mkdir()
    moved = "ILSVRC2012_val_00000009.JPEG"
    (tmp_path / "val/n1" / moved).rename(tmp_path / "val/n2" / moved)
    arguments = ("--data", tmp_path, "--labels", labels, *FLAGS)
    result = evaluated(capfd, tmp_path, artifacts[KERAS], *arguments)
    assert (result["images"], result["top1"], result["top5"]) == (6, 3 / 6, 5 / 6)


@pytest.mark.parametrize("named", [False, True])
def test_lines_of_labels(named, artifacts, tmp_path, capfd):
    lines = []
    for number, (answer, right) in enumerate([(3, 3), (3, 4), (3, 9)]):
        write_grey(tmp_path / "flat" / f"image {number}.png", answer)
        lines.append(f"image {number}.png {NAMES[right] if named else right}")
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n\n")
    names = [NAMES[k] for k in range(CLASSES)] if named else None
    weights = write_run(artifacts[KERAS], tmp_path / "run", class_names=names)
    arguments = ("--data", tmp_path / "flat", "--labels", tmp_path / "labels.txt")
    result = evaluated(capfd, tmp_path, weights, *arguments)
    assert (result["images"], result["top1"], result["top5"]) == (3, 1 / 3, 2 / 3)


def test_digits(tmp_path, capfd):
    model = kmlp.ResMLP(10, (8, 8, 3), patch_size=4, width=4, depth=1)
    model.save(tmp_path / "digits.keras")
    arguments = (tmp_path / "digits.keras", "--data", "digits", *FLAGS)
    assert evaluated(capfd, tmp_path, *arguments)["images"] == 360


def test_tensorflow_datasets(artifacts, tmp_path, capfd):
    tfds = pytest.importorskip("tensorflow_datasets")
    written = [NAMES[k] for k in range(CLASSES)]
    names = sorted(written)  # another order than the run's

    def examples():
        for name in names:
            number = written.index(name)
            for answer in ANSWERS.get(number, [number]):
                pixels = np.full((SIZE, SIZE, 3), answer * APART + 3, np.uint8)
                yield {"image": pixels, "label": name}

    image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="greys",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": image, "label": tfds.features.ClassLabel(names=names)}
        ),
        split_datasets={"test": list(enumerate(examples()))},
        data_dir=tmp_path / "tfds",
        disable_shuffling=True,
    )
    weights = write_run(artifacts[KERAS], tmp_path / "run", class_names=written)
    capfd.readouterr()
    arguments = (weights, "--data", "tfds:greys", "--data-dir", tmp_path / "tfds")
    result = evaluated(capfd, tmp_path, *arguments)
    assert {name: result[name] for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize("classes", [2, 5, 6, 100])
def test_score_is_scikit_learns(classes):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(classes)
    outputs = generator.normal(size=(300, classes)).astype("float32")
    labels = generator.integers(0, classes, 300)
    score = Score([(label,) for label in labels], classes)
    for images in np.array_split(np.arange(300), 7):
        score.add(outputs[images], images)
    found = score.shares()
    every = range(classes)
    assert found["images"] == 300
    assert found["top1"] == np.mean(outputs.argmax(-1) == labels)
    if classes > 5:
        expected = metrics.top_k_accuracy_score(labels, outputs, k=5, labels=every)
        assert found["top5"] == pytest.approx(expected)
    else:
        assert found["top5"] == 1


def test_equal_answers_are_no_free_hits():
    score = Score([(0,), (3,), (7,)], 8)
    score.add(np.zeros((3, 8), "float32"), np.arange(3))
    assert score.shares() == {"images": 3, "top1": 1 / 3, "top5": 2 / 3}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite(value):
    score = Score([(0,)], 3)
    with pytest.raises(KmlpError, match="not finite"):
        score.add(np.array([[1.0, value, 0.0]]), np.array([0]))


def test_nothing_labelled():
    score = Score([()], 3)
    score.add(np.ones((1, 3)), np.array([0]))
    with pytest.raises(KmlpError, match="No image has a label"):
        score.shares()


# Names of the data, of the outputs, how many outputs, and the numbers or a message.
CLASS_NUMBERS = {
    "unknown": (("b", "a"), None, 2, [0, 1]),
    "by name": (("a", "b", "c"), ("c", "a", "b"), 3, [1, 2, 0]),
    "numbers": (("0", "1", "2"), ("x", "y", "z"), 3, [0, 1, 2]),
    "named by numbers": (("0", "1", "2"), ("2", "1", "0"), 3, [2, 1, 0]),
    "too few": (("a", "b"), None, 3, "3 outputs and the data 2 classes"),
    "too many": (("a", "b"), ("a",), 1, "1 outputs and the data 2 classes"),
    "others": (("a", "b"), ("a", "c"), 2, "only in the data: b; only in the weights"),
    "not all numbers": (("1", "2"), ("a", "b"), 2, "only in the data: 1, 2"),
}


@pytest.mark.parametrize("case", CLASS_NUMBERS)
def test_class_numbers(case):
    data_names, output_names, outputs, expected = CLASS_NUMBERS[case]
    if isinstance(expected, list):
        assert class_numbers(data_names, output_names, outputs) == expected
        return
    with pytest.raises(KmlpError, match=expected):
        class_numbers(data_names, output_names, outputs)


# What is in the file of labels, and the message.
BAD_LABELS = {
    "not JSON": ("[[1], [2]", "--labels takes"),
    "no lists": ("[1, 2]", "list of lists"),
    "no numbers": ('[["cat"]]', "list of lists"),
    "too short": ("[]", "00000001.* to 00000000"),
    "too large": ("[[12]]", "12 outputs and --labels class 12"),
    "a word": ("ILSVRC2012_val_00000001.JPEG cat", "line 1"),
    "another file": ("other.png 3", "no line for 1 of 1 images"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(case, tmp_path):
    text, words = BAD_LABELS[case]
    (tmp_path / "labels").write_text(text)
    files = ["val/ILSVRC2012_val_00000001.JPEG"]
    with pytest.raises(KmlpError, match=re.escape(words)) as stopped:
        read_labels(tmp_path / "labels", files, None, CLASSES)
    assert "Received: " in str(stopped.value)


def test_labels_for_other_files(tmp_path):
    (tmp_path / "real.json").write_text("[[1]]")
    with pytest.raises(KmlpError, match="ImageNet's validation images"):
        read_labels(tmp_path / "real.json", ["val/cat.png"], None, CLASSES)


# Case -> (arguments, words of the message). WEIGHTS, DATA, FLAT and FOLDER are
# filled in; FLAGS say how the images are normalised.
BAD_INPUT = {
    "no weights": (("FOLDER/no", "--data", "DATA"), "does not exist"),
    "no data": (("WEIGHTS",), "--data"),
    "data missing": (("WEIGHTS", "--data", "FOLDER/no", *FLAGS), "does not exist"),
    "data a file": (("WEIGHTS", "--data", "WEIGHTS", *FLAGS), "is a file"),
    "data empty": (("WEIGHTS", "--data", "FOLDER/empty", *FLAGS), "without images"),
    "an empty class": (("WEIGHTS", "--data", "FOLDER/gap", *FLAGS), "without images"),
    "one class": (("WEIGHTS", "--data", "FOLDER/one", *FLAGS), "two at least"),
    "only train": (("WEIGHTS", "--data", "FOLDER/only", *FLAGS), "only train"),
    "classes": (
        ("WEIGHTS", "--data", "FOLDER/two", *FLAGS),
        "12 outputs and the data 2",
    ),
    "text": (("FOLDER/text", "--data", "DATA", *FLAGS), "neither of them"),
    "nothing": (("FOLDER/nothing", "--data", "DATA", *FLAGS), "is empty"),
    "zip": (("FOLDER/zip", "--data", "DATA", *FLAGS), "cannot be read"),
    "half a TFLite file": (("FOLDER/half", "--data", "DATA", *FLAGS), "cannot be read"),
    "HDF5": (("FOLDER/h5", "--data", "DATA", *FLAGS), "save that as .keras"),
    "folder": (("FOLDER/empty", "--data", "DATA", *FLAGS), "and trained.keras"),
    "SavedModel": (("FOLDER/broken", "--data", "DATA", *FLAGS), "cannot be read"),
    "no image": (("FOLDER/vector.keras", "--data", "DATA", *FLAGS), "(N, H, W, 3)"),
    "oblong": (("FOLDER/oblong.keras", "--data", "DATA", *FLAGS), "8x16"),
    "no statistics": (("WEIGHTS", "--data", "DATA"), "--mean and --std"),
    "no deviation": (("WEIGHTS", "--data", "DATA", *FLAGS[:2]), "pass --std"),
    "deviation 0": (("WEIGHTS", "--data", "DATA", "--std", "0,1,1"), "above 0"),
    "two numbers": (("WEIGHTS", "--data", "DATA", "--mean", "0,1"), "three numbers"),
    "0…255": (("WEIGHTS", "--data", "DATA", "--mean", "124,116,104"), "0…1"),
    "crop": (("WEIGHTS", "--data", "DATA", "--test-crop", "1.5"), "(0, 1]"),
    "filter": (("WEIGHTS", "--data", "DATA", "--interpolation", "best"), "bicubic"),
    "size": (
        ("WEIGHTS", "--data", "DATA", "--image-size", "16", *FLAGS),
        "take images of 8x8",
    ),
    "free size": (("FOLDER/free.keras", "--data", "DATA", *FLAGS), "--image-size"),
    "no labels": (("WEIGHTS", "--data", "FLAT", *FLAGS), "needs --labels"),
    "labels missing": (
        ("WEIGHTS", "--data", "FLAT", "--labels", "FOLDER/no", *FLAGS),
        "No such file",
    ),
    "labels of digits": (
        ("WEIGHTS", "--data", "digits", "--labels", "FOLDER/text", *FLAGS),
        "goes with a folder",
    ),
    "broken report": (("FOLDER/run", "--data", "DATA"), "report.json"),
    "other names": (("FOLDER/named", "--data", "FOLDER/letters"), "only in the data"),
    "nowhere to write": (
        ("WEIGHTS", "--data", "DATA", *FLAGS, "--json", "FOLDER/no/file.json"),
        "--json",
    ),
}


@pytest.fixture(scope="module")
def bad(artifacts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name in ("empty", "broken", "gap/cat", "gap/dog", "only/train"):
        (folder / name).mkdir(parents=True)
    write_classes(folder / "data")
    write_grey(folder / "gap/cat/0.png", 0)
    write_grey(folder / "one/cat/0.png", 0)
    write_grey(folder / "flat/0.png", 0)
    for name in ("cat", "dog"):
        write_grey(folder / "two" / name / "0.png", 0)
    (folder / "text").write_text("no weights")
    (folder / "nothing").write_text("")
    (folder / "zip").write_bytes(b"PK\x03\x04 and no more")
    (folder / "half").write_bytes(artifacts[TFLITE].read_bytes()[:300])
    (folder / "broken/saved_model.pb").write_text("no graph")
    layers = keras.layers
    vector = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
    vector.save_weights(folder / "vector.weights.h5")
    (folder / "vector.weights.h5").rename(folder / "h5")
    vector.save(folder / "vector.keras")
    for name, shape in {"oblong": (8, 16, 3), "free": (None, None, 3)}.items():
        parts = [keras.Input(shape), layers.GlobalMaxPooling2D(), layers.Dense(CLASSES)]
        keras.Sequential(parts).save(folder / f"{name}.keras")
    write_run(artifacts[KERAS], folder / "run")
    (folder / "run/report.json").write_text("{")
    letters = {k: chr(97 + k) for k in range(CLASSES)}
    write_run(
        artifacts[KERAS], folder / "named", class_names=["z", *letters.values()][:-1]
    )
    write_classes(folder / "letters", letters)
    return folder


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case, bad, artifacts, capfd):
    arguments, words = BAD_INPUT[case]
    filled = {"WEIGHTS": artifacts[KERAS], "DATA": bad / "data", "FLAT": bad / "flat"}
    arguments = [str(filled.get(a, a)).replace("FOLDER", str(bad)) for a in arguments]
    code, output, error = run(capfd, *arguments)
    assert (code, output) == (2, "")
    assert words in error
    assert error.startswith("evaluate.py: ")
    assert "\n" not in error


@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_damaged_image(choice, artifacts, tmp_path, capfd):
    data = write_classes(tmp_path / "data")
    path = data / "11/2.png"  # answered wrongly
    path.write_bytes(path.read_bytes()[:-30])
    arguments = (artifacts[KERAS], "--data", data, *FLAGS, "--on-corrupt", choice)
    if choice == "skip":
        result = evaluated(capfd, tmp_path, *arguments)
        assert result["images"] == EXPECTED["images"] - 1
        assert result["top1"] == (TOP1 + OTHERS) / result["images"]
        return
    code, _, error = run(capfd, *arguments)
    assert code == 2
    # TensorFlow's own lines of it are silent where the job imports it.
    line = error.splitlines()[-1]
    assert line.startswith("evaluate.py: An image cannot be read")
    assert line.endswith(f"{path} (damaged PNG)")


def test_script_runs_from_anywhere(tmp_path):
    started = time.monotonic()
    shown = subprocess.run(
        [sys.executable, SCRIPT, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "WEIGHTS" in shown.stdout
    assert time.monotonic() - started < 5  # no TensorFlow
    assert not list(tmp_path.iterdir())


def test_under_jax(artifacts, tmp_path):
    pytest.importorskip("jax")
    data = write_classes(tmp_path / "data")
    code = (
        "import sys\n"
        "from kmlp.commands.evaluate import main\n"
        "keras, tflite, *rest = sys.argv[1:]\n"
        "print(main([keras, *rest]), main([tflite, *rest]))\n"
    )
    paths = artifacts[KERAS], artifacts[TFLITE], "--data", data
    done = subprocess.run(
        [sys.executable, "-c", code, *paths, *FLAGS],
        cwd=SCRIPT.parents[1],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"top-1 {EXPECTED['top1']:.2%}" in done.stdout, done.stderr
    assert done.stdout.endswith("0 2\n")
    assert "KERAS_BACKEND=tensorflow" in done.stderr
