"""Artifacts as strangers send them: what is wrong is said in one line."""

import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import kmlp
from kmlp.artifacts import flatbuffer, keras_file, origin
from kmlp.artifacts.origin_members import ORIGIN, check
from kmlp.commands import main
from kmlp.errors import InputError
from kmlp.preprocessing import DensePreprocessing, preprocessing_of

RUN = Path(__file__).parents[1] / "reference" / "first_house" / "run"


def copied(folder, form):
    """A sound artifact in one of the three forms."""
    if form == "SavedModel":
        ignored = shutil.ignore_patterns("*.keras", "*.tflite", "*.json", "*.csv")
        shutil.copytree(RUN, folder / "1", ignore=ignored)
        origin.write(folder / "1", origin.read(RUN / "trained.keras"))
        return folder / "1"
    name = {"keras": "trained.keras", "TFLite": "model.tflite"}[form]
    path = Path(shutil.copy(RUN / name, folder))
    origin.add(path)
    return path


FORMS = ("keras", "SavedModel", "TFLite")
SOUND = {
    "format": 1,
    "architecture": "resmlp_s12",
    "parameters": {"trainable": 5, "non_trainable": 0},
    "preprocessing": {
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 0.5, 0.5],
        "image_size": 32,
        "test_crop": 1.0,
        "test_interpolation": "bicubic",
    },
    "class_names": ["a", "b"],
    "audit": {"operations": {"MatMul": 1}},
    "accuracies": {"top1": 0.5, "images": 3, "trained_top1": 0.5},
    "frozen": [],
    "unknown": [{}],
}
DENSE = {
    "task": "segmentation",
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "canvas": [64, 64],
}
# Path of a member, what it is changed to, and what the line calls it.
WRONG = [
    ("format", 2, "its format must be 1: a later version"),
    ("architecture", 5, "its architecture must be text"),
    ("configuration", [], "its configuration must be a dictionary"),
    ("parameters", 5, "its parameters must be a dictionary"),
    ("parameters.trainable", "5", "its parameters.trainable must be an integer"),
    ("parameters.trainable", -1, "its parameters.trainable must be an integer"),
    ("multiply_adds", 1e3, "its multiply_adds must be an integer"),
    ("multiply_adds", 1 << 80, "its multiply_adds must be an integer"),
    ("multiply_adds", True, "its multiply_adds must be an integer"),
    ("source", "x", "its source must be a dictionary"),
    ("preprocessing", 1000000000, "its preprocessing must be a dictionary"),
    ("preprocessing.mean", 0.5, "its preprocessing.mean must be three numbers"),
    ("preprocessing.mean", [0.5], "its preprocessing.mean must be three numbers"),
    ("preprocessing.mean", [0, {}, 0], r"its preprocessing.mean\[1\] must be a number"),
    ("preprocessing.mean", [0, 1e308, 0], r"its preprocessing.mean\[1\] must be"),
    ("preprocessing.std", [1, 1, 0], r"its preprocessing.std\[2\] .* above 0"),
    ("preprocessing.std", [1, 1, float("nan")], r"its preprocessing.std\[2\]"),
    ("preprocessing.image_size", 0, "its preprocessing.image_size must be an integer"),
    ("preprocessing.image_size", 32.0, "its preprocessing.image_size must be"),
    ("preprocessing.image_size", 1000000000, "an integer of 1 to 4,096"),
    ("preprocessing.test_crop", 0, r"its preprocessing.test_crop must be a number in"),
    ("preprocessing.test_crop", [], "its preprocessing.test_crop must be a number in"),
    ("preprocessing.test_interpolation", "area", "must be 'bilinear' or 'bicubic'"),
    ("preprocessing.test_interpolation", ["bicubic"], "must be 'bilinear' or"),
    ("preprocessing.task", "dreams", "must be 'detection' or 'segmentation'"),
    ("preprocessing.task", "detection", "its preprocessing.canvas must be there"),
    ("class_names", 5, "its class_names must be a list of text"),
    ("class_names", "abc", "its class_names must be a list of text"),
    ("class_names", ["a", 5], r"its class_names\[1\] must be text"),
    ("audit", [], "its audit must be a dictionary"),
    ("audit.operations", [1], "its audit.operations must be a dictionary"),
    ("accuracies", [0.5], "its accuracies must be a dictionary"),
    ("accuracies.top1", "high", "its accuracies.top1 must be a number"),
    ("accuracies.trained_top1", {}, "its accuracies.trained_top1 must be a number"),
    ("accuracies.images", [], "its accuracies.images must be a number"),
    ("initial_weights", {"name": 5}, "its initial_weights.name must be text"),
    ("frozen", {"a": 1}, "its frozen must be a list of text"),
    ("versions", "3", "its versions must be a dictionary"),
    ("created", 5, "its created must be text"),
    ("artifact", [1], "its artifact must be a dictionary"),
    ("equality", 0.1, "its equality must be a dictionary"),
    ("weights_sha256", {}, "its weights_sha256 must be text"),
]


def changed(path, value, sound=SOUND):
    tree = copy.deepcopy(sound)
    *above, last = path.split(".")
    part = tree
    for name in above:
        part = part[name]
    part[last] = value
    return tree


@pytest.mark.parametrize(("path", "value", "words"), WRONG)
def test_a_wrong_member_is_named(path, value, words):
    check(SOUND, ORIGIN, "sound.keras")
    with pytest.raises(InputError, match=words) as raised:
        check(changed(path, value), ORIGIN, "strange.keras")
    message = str(raised.value)
    assert "strange.keras" in message
    assert "Received: " in message
    assert "\n" not in message


@pytest.mark.parametrize("path", sorted({path for path, _, _ in WRONG}))
def test_a_member_may_be_unknown_or_missing(path, tmp_path, capsys):
    """`kmlp info` and the readers of preprocessing do without any one of them."""
    for value in (None, "missing"):
        tree = changed(path, None)
        if value is not None:
            *above, last = path.split(".")
            part = tree
            for name in above:
                part = part[name]
            del part[last]
        file = tmp_path / "model.tflite"
        shutil.copy(RUN / "model.tflite", file)
        origin.write(file, tree)
        assert main.main(["info", str(file)]) == 0
        assert preprocessing_of(file).found == (str(file),)
    assert capsys.readouterr().err == ""


def test_what_it_says_does_not_command_the_terminal(tmp_path, capsys):
    file = Path(shutil.copy(RUN / "model.tflite", tmp_path))
    origin.write(file, {"architecture": "\x1b[31mred", "class_names": ["a\nb", "\x07"]})
    assert main.main(["info", str(file)]) == 0
    shown = capsys.readouterr().out
    assert r"\x1b[31mred" in shown
    assert r"2: a\nb, \x07" in shown
    assert not {"\x1b", "\x07"} & set(shown)
    origin.write(file, {"architecture": ["\x1b[31m"]})
    assert main.main(["info", str(file)]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mean", "std", "canvas"])
def test_a_dense_origin_says_what_its_pictures_need(name):
    check({"preprocessing": DENSE}, ORIGIN, "a")
    assert DensePreprocessing.from_origin({"preprocessing": DENSE}).canvas == (64, 64)
    with pytest.raises(InputError, match=rf"preprocessing\.{name} must be there for"):
        check({"preprocessing": {**DENSE, name: None}}, ORIGIN, "a")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            {"recipe": {"mean": [0.5, {}, 0.5]}},
            r"its recipe.mean\[1\] must be a number",
        ),
        ({"data": {"class_names": 5}}, "its data.class_names must be a list of text"),
        ({"image_size": "32"}, "its image_size must be an integer"),
        ({"data": []}, "its data must be a dictionary"),
        ([], "cannot be read"),
        ({"recipe": {"image_size": 4000, "test_crop": 0.1}}, "of at most 4,096"),
    ],
)
def test_what_a_run_wrote_is_checked_too(written, words, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match=words):
        preprocessing_of(tmp_path / "trained.keras")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"class_names": 5}), "its class_names must be a list of text"),
        ("[1, 2]", "JSON of a list"),
        ("5", "JSON of a int"),
        ("[" * 100_000, "nested too deeply"),
        (" " * (9 << 20) + "{}", "of JSON, of at most 8 MB"),
        ('{"a": ' + "9" * 5000 + "}", "damaged"),
        ("{", "damaged"),
    ],
)
def test_every_command_says_what_is_wrong(form, text, words, tmp_path, capsys):
    path = copied(tmp_path, form)
    origin._WRITERS[origin.locate(path)[1]](path, text)
    for argv in (["info", str(path)], ["predict", "x.png", "--weights", str(path)]):
        assert main.main(argv) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        if argv[0] == "info":
            assert words in said
            assert str(path) in said


def test_names_and_outputs_belong_together():
    """Where they do not, no picture's class is looked up in vain."""
    from kmlp.predicting.dense_network import DenseNetwork

    numbered = {**DENSE, "task": "detection", "category_ids": [1, 2]}
    carried = {"preprocessing": numbered, "class_names": ["a", "b"]}
    known = DensePreprocessing.from_origin(carried)
    found = {"classes": np.array([[0, 1, -1]]), "scores": np.ones((1, 3))}
    shape = (1, 64, 64, 3)
    network = DenseNetwork(Path("a"), "SavedModel", known, shape, lambda _: found)
    assert network(np.zeros(shape)).keys() == found.keys()
    found["classes"][0, 1] = 2
    with pytest.raises(InputError, match="tell 3 classes, of which 2 have a name"):
        network(np.zeros(shape))
    with pytest.raises(InputError, match="as many category_ids as class_names"):
        DensePreprocessing.from_origin({**carried, "class_names": ["a"]})
    segmenter = DensePreprocessing.from_origin({**carried, "preprocessing": DENSE})
    network = DenseNetwork(Path("a"), "", segmenter, shape, lambda x: x)
    with pytest.raises(InputError, match="tell 3 classes, of which 2 have a name"):
        network(np.zeros(shape))


# Members of a .keras file


def with_member(path, name, content):
    """Write `name` of an archive anew, or leave it out."""
    with zipfile.ZipFile(path) as old:
        members = {n: old.read(n) for n in old.namelist()}
    members[name] = content
    with zipfile.ZipFile(path, "w") as new:
        for other, data in members.items():
            if data is not None:
                new.writestr(other, data)


def config(path):
    with zipfile.ZipFile(path) as members:
        return json.loads(members.read("config.json"))


def larger(**changes):
    def change(path):
        tree = config(path)
        tree["config"].update(changes)
        with_member(path, "config.json", json.dumps(tree))

    return change


def weights_of(build):
    def change(path):
        file = io.BytesIO()
        with h5py.File(file, "w") as target:
            build(target)
        with_member(path, "model.weights.h5", file.getvalue())

    return change


def deflated(path):
    """Let the directory say that the weights, 64 MB, are a hundred bytes."""
    with zipfile.ZipFile(path) as old:
        members = {n: old.read(n) for n in old.namelist()}
    members["model.weights.h5"] = bytes(1 << 26)  # the last
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in sorted(members, key="model.weights.h5".__eq__):
            new.writestr(name, members[name])
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<I", raw, at + 24, 100)
    struct.pack_into("<I", raw, at + 16, zlib.crc32(bytes(100)))
    path.write_bytes(raw)


STRANGE = {
    "no configuration": (
        lambda p: with_member(p, "config.json", None),
        "has no config",
    ),
    "no weights": (
        lambda p: with_member(p, "model.weights.h5", None),
        "has no model.w",
    ),
    "a list": (lambda p: with_member(p, "config.json", b"[]"), "JSON of a list"),
    "nothing": (lambda p: with_member(p, "config.json", b"{}"), "cannot be read"),
    "text as weights": (lambda p: with_member(p, "model.weights.h5", b"a"), "damaged"),
    "no arrays": (weights_of(lambda file: None), "cannot be read"),
    "a deep network": (larger(depth=1 << 30), "depth=1,073,741,824 is no size"),
    "many blocks": (larger(depth=5000), "more than 100 weights and holds 18 arrays"),
    "a wide network": (larger(width=60_000), r"declares 57\.6 GB"),
    "images": (larger(input_shape=[4000, 4000, 3]), r"declares 4,000\.0 GB"),
    "chunks": (
        weights_of(
            lambda file: file.create_dataset("a", (1 << 30,), chunks=(1 << 20,))
        ),
        r"declares 4\.2 GB",
    ),
    "an understated size": (deflated, "Bad CRC-32"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_checkpoint_is_refused_in_one_line(case, tmp_path):
    change, words = STRANGE[case]
    path = Path(shutil.copy(RUN / "trained.keras", tmp_path))
    change(path)
    with pytest.raises(InputError, match=words) as raised:
        keras_file.load_model(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_without_a_network_are_checked(tmp_path):
    path = tmp_path / "strange.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/classifier_head/dense/vars/1", (1 << 24,), "i1")
        file["vars/0"] = np.zeros(3)
    small = {"patch_size": 4, "width": 64, "depth": 1, "input_shape": (32, 32, 3)}
    with pytest.raises(InputError, match=r"declares 4\.\d GB"):
        kmlp.create_model("resmlp_s12", weights=path, **small)


def test_metadata_that_is_missing_is_said(tmp_path, capsys):
    path = Path(shutil.copy(RUN / "trained.keras", tmp_path))
    for content in (None, b"[]", b"{"):
        with_member(path, "metadata.json", content)
        with_member(path, "origin.json", None)
        assert main.main(["info", str(path)]) == 2
        assert "metadata.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["resmlp_small.pth", "resmlp_small.npz"])
def test_a_published_archive_is_no_checkpoint_of_keras(name, capsys):
    from kmlp.predicting.dense_network import task_of

    path = RUN.parents[1] / name
    assert task_of(path) is None  # and `kmlp predict` goes on with it
    assert main.main(["info", str(path)]) == 2
    assert "`kmlp convert` makes a .keras of published ones" in capsys.readouterr().err


def test_what_would_run_code_is_not_called_damaged(tmp_path):
    path = tmp_path / "lambda.keras"
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: x, output_shape=(3,))]
    )
    with contextlib.suppress(UserWarning):
        model.save(path)
    with pytest.raises(InputError, match="not loaded because it would run code") as e:
        keras_file.load_model(path)
    assert "damaged" not in str(e.value)
    assert "safe_mode=False" in str(e.value)


# TFLite files and SavedModels


def offsets(path):
    """Copies of a TFLite file in which one offset or length leads astray."""
    content = path.read_bytes()
    root = struct.unpack_from("<I", content)[0]
    for at in (0, root, root + 4, root + 8, root + 12, 64, 128):
        for word in (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80"):
            yield content[:at] + word + content[at + 4 :]


def test_offsets_that_lead_astray_are_said(tmp_path, capsys):
    sound, path = copied(tmp_path, "TFLite"), tmp_path / "astray.tflite"
    refused = 0
    for content in offsets(sound):
        path.write_bytes(content)
        for command in ("info", "audit"):
            code = main.main([command, str(path)])
            said = capsys.readouterr().err
            assert code in (0, 2)
            assert "Traceback" not in said
            assert "fault of kmlp" not in said
            refused += code == 2
    assert refused > 20


def test_large_arrays_between_operations_are_refused(tmp_path):
    path = copied(tmp_path, "TFLite")
    flatbuffer.check(path)
    model = flatbuffer.unpacked(path.read_bytes())
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[3].outputs[0]].shape = np.array([1 << 28], "int32")
    path.write_bytes(flatbuffer.packed(model, 1 << 16))
    with pytest.raises(InputError, match=r"declares 1\.\d GB \(with what lies between"):
        flatbuffer.check(path)


def test_a_saved_model_does_not_reach_out(tmp_path):
    import tensorflow as tf

    from kmlp.artifacts import saved_model_file

    target = tmp_path / "written"

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
    def writes(images):
        tf.io.write_file(str(target), "x")
        return {"y": tf.reduce_mean(images, (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
    def grows(images):
        return {"y": tf.reduce_mean(images, (1, 2)) + tf.zeros((1 << 10,))[:3]}

    for function, words in ((writes, "would run WriteFile"), (grows, None)):
        folder = tmp_path / function.python_function.__name__
        module = tf.Module()
        module.f = function
        tf.saved_model.save(module, str(folder), {"serving_default": function})
        if words is None:
            saved_model_file.check(folder)
            continue
        with pytest.raises(InputError, match=words):
            saved_model_file.check(folder)
        assert main.main(["predict", "x.png", "--weights", str(folder)]) == 2
    assert not target.exists()
    graph = folder / "saved_model.pb"
    found = saved_model_file.parsed(folder)
    node = next(
        n
        for g in found.meta_graphs
        for f in g.graph_def.library.function
        for n in f.node_def
        if n.op == "Const"
    )
    node.attr["value"].tensor.tensor_shape.Clear()
    node.attr["value"].tensor.tensor_shape.dim.add().size = 1 << 30
    graph.write_bytes(found.SerializeToString())
    with pytest.raises(InputError, match=r"declares 8\.\d GB \(with the constant"):
        saved_model_file.check(folder)
    graph.write_bytes(b"\xff" * 30)
    assert main.main(["audit", str(folder)]) == 2


# Digests


def flipped(path, at=None):
    """Flip a bit of a file; by default in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)


FLIPPED = {
    "keras": ("", None),
    "SavedModel": ("variables/variables.data-00000-of-00001", None),
    "TFLite": ("", None),
}


@pytest.mark.parametrize("form", FORMS)
def test_verify_finds_a_flipped_bit(form, tmp_path, capsys):
    path = copied(tmp_path, form)
    digest = origin.read(path)[origin.DIGEST]
    assert main.main(["verify", str(path)]) == 0
    assert f"as it was written, sha256 {digest}" in capsys.readouterr().out
    assert digest in _info(path, capsys)
    file = path / FLIPPED[form][0] if FLIPPED[form][0] else path
    size = file.stat().st_size
    sound = file.read_bytes()
    for at in (size // 3, size // 2, size - size // 4):
        flipped(file, at)
        assert main.main(["verify", str(path)]) == 1
        said = capsys.readouterr().err
        assert "is not what was written" in said
        assert said.count("\n") == 1
        file.write_bytes(sound)
    assert main.main(["verify", str(path)]) == 0
    # What it says of itself counts, too.
    origin.add(path, class_names=list("abcdefghij"))
    assert origin.read(path)[origin.DIGEST] != digest
    assert origin.verify(path) != digest


def _info(path, capsys):
    assert main.main(["info", str(path)]) == 0
    return capsys.readouterr().out


def test_verify_goes_through_a_runs_folder(tmp_path, capsys):
    folder = Path(shutil.copytree(RUN, tmp_path / "1"))
    assert main.main(["verify", str(folder)]) == 2
    assert "has no digest to compare it with" in capsys.readouterr().err
    for path in (folder, *folder.glob("*.keras"), *folder.glob("*.tflite")):
        origin.add(path)
    assert main.main(["verify", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["1", "best.keras", "model.tflite", "trained.keras"]
    assert [Path(line.split(": ")[0]).name for line in lines] == names
    flipped(folder / "model.tflite")
    assert main.main(["verify", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "model.tflite" in captured.err
    assert len(captured.out.splitlines()) == 3


def test_verify_compares_published_files_with_the_catalogue(
    tmp_path, capsys, monkeypatch
):
    from kmlp.weights.catalogue import WEIGHTS

    entry = next(e for e in WEIGHTS.values() if e.sha256)
    path = tmp_path / entry.address.rsplit("/", 1)[-1]
    path.write_bytes(b"another")
    assert main.main(["verify", str(path)]) == 1
    assert f"not what was published as {entry.name}" in capsys.readouterr().err
    known = dataclasses.replace(entry, sha256=hashlib.sha256(b"another").hexdigest())
    monkeypatch.setitem(WEIGHTS, entry.name, known)
    assert main.main(["verify", str(path)]) == 0
    assert f"{entry.name} as published" in capsys.readouterr().out
    path = path.with_name("unknown.pth")
    path.write_bytes(b"another")
    assert main.main(["verify", str(path)]) == 2
    assert "no digest to compare it with" in capsys.readouterr().err
