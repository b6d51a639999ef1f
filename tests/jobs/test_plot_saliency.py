"""`kmlp plot saliency` and `kmlp plot features` on files, as a person runs them."""

import re

import keras
import numpy as np
import pytest
from cases import randomize
from PIL import Image

import kmlp
from kmlp import plots
from kmlp.analysis import saliency
from kmlp.analysis.features import stage_maps, varied_channels
from kmlp.commands.main import main
from kmlp.data.pictures import KINDS
from kmlp.predicting.classifying import open_classifier, predict
from kmlp.preprocessing import Preprocessing

SIZE = 32
NAMES = ("ant", "bee", "cat")
PREPARED = Preprocessing(
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    image_size=SIZE,
    test_crop=0.8,
    test_interpolation="bicubic",
    class_names=NAMES,
)


def small(family=kmlp.ResMLP, **arguments):
    keras.utils.set_random_seed(0)
    sizes = {"patch_size": 8, "width": 16, "depth": 2}
    if family is kmlp.ConvMLP:
        sizes = {
            "stem_width": 8,
            "conv_blocks": 1,
            "widths": (8, 12, 16),
            "depths": (1, 1, 1),
        }
    model = family(len(NAMES), (SIZE, SIZE, 3), **sizes, **arguments)
    randomize(model)
    model.preprocessing = PREPARED
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two presets, artifacts of one, and three pictures."""
    root = tmp_path_factory.mktemp("files")
    small().save_preset(root / "one")
    small(kmlp.ConvMLP).save_preset(root / "two")
    small(head_activation="softmax").save_preset(root / "sure")
    kmlp.export.saved_model(small(), root / "served", warmup=False)
    kmlp.export.saved_model(
        small(head_activation="softmax"), root / "scores", warmup=False
    )
    kmlp.export.tflite(small(), root / "model.tflite")
    small().save(root / "bare.keras")
    for index, name in enumerate(("bee/x.jpg", "other/y.png")):
        pixels = np.random.default_rng(index).integers(0, 256, (5, 7, 3), np.uint8)
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((70, 50), Image.BICUBIC).save(path)
    (root / "images" / "text.jpg").write_text("no image")
    (root / "empty").mkdir()
    return root


@pytest.fixture
def place(files, tmp_path, monkeypatch):
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """What the jobs hand to the functions that draw."""
    calls = []
    for name in ("saliency", "features"):
        draw = getattr(plots, name)

        def noted(*args, draw=draw, **kwargs):
            calls.append((args[0], kwargs))
            return draw(*args, **kwargs)

        monkeypatch.setattr(plots, name, noted)
    return calls


GOOD = ["images/bee/x.jpg", "images/other/y.png"]


def as_predicted(weights):
    """The likeliest class of each image and its probability, as `kmlp predict` says."""
    found = predict(open_classifier(weights), GOOD, top=1)
    return [f"{p.classes[0][0]} {p.classes[0][2]:.0%}" for p in found]


@pytest.mark.long
def test_two_networks_by_every_method(place, drawn):
    arguments = ["plot", "saliency", *GOOD, "--weights", "one", "--weights", "two"]
    arguments += ["--method", "gradient,cam", "--method", "integrated,smoothgrad"]
    arguments += ["--samples", "2", "--steps", "3", "--layer", "P3", "--out", "a.svg"]
    assert main([*arguments, "--dpi", "40"]) == 0
    assert (place / "a.svg").stat().st_size > 1000
    ((columns, options),) = drawn
    assert options["names"] == ["bee", "y"]
    titles = [c.title for c in columns]
    assert titles[:4] == [
        "one\ngradient",
        "one\nGrad-CAM, P3",
        "one\nintegrated gradients",
        "one\nSmoothGrad",
    ]
    assert [t.partition("\n")[0] for t in titles] == ["one"] * 4 + ["two"] * 4
    for column, weights in ((columns[0], "one"), (columns[4], "two")):
        assert list(column.words) == as_predicted(weights)
    # Prepared as for prediction, and shown as before the normalisation.
    pictures = columns[0].pictures
    assert pictures.shape == (2, SIZE, SIZE, 3)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    inputs = (pictures - PREPARED.mean) / PREPARED.std
    expected = saliency.gradient(small(), inputs.astype("float32"))
    np.testing.assert_allclose(
        columns[0].saliency.maps, expected.maps, atol=1e-3 * expected.maps.max()
    )
    black = -np.array(PREPARED.mean) / PREPARED.std
    expected = saliency.integrated_gradients(
        small(), inputs, steps=3, baseline=black.astype("float32")
    )
    np.testing.assert_allclose(
        columns[2].saliency.maps, expected.maps, atol=1e-3 * abs(expected.maps).max()
    )


def test_a_class_by_name_and_a_saved_model(place, drawn, capsys):
    method = ["--method", "gradient,integrated,smoothgrad", "--steps", "2"]
    method += ["--samples", "2", "--class", "cat", "--alone"]
    for weights in ("one", "served", "sure"):
        assert main(["plot", "saliency", *GOOD, "--weights", weights, *method]) == 0
    said = capsys.readouterr().out
    assert re.search(r"integrated gradients miss up to .*change \(2 steps\)", said)
    (one, options), (served, _), (sure, _) = drawn
    assert options["alone"]
    for column, other, third in zip(one, served, sure, strict=True):
        np.testing.assert_array_equal(column.saliency.classes, [2, 2])
        for twin in (other, third):
            np.testing.assert_allclose(
                twin.saliency.maps,
                column.saliency.maps,
                atol=1e-4 * np.abs(column.saliency.maps).max(),
            )
            assert twin.words == column.words
    words = [text for text in one[0].words if not text.startswith("cat")]
    assert all("\n(for cat " in text for text in words)


def test_features_of_stages(place, drawn):
    arguments = ["plot", "features", *GOOD, "--weights", "two", "--weights", "one"]
    assert main([*arguments, "--image-size", "64,32", "--out", "f.png"]) == 0
    ((shown, options),) = drawn
    assert options["names"] == ["bee", "y"]
    two, one = shown
    assert {k: m.shape[1] for k, m in two.maps.items()} == {
        "P2": 16,
        "P3": 8,
        "P4": 4,
        "P5": 2,
    }
    assert one.pictures.shape == (2, SIZE, SIZE, 3)
    inputs = (one.pictures - PREPARED.mean) / PREPARED.std
    for name, expected in stage_maps(small(), inputs).items():
        np.testing.assert_allclose(
            one.maps[name], expected, atol=1e-3 * np.abs(expected).max()
        )
        assert one.channels[name] == tuple(varied_channels(one.maps[name], 2))


def test_channels_and_layers_that_were_asked_for(place, drawn):
    arguments = ["plot", "features", GOOD[0], "--weights", "two", "--layers", "P4,P2"]
    assert main([*arguments, "--channel", "3,0"]) == 0
    assert main([*arguments, "--channels", "4"]) == 0
    (((given,), _), ((varied,), _)) = drawn
    assert given.channels == {"P4": (3, 0), "P2": (3, 0)}
    assert [len(channels) for channels in varied.channels.values()] == [4, 4]


@pytest.mark.parametrize("kind", ["saliency", "features"])
def test_images_that_cannot_be_read_are_named(kind, place, capsys):
    arguments = ["plot", kind, "--weights", "one", "--out", "some.png"]
    assert main([*arguments, "images"]) == 1
    printed = capsys.readouterr()
    assert f"images/text.jpg (none of {KINDS}) cannot be read" in printed.err
    assert "kmlp: 1 of 3 images cannot be read" in printed.err.splitlines()[-1]
    assert "written  some.png" in printed.out
    (place / "some.png").unlink()
    assert main([*arguments, "images/text.jpg"]) == 1
    assert "kmlp: None of the images can be read" in capsys.readouterr().err
    assert not (place / "some.png").exists()


ONE = [GOOD[0], "--weights", "one"]
WRONG = {
    "no weights": (["saliency", GOOD[0], "--weights", "nix.keras"], "nix.keras"),
    "no image": (["saliency", "nix.jpg", "--weights", "one"], "no such image"),
    "empty folder": (["features", "empty", "--weights", "one"], "without images"),
    "TFLite": (
        ["saliency", GOOD[0], "--weights", "model.tflite"],
        "TFLite file has neither derivatives nor maps: pass the .keras",
    ),
    "features of TFLite": (
        ["features", GOOD[0], "--weights", "model.tflite"],
        "TFLite file has neither derivatives nor maps: pass the .keras",
    ),
    "maps of a SavedModel": (
        ["saliency", GOOD[0], "--weights", "served", "--method", "cam"],
        "does not show its maps: pass the .keras.*--method cam of 'served'",
    ),
    "features of a SavedModel": (
        ["features", GOOD[0], "--weights", "served"],
        "pass a run's folder or a .keras file",
    ),
    "scores of a SavedModel": (
        ["saliency", GOOD[0], "--weights", "scores"],
        "ends in an activation, and its logits are lost: pass the .keras",
    ),
    "nothing known": (
        ["features", GOOD[0], "--weights", "bare.keras"],
        "pass --mean and --std",
    ),
    "an architecture": (
        ["features", GOOD[0], "--weights", "resmlp_s12"],
        "has learned nothing yet.*Received: 'resmlp_s12'",
    ),
    "no class": (
        ["saliency", *ONE, "--class", "be"],
        "such as bee, .*0 to 2. Received: --class be",
    ),
    "no class of this number": (["saliency", *ONE, "--class", "3"], "0 to 2"),
    "no layer": (
        ["saliency", *ONE, "--method", "cam", "--layer", "block0_ad"],
        "would do.*block0_add1.*Received: layer='block0_ad'",
    ),
    "no layer of features": (["features", *ONE, "--layers", "P9"], "would do.*P3"),
    "no channel": (["features", *ONE, "--channel", "99"], "channels 0 to 15"),
    "how many and which": (
        ["features", *ONE, "--channel", "9", "--channels", "2"],
        "leave one out",
    ),
    "sizes": (
        ["saliency", *ONE, "--image-size", "32,64"],
        "one for each of the 1.*Received: --image-size 32,64",
    ),
    "a size of a SavedModel": (
        ["saliency", GOOD[0], "--weights", "served", "--image-size", "64"],
        "images of 32x32",
    ),
    "another method's option": (
        ["saliency", *ONE, "--steps", "3"],
        "--steps goes with --method integrated",
    ),
    "no picture": (["saliency", *ONE, "--out", "a.bmp"], ".png, .svg, .pdf"),
    "no folder": (["features", *ONE, "--out", "nix/a.png"], "existing folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line(case, place, capsys):
    arguments, message = WRONG[case]
    assert main(["plot", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert error.startswith("kmlp: ")
    assert re.search(message, error), error
    assert not list(place.glob("*.png"))


def test_weights_that_are_not_finite(place, capsys):
    model = small()
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
    model.save_preset("nan")
    for kind in ("saliency", "features"):
        assert main(["plot", kind, GOOD[0], "--weights", "nan"]) == 1
        assert "not finite" in capsys.readouterr().err
