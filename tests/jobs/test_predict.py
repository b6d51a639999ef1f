"""`kmlp predict`: the likeliest classes of images, by weights of every form."""

import json
import re

import keras
import numpy as np
import pytest
import shipped
from cases import randomize
from PIL import Image

import kmlp
from kmlp.commands.main import main
from kmlp.data.pictures import KINDS
from kmlp.preprocessing import Preprocessing

SIZE = 32
NAMES = ("ant", "bee", "cat", "dog", "elk")
PREPARED = Preprocessing(
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    image_size=SIZE,
    test_crop=0.8,
    test_interpolation="bicubic",
    class_names=NAMES,
)


def small(**arguments):
    keras.utils.set_random_seed(0)
    model = kmlp.ResMLP(
        len(NAMES), (SIZE, SIZE, 3), patch_size=8, width=16, depth=2, **arguments
    )
    randomize(model)
    model.preprocessing = PREPARED
    return model


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A preset and four pictures, with a shape each."""
    monkeypatch.chdir(tmp_path)
    small().save_preset("mine")
    for index, (name, shape) in enumerate(
        {"a.jpg": (50, 70), "b.png": (40, 40), "c/d.JPEG": (90, 33)}.items()
    ):
        pixels = np.random.default_rng(index).integers(0, 256, (*shape, 3), np.uint8)
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize(shape[::-1], Image.BICUBIC).save(path)
    return tmp_path


def by_hand(model, path):
    """Scores by Pillow and the trained model: resized, cropped, normalised."""
    image = Image.open(path).convert("RGB")
    size = int(SIZE / PREPARED.test_crop)
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((int(width * scale), int(height * scale)), Image.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in image.size)
    image = image.crop((left, top, left + SIZE, top + SIZE))
    pixels = (np.asarray(image) / 255 - PREPARED.mean) / PREPARED.std
    logits = np.asarray(model(pixels[None].astype("float32"), training=False))[0]
    return np.exp(logits) / np.exp(logits).sum()


def predicted(*arguments):
    assert main(["predict", *map(str, arguments), "--json", "found.json"]) == 0
    with open("found.json") as file:
        return json.load(file)


def test_scores_equal_those_by_hand(place, capsys):
    model = small()
    found = predicted("images", "--weights", "mine")
    assert [e["image"] for e in found] == [
        "images/a.jpg",
        "images/b.png",
        "images/c/d.JPEG",
    ]
    lines = capsys.readouterr().out.splitlines()
    for line, entry in zip(lines, found, strict=True):
        scores = by_hand(model, entry["image"])
        order = np.argsort(-scores)
        assert [c["index"] for c in entry["classes"]] == list(order)
        assert [c["name"] for c in entry["classes"]] == [NAMES[i] for i in order]
        # Pillow rounds the pixels between its two passes.
        np.testing.assert_allclose(
            [c["score"] for c in entry["classes"]], scores[order], atol=0.02
        )
        best = entry["classes"][0]
        assert line.startswith(entry["image"])
        assert f"  {best['name']} {best['score']:.1%}, " in line


def test_every_form_says_the_same(place):
    model = small()
    kmlp.export.saved_model(model, "served")  # its preprocessing is the model's own
    kmlp.export.tflite(model, "model.tflite")
    (place / "activated").mkdir()
    twin = small(head_activation="softmax")
    twin.set_weights(model.get_weights())
    twin.save_preset("activated")
    expected = predicted("images/*.*", "--weights", "mine")
    assert len(expected) == 2
    for weights in ("mine/trained.keras", "served", "model.tflite", "activated"):
        found = predicted("images/*.*", "--weights", weights)
        for one, other in zip(found, expected, strict=True):
            assert one["image"] == other["image"]
            names = [[c["name"] for c in e["classes"]] for e in (one, other)]
            assert names[0] == names[1], weights
            scores = [[c["score"] for c in e["classes"]] for e in (one, other)]
            np.testing.assert_allclose(*scores, atol=1e-5, err_msg=weights)


def test_without_weights_the_network_that_comes_with_kmlp(place, capsys):
    photos = [path for path in shipped.files() if path.stem == "0003"]
    found = predicted(*photos)
    notes = capsys.readouterr().err
    assert notes.startswith(f"No --weights: {shipped.NAME}, which comes with kmlp and ")
    assert notes.count("\n") == 1
    expected = shipped.logits().argmax(-1)[3::10]
    assert [e["classes"][0]["index"] for e in found] == expected.tolist()
    right = [e["classes"][0]["name"] == p.parent.name for e, p in zip(found, photos)]
    assert sum(right) >= 8


def test_top_and_size(place, capsys):
    (entry,) = predicted("images/a.jpg", "--weights", "mine", "--top", "2")
    assert len(entry["classes"]) == 2
    (larger,) = predicted("images/a.jpg", "--weights", "mine", "--image-size", "48")
    small_scores = predicted("images/a.jpg", "--weights", "mine")[0]["classes"]
    assert larger["classes"] != small_scores
    # A file given twice, or by a folder too, is one.
    assert len(predicted("images", "images/a.jpg", "--weights", "mine")) == 3


def test_an_image_that_cannot_be_read(place, capsys):
    images = place / "images"
    whole = (images / "a.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("no image")
    code = main(["predict", "images", "--weights", "mine", "--json", "found.json"])
    printed = capsys.readouterr()
    assert code == 1
    # The good ones are answered all the same.
    assert len(printed.out.splitlines()) == 3
    assert len(json.loads((place / "found.json").read_text())) == 3
    assert "images/cut.jpg (damaged JPEG) cannot be read" in printed.err
    assert "images/empty.png (empty) cannot be read" in printed.err
    assert f"images/text.jpg (none of {KINDS}) cannot be read" in printed.err
    assert "kmlp: 3 of 6 images cannot be read" in printed.err.splitlines()[-1]


WRONG = {
    "no image": (["nix.jpg", "--weights", "mine"], "no such image.*'nix.jpg'"),
    "no match": (["images/*.gif", "--weights", "mine"], r"no such image.*\*\.gif"),
    "a folder without any": (["mine", "--weights", "mine"], "without images"),
    "no weights": (["images", "--weights", "nowhere/x.keras"], "does not exist"),
    "an image as weights": (["images", "--weights", "images/a.jpg"], "images/a.jpg"),
    "no classifier": (["images", "--weights", "features"], "have no classifier"),
    "nothing known": (["images", "--weights", "bare.keras"], "pass --mean and --std"),
    "an artifact's size": (
        ["images", "--weights", "model.tflite", "--image-size", "48"],
        "take images of 32x32: leave --image-size out",
    ),
    "no tag": (["images", "--weights", "resmlp_s12.nix"], "fb_in1k"),
    "weights that are not finite": (["images", "--weights", "nan"], "not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line(case, place, capsys):
    arguments, message = WRONG[case]
    if "features" in arguments:
        kmlp.create_model(num_classes=0, weights="mine").save_preset("features")
    if "bare.keras" in arguments:
        small().save("bare.keras")
    if "model.tflite" in arguments:
        kmlp.export.tflite(small(), "model.tflite")
    if "nan" in arguments:
        model = small()
        model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
        model.save_preset("nan")
    capsys.readouterr()
    assert main(["predict", *arguments]) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert error.startswith("kmlp: ")
    assert re.search(message, error), error
