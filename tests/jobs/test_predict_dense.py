"""`kmlp predict`, `info` and `export` with detectors and segmenters."""

import importlib.util
import json
import re

import dense_models
import keras
import numpy as np
import pytest
from dense_models import CANVAS, NAMES, dense_model
from PIL import Image

import kmlp
from kmlp.commands.main import main
from kmlp.data.dense import results
from kmlp.data.dense.geometry import prepared
from kmlp.data.dense.results import paste, to_picture
from kmlp.errors import InputError
from kmlp.layers.feature_pyramid import resize_bilinear
from kmlp.predicting.dense_predictions import likeliest_at
from kmlp.pretrained import save_preset

SIZES = {"a.jpg": (50, 80), "b.png": (64, 96), "c/a.png": (120, 90)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    for head in ("retinanet", "mask_rcnn", "semantic_fpn"):
        save_preset(dense_model(head), folder / head)
    dense_model("retinanet").save(folder / "unknown.keras")
    for seed, (name, size) in enumerate(SIZES.items()):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dense_models.picture(*size, seed)).save(path)
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def place(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def run(*arguments):
    return main([str(argument) for argument in arguments])


def by_hand(head, name):
    """The picture, and the detections that the model itself gives for it."""
    model = dense_model(head)
    picture = np.asarray(Image.open(f"images/{name}").convert("RGB"))
    image, shape = prepared(picture, model.preprocessing)
    found = model(image[None], training=False)
    one = {key: np.asarray(part)[0] for key, part in found.items()}
    return picture, to_picture(one, shape, picture.shape[:2])


def test_objects(place, capsys):
    arguments = ("--json", "found.json", "--overlays", "drawn", "--score", "0.5")
    assert run("predict", "images", "--weights", "mask_rcnn", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    entries = json.loads((place / "found.json").read_text())
    assert [line.split()[0] for line in lines] == [f"images/{n}" for n in SIZES]
    for number, (line, name) in enumerate(zip(lines, SIZES), 1):
        picture, wanted = by_hand("mask_rcnn", name)
        shown = []
        order = np.argsort(-wanted["scores"], kind="stable")
        for k in sorted(set(wanted["classes"]), key=list(wanted["classes"]).index):
            own = [i for i in order if wanted["classes"][i] == k]
            scores = [f"{wanted['scores'][i]:.2f}" for i in own]
            scores = [
                score for score, i in zip(scores, own) if wanted["scores"][i] >= 0.5
            ]
            shown += [f"{len(scores)} {NAMES[k]} {' '.join(scores)}"] * bool(scores)
        assert line.split("  ", 1)[1].strip() == (", ".join(shown) or "nothing")
        found = [entry for entry in entries if entry["image_id"] == number]
        assert len(found) == len(wanted["scores"])  # whatever their score
        for entry, box, label, score, mask, whole in zip(
            found,
            *(wanted[n] for n in ("boxes", "classes", "scores")),
            wanted["masks"],
            wanted["whole_boxes"],
        ):
            assert entry["file_name"] == f"images/{name}"
            assert entry["category_id"] == (3, 5, 90)[label]
            assert entry["category"] == NAMES[label]
            assert entry["score"] == pytest.approx(score, abs=1e-4)
            x, y, width, height = entry["bbox"]
            corners = [x, y, x + width, y + height]
            np.testing.assert_allclose(corners, box, atol=1e-2)
            drawn = results.drawn(entry["segmentation"], picture.shape[:2])
            assert (drawn != paste(mask, whole, picture.shape[:2])).mean() < 1e-3
    assert sorted(p.name for p in (place / "drawn").iterdir()) == [
        "a.png",
        "a_2.png",
        "b.png",
    ]


def test_masks_without_pycocotools(monkeypatch):
    masks = np.zeros((3, 6, 5), "uint8")
    masks[0, 0, 0] = masks[1, 2:4, 1:3] = 1
    compressed = [results.encoded(mask) for mask in masks]
    with monkeypatch.context() as without:
        without.setattr(results, "library", missing)
        plain = [results.encoded(mask) for mask in masks]
    for mask, short, long in zip(masks, compressed, plain):
        assert isinstance(long["counts"], list)
        assert sum(long["counts"]) == 30
        assert np.array_equal(results.drawn(long, (6, 5)), mask)
        assert np.array_equal(results.drawn(short, (6, 5)), mask)


def missing():
    raise InputError("no pycocotools")


def test_class_maps(place, capsys):
    arguments = ("--json", "shares.json", "--maps", "maps", "--overlays", "over")
    assert run("predict", "images", "--weights", "semantic_fpn", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    shares = json.loads((place / "shares.json").read_text())
    model = dense_model("semantic_fpn")
    spec = model.preprocessing
    anysize = kmlp.resize(model, (None, None, 3))
    for line, told, name, file in zip(lines, shares, SIZES, ("a", "b", "a_2")):
        picture = np.asarray(Image.open(f"images/{name}").convert("RGB"))
        image = (picture / 255 - np.array(spec.mean)) / np.array(spec.std)
        logits = np.asarray(anysize(image[None].astype("float32"), training=False))[0]
        found = np.asarray(Image.open(f"maps/{file}.png"))
        assert (found != logits.argmax(-1)).mean() < 1e-3
        counts = np.bincount(found.ravel(), minlength=3)
        wanted = {NAMES[k]: counts[k] / found.size for k in np.flatnonzero(counts)}
        assert told["shares"] == pytest.approx(wanted)
        assert told["size"] == list(picture.shape[:2])
        printed = dict(re.findall(r"(\w+) ([\d.]+)%", line.split("  ", 1)[1]))
        assert {k: float(v) for k, v in printed.items()} == pytest.approx(
            {k: 100 * v for k, v in wanted.items()}, abs=0.06
        )
    assert len(list((place / "over").iterdir())) == 3


@pytest.mark.long
def test_artifacts_show_the_same(place, capsys):
    """A picture of the canvas' size, by every form."""
    shown = []
    assert run("export", "semantic_fpn", "served") == 0
    assert run("export", "semantic_fpn", "files", "--quantize", "none", "dynamic") == 0
    others = [name for name in ("onnx", "openvino") if importlib.util.find_spec(name)]
    for name in others:
        assert run("export", "semantic_fpn", f"other.{name}", "--format", name) == 0
    capsys.readouterr()
    forms = ["semantic_fpn", "served", "files/model.float32.tflite"]
    forms += [f"other.{name}" for name in others]
    for form in (*forms, "files/model.dynamic.tflite"):
        assert run("predict", "images/b.png", "--weights", form) == 0
        shown.append(capsys.readouterr().out)
    assert len(set(shown[:-1])) == 1
    assert shown[-1].startswith("images/b.png")
    assert run("predict", "images/b.png", "--weights", "served", "--mode", "slide") == 0


def test_info_and_loading(place, capsys):
    assert run("info", "mask_rcnn/trained.keras") == 0
    lines = capsys.readouterr().out
    assert "backbone=ConvMLP(convmlp), num_classes=3" in lines
    assert f"detection, canvas {CANVAS[0]}x{CANVAS[1]}, mean 0.4 0.5 0.6" in lines
    model = kmlp.create_model(weights="mask_rcnn")
    assert model.class_names == NAMES
    assert model.preprocessing == dense_model("mask_rcnn").preprocessing
    assert type(model).__name__ == "MaskRCNN"
    larger = kmlp.create_model(weights="semantic_fpn", input_shape=(128, 128, 3))
    assert larger.input_shape == (None, 128, 128, 3)
    assert larger.preprocessing.canvas == (128, 128)
    with pytest.raises(ValueError, match="it is taken as it is"):
        kmlp.create_model(None, 7, weights="semantic_fpn")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict bad.png --weights retinanet", "1 of 1 images cannot be read"),
        ("predict images --weights retinanet --flip", "--flip goes with a segmenter"),
        ("predict images --weights retinanet --maps m", "--maps goes with a segmen"),
        ("predict images --weights retinanet --top 2", "--top goes with a classifier"),
        (
            "predict images --weights semantic_fpn --score 0.5",
            "weights are a seg",
        ),
        ("predict images --weights semantic_fpn --batch-size 2", "a classifier or a d"),
        ("predict images --weights semantic_fpn --image-size 32", "--image-size goes"),
        ("predict images --weights retinanet --overlays bad.png", "takes a folder"),
        ("predict images --weights unknown.keras", "does not say how its pictures"),
        ("export retinanet x.tflite", "A detector is served as a SavedModel"),
        ("export retinanet x --precision bfloat16", "served as a SavedModel of float"),
        ("export semantic_fpn x.tflite --quantize int8", "tflite: float32 float16"),
        ("export semantic_fpn x --max-drop 1 --format tflite", "--max-drop goes with"),
        ("export semantic_fpn x --image-size 32", "--image-size goes with a class"),
    ],
)
def test_what_cannot_be(place, arguments, message, capsys):
    assert run(*arguments.split()) in (1, 2)
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]


def test_scores_at_a_pictures_size():
    scores = np.random.default_rng(0).normal(size=(7, 9, 4)).astype("float32")
    for size in ((7, 9), (150, 40), (5, 3)):
        whole = keras.ops.convert_to_numpy(resize_bilinear(scores[None], size))[0]
        found = likeliest_at(scores, size)
        assert found.shape == size
        assert (found != whole.argmax(-1)).mean() < 1e-3
