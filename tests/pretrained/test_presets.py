"""Presets: what `save_preset` writes, `create_model(weights=folder)` brings back."""

import dataclasses
import errno

import keras
import numpy as np
import pytest
from cases import CASES, build, images, relative_error, run, spread

import kmlp
from kmlp.artifacts import origin
from kmlp.preprocessing import Preprocessing

NAMES = tuple("abcdefghij")
PREPARED = Preprocessing(
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    image_size=None,
    test_crop=0.9,
    test_interpolation="bicubic",
    class_names=NAMES,
)
HEAD_BIAS = "head/dense/bias"
KNOWN = ("mean", "std", "test_crop", "test_interpolation", "class_names")


def preset(case, folder, **overrides):
    """A model with random weights and statistics, saved."""
    model = build(case, **overrides)
    model.preprocessing = PREPARED
    assert model.save_preset(folder) == folder
    return model


def arrays(model):
    return {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}


@pytest.mark.parametrize("case", spread(CASES))
def test_all_of_it_comes_back(case, tmp_path):
    model = preset(case, tmp_path / "mine")
    twin = kmlp.create_model(weights=tmp_path / "mine")
    assert type(twin) is type(model)
    assert twin.get_config() == model.get_config()
    x = images(model)
    assert (run(twin, x) == run(model, x)).all()
    for name in KNOWN:
        assert getattr(twin.preprocessing, name) == getattr(PREPARED, name)
    assert twin.class_names == NAMES
    assert list(twin.pyramid_outputs) == list(model.pyramid_outputs)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["trained.keras"]


@pytest.mark.parametrize("case", spread(CASES))
def test_another_head_and_nothing_else(case, tmp_path, capsys):
    model = preset(case, tmp_path)
    own = arrays(model)

    twin = kmlp.create_model(num_classes=7, weights=tmp_path, drop_path_rate=0.1)
    said = capsys.readouterr().out
    assert said.startswith(f"{model.name}: the head is new, for 7 classes (")
    assert said.count("\n") == 1
    assert "10" in said
    theirs = arrays(twin)
    assert theirs.keys() == own.keys()
    classifier = {path for path in own if path.startswith("head/dense/")}
    assert len(classifier) == 2
    for path in own.keys() - classifier:
        assert (theirs[path] == own[path]).all(), path
    assert theirs["head/dense/kernel"].shape[-1] == 7
    # Fresh: zeros, or within 1/√fan-in; the saved one is farther from zero.
    bound = len(theirs["head/dense/kernel"]) ** -0.5
    assert abs(theirs[HEAD_BIAS]).max() <= bound < abs(own[HEAD_BIAS]).max()
    assert twin.class_names is None
    assert twin.preprocessing.mean == PREPARED.mean

    features = kmlp.create_model(num_classes=0, weights=tmp_path)
    assert capsys.readouterr().out == ""
    assert arrays(features).keys() == own.keys() - classifier
    x = images(model)
    vectors = run(features, x)
    # What the classifier sees: its logits follow from it.
    logits = vectors @ own["head/dense/kernel"] + own[HEAD_BIAS]
    assert relative_error(logits, run(model, x)) <= 1e-5
    merged = kmlp.merge(features)
    assert relative_error(run(merged, x), vectors) <= 1e-5
    assert features.compute_output_shape((None, *x.shape[1:])) == (None, len(vectors.T))

    backbone = kmlp.create_model(include_top=False, weights=tmp_path)
    last = list(model.pyramid_outputs)[-1]
    map_model = keras.Model(model.inputs, model.pyramid_outputs[last])
    assert (run(backbone, x) == run(map_model, x)).all()
    assert capsys.readouterr().out == ""


def test_a_head_on_saved_features_is_new(tmp_path, capsys):
    build("convmlp", num_classes=0).save_preset(tmp_path)
    assert kmlp.create_model(weights=tmp_path).num_classes == 0
    assert capsys.readouterr().out == ""
    model = kmlp.create_model(num_classes=3, weights=tmp_path)
    assert model.output_shape == (None, 3)
    assert "the head is new, for 3 classes (none came)" in capsys.readouterr().out


@pytest.mark.parametrize("resolution", ["interpolate", "partition"])
def test_another_size(resolution, tmp_path):
    model = preset("resmlp", tmp_path)
    twin = kmlp.create_model(
        num_classes=5,
        input_shape=(64, 64, 3),
        weights=tmp_path,
        resolution=resolution,
        dtype="mixed_bfloat16",
    )
    assert twin.output_shape == (None, 5)
    assert twin.dtype_policy.name == "mixed_bfloat16"
    assert twin.inputs[0].shape == (None, 64, 64, 3)
    assert twin.preprocessing.image_size == 64
    oblong = kmlp.create_model(input_shape=(32, 64, 3), weights=tmp_path)
    assert oblong.preprocessing.image_size is None  # only squares are ever prepared
    assert oblong.class_names == NAMES
    expected = kmlp.resize(model, (64, 64, 3), resolution)
    for path, value in arrays(expected).items():
        if not path.startswith("head/dense/"):
            assert (arrays(twin)[path] == value).all(), path


def test_what_is_merged_knows_its_images_too(tmp_path):
    model = preset("smlpnet", tmp_path)
    merged = kmlp.merge(model)
    assert merged.preprocessing == model.preprocessing
    assert merged.class_names == NAMES
    merged.save(tmp_path / "merged.keras")
    loaded = kmlp.create_model(weights=tmp_path / "merged.keras")
    x = images(model)
    assert relative_error(run(loaded, x), run(model, x)) <= 1e-5
    with pytest.raises(ValueError, match=r"is no train form.*'num_classes': 3"):
        kmlp.create_model(num_classes=3, weights=tmp_path / "merged.keras")


def test_weights_without_their_network(tmp_path):
    arguments = {"depth": 2, "width": 16, "patch_size": 8}
    model = kmlp.create_model("resmlp_s12", 10, (32, 32, 3), **arguments)
    file = tmp_path / "mine.weights.h5"
    model.save_weights(file)
    shape = (32, 32, 3)
    twin = kmlp.create_model("resmlp_s12", None, shape, weights=file, **arguments)
    assert (run(twin, images(model)) == run(model, images(model))).all()
    other = kmlp.create_model("resmlp_s12", 4, shape, weights=file, **arguments)
    assert other.output_shape == (None, 4)
    assert arrays(other)["patch_embed/dense/kernel"].any()
    with pytest.raises(ValueError, match="pass `name`"):
        kmlp.create_model(weights=file)
    with pytest.raises(ValueError, match="not of resmlp_s12 with these arguments"):
        kmlp.create_model("resmlp_s12", weights=file)


def test_a_preset_is_replaced_as_one_step(tmp_path, monkeypatch):
    model = preset("resmlp", tmp_path)
    kept = (tmp_path / "trained.keras").read_bytes()

    def full(*arguments, **described):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(origin, "write", full)
        with pytest.raises(OSError, match="No space"):
            model.save_preset(tmp_path)
    assert (tmp_path / "trained.keras").read_bytes() == kept
    assert len(list(tmp_path.iterdir())) == 1
    model.save_preset(tmp_path, class_names=list("ABCDEFGHIJ"))
    assert kmlp.create_model(weights=tmp_path).class_names == tuple("ABCDEFGHIJ")


BAD = {
    "names": (
        lambda model: model.save_preset("x", class_names=["a", "b"]),
        "10 classes. Received: 2 class names",
    ),
    "size": (
        lambda model: model.save_preset(
            "x", preprocessing=dataclasses.replace(PREPARED, image_size=7)
        ),
        "32x48 pixels. Received: image_size=7",
    ),
    "merged": (
        lambda model: kmlp.pretrained.save_preset(kmlp.merge(model), "x"),
        "Received: Functional",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        save(build("resmlp"))
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "another architecture": ({"name": "convmlp_s"}, "of resmlp, not of convmlp_s"),
    "other widths": ({"width": 32}, "variables do not fit, such as block0"),
    "other depth": ({"depth": 3}, "variables do not fit, such as block2"),
    "no such argument": ({"widht": 32}, "widht"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments_that_do_not_fit_the_weights(case, tmp_path):
    preset("resmlp", tmp_path)
    arguments, message = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=message):
        kmlp.create_model(weights=tmp_path, **arguments)


NOTHING = {
    "nothing named": ({}, "needs a name of list_models"),
    "no such tag": (
        {"name": "resmlp_s12", "weights": "fb_in1"},
        "fb_in1k.*Received: .*fb_in1'",
    ),
    "a tag without its architecture": ({"weights": "fb_in1k"}, "needs the name of its"),
    "twice": (
        {"name": "resmlp_s12.fb_in1k", "weights": "fb_dino"},
        "named once.*resmlp_s12.fb_in1k.*fb_dino",
    ),
    "no such architecture": ({"name": "resmlp_s13", "weights": "x"}, "resmlp_s12"),
    "none published": ({"name": "smlpnet_t", "weights": "default"}, "training/train"),
    "no such file": ({"weights": "nowhere/a.pth"}, "does not exist.*nowhere/a.pth"),
    "an empty folder": ({"weights": "."}, "trained.keras"),
    "no path": ({"name": "resmlp_s12", "weights": 3}, "Received: weights=3"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_weights_that_are_none(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = NOTHING[case]
    with pytest.raises(ValueError, match=message):
        kmlp.create_model(**arguments)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_half_a_checkpoint(share, tmp_path):
    preset("resmlp", tmp_path)
    file = tmp_path / "trained.keras"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cannot be read.*damaged.*trained\.keras"):
        kmlp.create_model(weights=tmp_path)


def test_features_are_no_classes(tmp_path):
    """Without a classifier there are no names to save, whatever the width."""
    model = build("convmlp", num_classes=0)
    model.preprocessing = dataclasses.replace(PREPARED, class_names=None)
    model.save_preset(tmp_path)
    assert kmlp.create_model(weights=tmp_path).class_names is None
    with pytest.raises(ValueError, match="num_classes"):
        build("convmlp", num_classes=-1)
    assert np.isfinite(run(model, images(model))).all()
