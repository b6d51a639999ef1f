"""Training that begins with weights, and parts that keep them."""

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import FAMILIES, few, long
from commands import run_main
from image_folders import numbered_source, write_folder

import kmlp
from kmlp.artifacts import origin
from kmlp.commands import train
from kmlp.errors import KmlpError
from kmlp.preprocessing import Preprocessing
from kmlp.recipes import ClassificationRecipe, data_for, recipe_for
from kmlp.training.checkpoints import RunFolder
from kmlp.training.choices import chosen_data, chosen_recipe
from kmlp.training.distillation import Objective
from kmlp.training.engine.engine import Options
from kmlp.training.engine.tensorflow import TensorFlowEngine
from kmlp.training.engine.weight_names import frozen, optimizer_names, weight_names
from kmlp.training.fine_tuning import chosen, freeze, initial_weights, parts
from kmlp.training.tasks.classification import Classification

# Family -> the smallest network whose parts can be told apart, and their names.
STAGED = {
    "repmlpnet": (
        kmlp.RepMLPNet,
        {
            "input_shape": (16, 16, 3),
            "depths": (1, 1),
            "widths": (8, 8),
            "share_sets": (1, 2),
        },
        ["stem", "stage0", "stage1", "norm"],
    ),
    "resmlp": (
        kmlp.ResMLP,
        {
            "input_shape": (16, 16, 3),
            "patch_size": 8,
            "width": 8,
            "depth": 3,
            "norm": "batch",
        },
        ["stem", "block0", "block1", "block2", "norm"],
    ),
    "convmlp": (
        kmlp.ConvMLP,
        {
            "input_shape": (32, 32, 3),
            "stem_width": 4,
            "conv_blocks": 1,
            "widths": (8, 8),
            "depths": (1, 1),
            "mlp_ratios": (1, 1),
        },
        ["stem", "conv_stage", "stage0", "stage1", "norm"],
    ),
    "msmlp": (
        kmlp.MSMLP,
        {
            "input_shape": (16, 16, 3),
            "width": 6,
            "depths": (1, 1),
            "regions": ((3, 1), (3, 1)),
            "shifts": (0, 1),
        },
        ["stem", "stage0", "stage1", "norm"],
    ),
    "smlpnet": (
        kmlp.SMLPNet,
        {"input_shape": (16, 16, 3), "width": 4, "depths": (1, 1), "mlp_ratio": 1},
        ["stem", "stage0", "stage1", "norm"],
    ),
    "focal": (
        kmlp.FocalTransformer,
        {"input_shape": (16, 16, 3), "width": 4, "depths": (1, 1), "heads": (1, 2)}
        | {"window_size": 2, "focal_windows": (3, 1), "focal_levels": (2, 2)}
        | {"expansion": 1},
        ["stem", "stage0", "stage1", "norm"],
    ),
    "swin": (
        kmlp.SwinTransformer,
        {"input_shape": (16, 16, 3), "width": 4, "depths": (1, 1), "heads": (1, 2)},
        ["stem", "stage0", "stage1", "norm"],
    ),
    # The stages keep their numbers without stage zero.
    "msmlp_swin": (
        kmlp.MSMLPHybrid,
        {"input_shape": (32, 32, 3), "stage_zero": False, "depths": (1, 1, 1, 1)}
        | {"width": 6, "heads": (1, 2, 4), "regions": (3, 1), "shifts": (0, 1)},
        ["stem", "stage1", "stage2", "stage3", "stage4", "norm"],
    ),
}
CLASSIFIER = {"head/dense/kernel", "head/dense/bias"}


def network(case, **arguments):
    """A network of `STAGED` whose weights and statistics are all random."""
    family, own, _ = STAGED[case]
    keras.utils.set_random_seed(0)
    model = family(6, **{**own, **arguments})
    random = np.random.default_rng(0)
    for weight in model.weights:
        positive = "variance" in weight.path
        values = random.uniform(0.5, 1.5, weight.shape) if positive else None
        if values is None:
            values = 0.3 * random.normal(size=weight.shape)
        weight.assign(values)
    return model


@pytest.mark.parametrize("case", STAGED)
def test_parts_hold_every_weight_but_the_classifiers(case):
    model = network(case)
    found = parts(model)
    assert list(found) == STAGED[case][2]
    held = [w.path for layers in found.values() for x in layers for w in x.weights]
    assert len(held) == len(set(held))
    assert {w.path for w in model.weights} - set(held) == CLASSIFIER


# Case, `--freeze`, and what is trained of the network, as beginnings of paths.
CHOICES = [
    ("repmlpnet", "0", ["embed0", "stage0", "stage1", "head"]),
    ("repmlpnet", "1", ["embed0", "stage1", "head"]),
    ("repmlpnet", "2", ["head"]),
    ("repmlpnet", "all", ["head/dense"]),
    ("resmlp", "2", ["block2_", "head"]),
    ("resmlp", "block2, block1", ["patch_embed", "block0_", "head"]),
    ("convmlp", "1", ["stage0", "stage1", "head"]),
    ("convmlp", "2", ["stage1", "head"]),
    ("msmlp", "stem,norm", ["stage0", "downsample0", "stage1", "head/dense"]),
    ("smlpnet", "stage1", ["patch_embed", "stage0", "head"]),
    ("focal", "stem,stage0", ["downsample0", "stage1", "head"]),
    ("swin", "1", ["downsample0", "stage1", "head"]),
    ("msmlp_swin", "3", ["downsample3", "stage4", "head"]),
]


@pytest.mark.parametrize(("case", "text", "trained"), CHOICES)
def test_what_freeze_stands_for(case, text, trained):
    model = network(case)
    freeze(model, chosen(text, model))
    paths = {w.path for w in network(case).trainable_weights}
    expected = {path for path in paths if path.startswith(tuple(trained))}
    assert {w.path for w in model.trainable_weights} == expected
    assert all(any(p.startswith(start) for p in expected) for start in trained)


@pytest.mark.parametrize(
    ("case", "text", "words"),
    [
        ("repmlpnet", "3", "has 2 stages"),
        ("resmlp", "4", "has 3 stages"),
        ("resmlp", "stage0", "stem, block0"),
        ("convmlp", "head", "stem, conv_stage, stage0, stage1, norm"),
        ("convmlp", "-1", "Received: --freeze -1"),
    ],
)
def test_what_cannot_be_frozen(case, text, words):
    with pytest.raises(KmlpError, match=words):
        chosen(text, network(case))


@pytest.mark.parametrize("case", few(STAGED, *FAMILIES))
def test_frozen_parts_run_as_in_inference(case):
    model = network(case, drop_path_rate=0.5)
    inputs = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:]))
    expected = np.asarray(model(inputs, training=False))
    twin = network(case, drop_path_rate=0.5)  # whose statistics move
    apart = np.abs(np.asarray(twin(inputs, training=True)) - expected).max()
    assert apart > 0.01 * np.abs(expected).max()
    freeze(model, chosen("all", model))
    np.testing.assert_array_equal(np.asarray(model(inputs, training=True)), expected)


def test_a_block_is_not_its_namesake_with_more_digits():
    model = network("resmlp", depth=12)
    assert {x.name.partition("_")[0] for x in parts(model)["block1"]} == {"block1"}


@pytest.mark.parametrize(
    ("case", "accumulate"), [("repmlpnet", 2), long("convmlp", 1), long("msmlp", 1)]
)
def test_frozen_weights_stay_as_they_are(case, accumulate):
    model = network(case, drop_path_rate=0.5)
    freeze(model, chosen("1", model))
    still = {n for n, w in weight_names(model).items() if id(w) in frozen(model)}
    engine = TensorFlowEngine(tf.distribute.get_strategy(), "one device")
    engine.prepare(
        model,
        keras.optimizers.AdamW(0.01, weight_decay=0.1),
        Classification(Objective("none")),
        Options(ema=0.9, accumulate=accumulate),
    )
    before = engine.state()
    size = model.input_shape[1:]
    random = np.random.default_rng(2)
    batch = (
        random.normal(size=(8, *size)).astype("float32"),
        np.eye(6, dtype="float32")[random.integers(0, 6, 8)],
    )
    data = tf.data.Dataset.from_tensors(batch).repeat()
    assert engine.train(engine.feed(lambda: data), 3)["finite"].all()
    after = engine.state()
    model_names = {name for name in before if name.startswith("model/")}
    moved = {n for n in model_names if not np.array_equal(before[n], after[n])}
    assert moved == {n for n in model_names if n.removeprefix("model/") not in still}
    assert not {n for n in before if n.removeprefix("ema/") in still}
    slots = optimizer_names(engine.optimizer, model)
    assert not any(slot.startswith(tuple(still)) for slot in slots)


# The command, from weights to artifacts.

SIZE = 16
MEAN, STD = (0.3, 0.2, 0.1), (0.4, 0.5, 0.6)
SHORT = ("--recipe", "small_images", "--epochs", "1", "--batch-size", "4")
SHORT = (*SHORT, "--image-size", str(SIZE))
# In place of an export's, where nothing is exported.
NO_FIGURES = {"images": 0, "accuracy": 0.0}
# So small a rate that float32 keeps every weight.
STILL = ("--learning-rate", "1e-30")


def preset(folder, names=("cat", "dog"), seed=0, **changes):
    """A folder with a small ResMLP of random weights."""
    changes = {"patch_size": 4, "width": 8, "depth": 2, "norm": "batch"} | changes
    model = kmlp.create_model(
        "resmlp_s12", len(names or "ab"), (SIZE, SIZE, 3), **changes
    )
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))
    model.preprocessing = Preprocessing(
        mean=MEAN,
        std=STD,
        image_size=SIZE,
        test_crop=1.0,
        test_interpolation="bilinear",
        class_names=names,
    )
    return model.save_preset(folder)


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), count=5)


run = functools.partial(run_main, train.main)


def arrays(folder):
    """`{name: array}` of a published or a preset's network."""
    model = keras.models.load_model(folder / "trained.keras")
    return {n: np.asarray(w.value) for n, w in weight_names(model).items()}


def changed(first, second):
    """Names of the arrays that differ."""
    assert first.keys() == second.keys()
    return {name for name in first if not np.array_equal(first[name], second[name])}


# Classes of the weights -> what becomes of the head; the data have cat and dog.
HEADS = {
    ("cat", "dog"): "the classes are theirs, and the head is kept",
    ("cat", "rat"): "the head is new, for 2 classes (the weights know others)",
    tuple("abc"): "the head is new, for 2 classes (the weights' has 3)",
    None: "the head is new, for 2 classes (the weights do not name theirs)",
}


@pytest.mark.parametrize("names", HEADS)
def test_what_becomes_of_the_head(names):
    model = kmlp.create_model(
        "resmlp_s12", len(names or "ab"), (SIZE, SIZE, 3), width=8, depth=1
    )
    model.preprocessing = Preprocessing(class_names=names)
    options = argparse.Namespace(weights="begun", resolution=None)
    begun = initial_weights(model, options, SIZE, ("cat", "dog"))
    assert begun.text == f"Starts from begun at 16x16; {HEADS[names]}"
    kept = HEADS[names].endswith("kept")
    assert begun.described["new_head"] is not kept
    assert (begun.arrays.keys() >= CLASSIFIER) == kept
    larger = initial_weights(model, options, 48, ("cat", "dog"))
    resized = "at 16x16, for 48x48 (spatial kernels interpolated);"
    assert larger.text.startswith(f"Starts from begun {resized}")
    mixing = "block0_cross_patch/mix/kernel"
    assert larger.arrays[mixing].shape != begun.arrays[mixing].shape
    assert larger.identity != begun.identity


def test_weights_without_a_head():
    arguments = {"width": 8, "depth": 1}
    model = kmlp.create_model("resmlp_s12", 0, (SIZE, SIZE, 3), **arguments)
    options = argparse.Namespace(weights="begun", resolution=None)
    begun = initial_weights(model, options, SIZE, ("cat", "dog"))
    assert "the head is new, for 2 classes (the weights have none)" in begun.text
    assert "head/norm/alpha" in begun.arrays
    model = kmlp.create_model("resmlp_s12", include_top=False, **arguments)
    begun = initial_weights(model, options, 224, ("cat", "dog"))
    assert "(the weights have none)" in begun.text
    assert not any(name.startswith("head") for name in begun.arrays)
    assert chosen("all", model) == ("stem", "block0")


def test_what_the_network_sees_decides_the_recipe():
    def options(*arguments):
        settled = train.parse(["--arch", "convmlp_s", "--weights", "w", *arguments])
        settled.data = chosen_data(settled)
        return settled

    small, large, any_size = (
        kmlp.create_model(
            "convmlp_s",
            10,
            shape,
            widths=(8,),
            depths=(1,),
            mlp_ratios=(1,),
            drop_path_rate=0.2,
        )
        for shape in ((48, 48, 3), (96, 96, 3), (None, None, 3))
    )
    source = numbered_source(10)  # of 8x8 pixels
    for begun, arguments, name, size in (
        (small, (), "small_images", 48),
        (small, ("--image-size", "96"), "finetune", 96),
        (large, (), "finetune", 96),
        (large, ("--image-size", "64"), "small_images", 64),
        (large, ("--recipe", "small_images"), "small_images", 96),
        (any_size, (), "finetune", 224),
        (small, ("--recipe", "finetune_cars"), "finetune_cars", 224),
    ):
        recipe, _ = chosen_recipe(options(*arguments), source, begun)
        assert (recipe.name, recipe.image_size) == (name, size)
        assert (recipe.model, recipe.drop_path) == ({}, 0.2)
    any_size.preprocessing = Preprocessing(image_size=40)
    assert chosen_recipe(options(), source, any_size)[0].image_size == 40
    # Nothing is refused before the size is known.
    assert chosen_recipe(options("--set", "epochs=2"))[0].epochs == 2
    assert options("--recipe", "finetune_cars").data == "tfds:cars196"
    assert options("--data", "digits").data is None


@pytest.mark.parametrize("names", [("cat", "dog"), long(tuple("abc"))])
def test_a_run_begins_with_the_weights(names, animals, tmp_path, capfd, monkeypatch):
    # Artifacts are other tests' affair: only the checkpoints are written.
    monkeypatch.setattr(
        "kmlp.training.publishing._artifacts", lambda model, *_: (model, {}, None)
    )
    weights = preset(tmp_path / "begun", names)
    arguments = ("--weights", weights, "--data", animals, *SHORT, *STILL)
    code, output, error = run(capfd, *arguments, "--output", tmp_path)
    assert (code, error) == (0, "")
    assert f"Starts from {weights} at 16x16; {HEADS[names]}\n" in output
    published = tmp_path / "resmlp_s12/1"
    begun = arrays(weights)
    ended = arrays(published)
    kept = HEADS[names].endswith("kept")
    if names == tuple("abc"):
        assert ended["head/dense/kernel"].shape == (8, 2)
        begun |= {name: 0 for name in CLASSIFIER}
    moved = changed(begun, ended)
    statistics = {name for name in begun if "moving" in name}
    assert moved == (statistics if kept else statistics | CLASSIFIER)
    # What the files say of it.
    written = json.loads((published / "recipe.json").read_text())
    report = json.loads((published / "report.json").read_text())
    found = origin.read(published / "trained.keras")
    said = written["initial_weights"]
    assert said == report["initial_weights"] == found["initial_weights"]
    assert said["sha256"] == origin.read(weights)["weights_sha256"]
    assert (said["name"], said["new_head"]) == (str(weights), not kept)
    assert written["recipe"]["mean"] == list(MEAN)
    assert written["recipe"]["std"] == list(STD)
    # The recipe's patches of 8 are for fresh networks.
    assert (report["arguments"]["patch_size"], written["recipe"]["model"]) == (4, {})


@pytest.mark.long
def test_frozen_weights_are_published_as_they_were(animals, tmp_path, capfd):
    weights = preset(tmp_path / "begun", drop_path_rate=0.2)
    arguments = ("--weights", weights, "--data", animals, *SHORT, "--freeze", "1")
    averaged = ("--set", "ema=0.9", "evaluate=ema", "weight_decay=0.5")
    code, output, error = run(capfd, *arguments, *averaged, "--output", tmp_path)
    assert (code, error) == (0, "")
    begun, published = arrays(weights), tmp_path / "resmlp_s12/1"
    still = {n for n in begun if n.startswith(("patch_embed", "block0"))}
    assert changed(begun, arrays(published)) == begun.keys() - still
    model = keras.models.load_model(published / "trained.keras")
    assert model.drop_path_rate == 0.2
    assert len(model.trainable_weights) == len(
        [name for name in begun if "moving" not in name]
    )
    trained = sum(
        array.size
        for name, array in begun.items()
        if name not in still and "moving" not in name
    )
    assert f"Frozen: stem block0; {trained:,} parameters are trained\n" in output
    for path in (published, published / "model.tflite", published / "best.keras"):
        assert origin.read(path)["frozen"] == ["stem", "block0"]


def test_other_weights_are_another_run(animals, tmp_path, capfd, monkeypatch):
    found = []

    def folder(parent, identity):
        found.append(RunFolder(parent, identity).path.name)
        raise KmlpError("seen")

    monkeypatch.setattr("kmlp.training.job.RunFolder", folder)
    first, same, other = tmp_path / "first", tmp_path / "same", tmp_path / "other"
    preset(first), preset(same), preset(other, seed=1)
    for arguments in (
        (first,),
        (same,),
        (other,),
        (first, "--freeze", "0"),
        (first, "--image-size", "32"),
        (first, "--image-size", "32", "--resolution", "partition"),
    ):
        command = ("--data", animals, *SHORT, "--output", tmp_path / "out")
        assert run(capfd, *command, "--weights", *arguments)[2].endswith("seen")
    assert found[0] == found[1]
    assert len(set(found)) == len(found) - 1


@pytest.mark.long
def test_every_device_keeps_what_is_frozen(tmp_path):
    weights = preset(tmp_path / "begun", depth=1)
    command = [
        sys.executable,
        Path(__file__).parents[2] / "training" / "train.py",
        "--weights",
        weights,
    ]
    # A mean over three devices need not be what they all hold.
    command += ["--freeze", "block0", "--rehearse", "--devices", 3, "--data", "digits"]
    command += ["--output", tmp_path, "--set", "ema=0.9", "evaluate=ema"]
    subprocess.run([*map(str, command), "sync_batchnorm=true"], check=True)
    begun, ended = arrays(weights), arrays(tmp_path / "rehearsals/resmlp_s12/1")
    begun |= {name: 0 for name in CLASSIFIER}
    moved = changed(begun, ended)
    assert not any(name.startswith("block0") for name in moved)
    # A bias before a norm may stay by itself.
    learned = {name for name in begun if name.endswith(("kernel", "mean"))}
    assert {name for name in learned if not name.startswith("block0")} <= moved


def test_fine_tuning_of_ones_own_is_the_papers():
    own, papers = (
        recipe_for("resmlp_s12", name=name) for name in ("finetune", "finetune_cifar10")
    )
    differs = {"batch_size": 128, "flip": None, "mean": None, "std": None}
    differs |= {name: getattr(own, name) for name in ClassificationRecipe.DESCRIPTIVE}
    assert own == dataclasses.replace(papers, **differs)


def test_the_data_imply_the_fine_tuning():
    for small, name in ((True, "small_images"), (False, "finetune")):
        recipe = recipe_for("resmlp_s12", pretrained=True, small_images=small)
        assert recipe.name == name
    for data, name in (
        ("tfds:cifar10", "finetune_cifar10"),
        ("tfds:cifar100:3.0.2", "finetune_cifar100"),
        ("tfds:oxford_flowers102", "finetune_flowers102"),
        ("tfds:cars196", "finetune_cars"),
        ("tfds:i_naturalist2018", "finetune_inat18"),
        ("tfds:food101", "finetune"),
        ("flowers", "finetune"),
        (None, "finetune"),
    ):
        recipe = recipe_for("resmlp_s12", pretrained=True, data=data)
        assert recipe.name == name
        if data is not None and name != "finetune":
            assert data_for(name) == f"tfds:{data.split(':')[1]}"
    assert recipe_for("resmlp_s12", name="small_images", pretrained=True).epochs is None
    assert data_for("small_images") is data_for("finetune") is data_for(None) is None
    with pytest.raises(KmlpError, match="--data FOLDER"):
        data_for("finetune_inat19")


# Case -> (arguments, words of the message). PRESET, FILE and FOLDER are filled in.
BAD_INPUT = {
    "neither": ((), "--arch or --weights"),
    "no weights": (("--weights", "FOLDER/no"), "does not exist"),
    "no run": (("--weights", "FOLDER"), "trained.keras"),
    "half a checkpoint": (("--weights", "FILE.keras"), "FILE.keras"),
    "text": (("--weights", "FILE.pth"), "FILE.pth"),
    "merged": (("--weights", "MERGED"), "train form"),
    "other architecture": (
        ("--arch", "resmlp_s24", "--weights", "PRESET"),
        "of resmlp_s12",
    ),
    "other family": (("--arch", "convmlp_s", "--weights", "PRESET"), "resmlp_s12"),
    "unknown tag": (("--arch", "resmlp_s12.fb_in2k"), "fb_in1k"),
    "tag alone": (("--weights", "fb_in1k"), "fb_in1k"),
    "named twice": (("--arch", "resmlp_s12.fb_in1k", "--weights", "PRESET"), "once"),
    "none published": (("--arch", "smlpnet_t", "--weights", "default"), "smlpnet"),
    "freezes nothing": (("--arch", "resmlp_s12", "--freeze", "1"), "with --weights"),
    "resizes nothing": (
        ("--arch", "resmlp_s12", "--resolution", "partition"),
        "with --weights",
    ),
    "too many stages": (("--weights", "PRESET", "--freeze", "3"), "has 2 stages"),
    "no such part": (("--weights", "PRESET", "--freeze", "stage1"), "block1"),
    "another width": (
        ("--weights", "PRESET", "--set", "model.width=16"),
        "do not fit",
    ),
    "another head": (
        ("--weights", "PRESET", "--set", "model.num_classes=16"),
        "follows from the data",
    ),
    "no such argument": (("--weights", "PRESET", "--set", "model.dept=1"), "depth"),
    "no data": (("--weights", "PRESET", "--data", "FOLDER/no"), "does not exist"),
    "data to name": (
        ("--weights", "PRESET", "--recipe", "finetune_inat19"),
        "pass --data FOLDER",
    ),
    "data to fetch": (
        ("--weights", "PRESET", "--recipe", "finetune_cars", "--data-dir", "FOLDER"),
        "tfds:cars196",
    ),
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """A preset, what is damaged of it, and what it becomes."""
    folder = tmp_path_factory.mktemp("wrong")
    whole = preset(folder / "preset") / "trained.keras"
    (folder / "file.keras").write_bytes(whole.read_bytes()[:-500])
    (folder / "file.pth").write_text("no weights")
    (folder / "empty").mkdir()
    merged = kmlp.merge(keras.models.load_model(whole))
    merged.save(folder / "merged.keras")
    return {
        "PRESET": folder / "preset",
        "FILE": folder / "file",
        "FOLDER": folder / "empty",
        "MERGED": folder / "merged.keras",
    }


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case, wrong, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        "kmlp.training.job.train", lambda *_, **__: pytest.fail("trained")
    )
    monkeypatch.setattr(
        "kmlp.training.input.in_memory.load", lambda *_: pytest.fail("read")
    )

    def filled(text):
        for name, path in wrong.items():
            text = text.replace(name, str(path))
        return text

    arguments, words = BAD_INPUT[case]
    # The name of a folder in a message stands for any.
    words = words if words.startswith("pass") else filled(words)
    code, output, error = run(
        capfd, *map(filled, arguments), "--output", tmp_path / "output"
    )
    assert (code, output) == (2, "")
    assert words in error
    assert "\n" not in error
    assert not (tmp_path / "output").exists()
