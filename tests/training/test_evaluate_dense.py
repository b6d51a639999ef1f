"""Evaluating detectors and segmenters: what a perfect one scores, and by hand."""

import json
from types import SimpleNamespace

import dense_folders
import dense_models
import numpy as np
import pytest
from dense_models import dense_model, known

import kmlp
from kmlp.commands import evaluate
from kmlp.commands.evaluate import DENSE_SCRIPT as evaluate_dense
from kmlp.data.dense import geometry, open_dense
from kmlp.data.dense.geometry import alone
from kmlp.errors import InputError
from kmlp.predicting import evaluation
from kmlp.predicting.dense_network import DenseNetwork
from kmlp.predicting.dense_predictions import way_of
from kmlp.pretrained import save_preset

SIDE = 56


class Seer:
    """A detector that finds all there is, in the order in which it is asked."""

    def __init__(self, source, spec):
        self.source, self.spec, self.index = source, spec, 0

    def __call__(self, images):
        rows = [self._one(index) for index in self._next(len(images))]

        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _next(self, count):
        self.index += count
        return range(self.index - count, self.index)

    def _one(self, index):
        objects = self.source.validation.annotation(index)
        spec, count = self.spec, 6
        shape = geometry.fitted(objects.size, spec.canvas, *spec.sides)
        own = len(objects)
        found = {
            "boxes": np.zeros((count, 4), "float32"),
            "scores": np.zeros(count, "float32"),
            "classes": np.full(count, -1, "int32"),
            "masks": np.zeros((count, SIDE, SIDE), "float32"),
        }
        found["boxes"][:own] = geometry.boxes_of(objects, shape)
        found["scores"][:own] = np.linspace(0.9, 0.5, own)
        found["classes"][:own] = objects.classes
        for k in range(own):
            found["masks"][k] = geometry.mask_in_box(
                objects.draw(k), objects.boxes[k], SIDE
            )
        return found


def options(**changes):
    values = dict.fromkeys(
        ("batch_size", "results", "mode", "window", "stride", "scales", "flip")
    )
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(
    ("data", "canvas", "sides"),
    [("scenes", (96, 96), (None, None)), ("coco", (96, 80), (40, 64))],
)
def test_a_detector_that_sees_all(data, canvas, sides, tmp_path, capsys):
    """Whatever the canvas: pictures of two shapes; a crowd is not counted."""
    if data == "coco":
        content = dense_folders.coco_content()
        # Those of picture 4 lie beyond its edges: no box within it is perfect.
        kept = [item for item in content["annotations"] if item["image_id"] != 4]
        content["annotations"] = kept
        data = f"coco:{dense_folders.write_coco(tmp_path, content)}"
    source = open_dense(data, "detection")
    spec = known(
        "detection",
        canvas=canvas,
        short_side=sides[0],
        long_side=sides[1],
        class_names=source.class_names,
        category_ids=source.category_ids,
    )
    seer = Seer(source, spec)
    network = DenseNetwork(tmp_path, "seer", spec, (None, *canvas, 3), seer)
    count = min(source.validation.count, 12)
    file = tmp_path / "results.json"
    figures, _ = evaluation.detection(
        network, source, count, options(batch_size=5, results=file)
    )
    assert figures["AP"] == pytest.approx(1, abs=1e-6)
    # Masks of 56 places a side lose little of objects this small.
    assert figures["mask_AP"] > 0.9
    assert "box AP 100.00%" in capsys.readouterr().out
    entries = json.loads(file.read_text())
    assert {e["image_id"] for e in entries} <= {
        source.validation.image_id(k) for k in range(count)
    }
    assert {e["category_id"] for e in entries} <= set(source.category_ids)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    names = ("background", "circle", "square", "triangle")
    for head in ("retinanet", "semantic_fpn"):
        model = dense_model(head)
        save_preset(model, folder / head)
    from dense_backbones import backbone, randomised

    from kmlp.segmentation import SemanticFPN

    four = randomised(
        SemanticFPN(backbone("convmlp", (96, 96, 3)), 4, fpn_filters=16, filters=8)
    )
    four.preprocessing = known("segmentation", canvas=(96, 96), class_names=names)
    save_preset(four, folder / "scenes")
    return folder


def test_a_segmenter_by_hand(runs, capsys):
    file = runs / "figures.json"
    arguments = [str(runs / "scenes"), "--images", "6", "--json", str(file)]
    assert evaluate_dense.main(arguments) == 0
    found = json.loads(file.read_text())
    model = kmlp.create_model(weights=runs / "scenes")
    split = open_dense("scenes", "segmentation").validation
    both = [np.zeros(4) for _ in range(3)]
    for index in range(6):
        image = alone(split.image(index), model.preprocessing)
        logits = np.asarray(model(image[None], training=False))[0]
        answer, truth = logits.argmax(-1), split.annotation(index)
        for k in range(4):
            both[0][k] += ((answer == k) & (truth == k)).sum()
            both[1][k] += ((answer == k) | (truth == k)).sum()
        both[2][0] += (answer == truth).mean() / 6
    shares = both[0] / np.maximum(both[1], 1)
    assert found["mIoU"] == pytest.approx(shares[both[1] > 0].mean(), abs=2e-3)
    assert found["accuracy"] == pytest.approx(both[2][0], abs=2e-3)
    assert list(found["IoU"]) == list(model.class_names)
    assert f"mIoU {found['mIoU']:.2%}" in capsys.readouterr().out


def test_windows_scales_and_mirrors(runs, capsys):
    arguments = "--mode slide --window 64x64 --stride 32x48 --scales 0.5,1 --flip"
    arguments = [str(runs / "scenes"), "--images", "2", *arguments.split()]
    assert evaluate_dense.main(arguments) == 0
    out = capsys.readouterr().out
    assert "windows of 64x64, every 32x48, scales 0.5 1, mirrored too" in out
    assert "MS mIoU" in out


def test_pictures_at_their_own_size(tmp_path, capsys):
    """Of ADE20K's layout, each with another shape: no canvas comes between."""
    root = dense_folders.write_ade20k(tmp_path, sizes=((48, 64), (41, 57)))
    source = open_dense(f"ade20k:{root}", "segmentation")
    seen = []

    def run(images):
        seen.append(images.shape[1:3])
        return np.zeros((*images.shape[:3], len(source.class_names)), "float32")

    spec = known("segmentation", class_names=source.class_names)
    network = DenseNetwork(tmp_path, "seer", spec, (None, None, None, 3), run)
    figures, _ = evaluation.segmentation(network, source, 2, options())
    assert seen == [(48, 64), (41, 57)]
    maps = [source.validation.annotation(index) for index in range(2)]
    right = sum((m == 0).sum() for m in maps) / sum((m != 255).sum() for m in maps)
    assert figures["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("retinanet --flip", "--flip goes with a segmenter"),
        ("semantic_fpn --results r.json", "--results goes with a detector"),
        ("semantic_fpn", "trained on other classes than these data have"),
        ("retinanet --data ade20k:x", "--data takes scenes or coco:DIR"),
        ("nowhere", "Neither a detector nor a segmenter"),
        ("scenes --mode whole --window 64", "go with --mode slide"),
        ("scenes --json nowhere/x.json", "--json takes"),
    ],
)
def test_what_cannot_be(runs, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert evaluate_dense.main(arguments.split()) == 2
    assert message in capsys.readouterr().err


def test_the_other_command_points_here(runs, capsys):
    assert evaluate.main([str(runs / "retinanet"), "--data", "digits"]) == 2
    assert "training/evaluate_dense.py" in capsys.readouterr().err


def test_the_window_is_the_networks(tmp_path):
    spec = known("segmentation", mode="slide", stride=(32, 32), window=(64, 96))
    network = DenseNetwork(tmp_path, "x", spec, (None, *dense_models.CANVAS, 3), None)
    way = way_of(network)
    assert (way.mode, way.window, way.stride) == ("slide", (64, 96), (32, 32))
    with pytest.raises(InputError, match="takes 64x96: leave --window out"):
        way_of(network, window=(32, 32))
