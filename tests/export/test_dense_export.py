"""Detectors and segmenters as they are served, and segmenters on devices."""

import functools
import pathlib
import tempfile
from types import SimpleNamespace

import dense_models
import numpy as np
import pytest
import tensorflow as tf
from cases import few, long
from dense_backbones import BACKBONES, images, relative
from dense_models import CANVAS, NAMES, SEGMENTERS, dense_model, known
from PIL import Image
from serving import pictures

import kmlp
from kmlp.artifacts import agreement, origin
from kmlp.artifacts.running import input_specs, load_saved_model, load_tflite, run_model
from kmlp.data.dense.geometry import fitted as fitted_by_pillow
from kmlp.data.dense.geometry import prepared
from kmlp.data.dense.results import to_picture
from kmlp.export.offer import offer
from kmlp.export.saved_model import CLASS_NAMES, EXTRA, write_saved_model
from kmlp.export.serving_signatures import fitted, prepared_pictures
from kmlp.preprocessing import DensePreprocessing, Preprocessing
from kmlp.serving.check import check, class_names
from kmlp.serving.session import Session

FOLDER = tempfile.TemporaryDirectory()
# They fit the canvas as they are: Pillow and the graph agree to the bit.
PICTURES = [dense_models.picture(*size) for size in ((50, 80), (64, 96), (33, 21))]


@functools.cache
def version(head):
    path = pathlib.Path(FOLDER.name, head)
    return kmlp.export.saved_model(dense_model(head), path)


@functools.cache
def session(head):
    return Session(version(head))


def png(picture):
    return pictures.encoded(Image.fromarray(picture), "PNG")


def served(head, images):
    return session(head).predict(
        {"image_bytes": np.array([png(image) for image in images], object)},
        "serving_bytes",
    )


# A cascade is served by the same layers, and takes longest of all to write.
@pytest.mark.parametrize("head", ["retinanet", long("mask_rcnn")])
def test_a_served_detector_is_the_model(head):
    model = dense_model(head)
    canvases, shapes = zip(*(prepared(p, model.preprocessing) for p in PICTURES))
    expected = run_model(model, np.stack(canvases))
    assert (expected["classes"] >= 0).sum() > 10  # there is something to compare
    found = session(head).predict({"images": np.stack(canvases)})
    assert found.keys() == expected.keys()
    assert agreement.difference(found, expected) < 1e-5
    found = served(head, PICTURES)
    assert found.keys() - expected.keys() <= {"whole_boxes"}
    for row, (picture, shape) in enumerate(zip(PICTURES, shapes)):
        one = {name: part[row] for name, part in expected.items()}
        wanted = to_picture(one, shape, picture.shape[:2])
        count = len(wanted["scores"])
        assert (found["classes"][row, count:] == -1).all()
        for name in found:
            part = found[name][row]
            np.testing.assert_allclose(part[:count], wanted[name], atol=1e-3)
            assert name == "classes" or not part[count:].any()
        assert (found["boxes"][row] <= np.tile(picture.shape[1::-1], 2)).all()


@pytest.mark.parametrize("head", few(SEGMENTERS, "semantic_fpn"))
def test_a_served_segmenter_is_the_model(head):
    model = dense_model(head)
    canvases, shapes = zip(*(prepared(p, model.preprocessing) for p in PICTURES))
    expected = np.asarray(model(np.stack(canvases), training=False))
    assert len(np.unique(expected.argmax(-1))) == len(NAMES)
    found = session(head).predict({"images": np.stack(canvases)})["output_0"]
    assert relative(found, expected) < 1e-5
    found = served(head, PICTURES)
    assert found["shapes"].tolist() == [list(shape) for shape in shapes]
    assert found["sizes"].tolist() == [list(p.shape[:2]) for p in PICTURES]
    wanted = np.full((len(PICTURES), *CANVAS), 255)
    for row, (height, width) in enumerate(shapes):
        wanted[row, :height, :width] = expected[row, :height, :width].argmax(-1)
    assert (found["classes"] != wanted).mean() < 1e-4


@pytest.mark.long
def test_boxes_lie_in_the_pictures_own_pixels():
    """Twice the canvas and beyond: boxes are mapped as NumPy maps them."""
    large = [dense_models.picture(128, 150), dense_models.picture(400, 90)]
    model = dense_model("mask_rcnn")
    images, shapes, _sizes = prepared_pictures(
        tf.constant([png(picture) for picture in large]), model.preprocessing
    )
    assert shapes.numpy().tolist() == [[64, 75], [64, 14]]
    expected = run_model(model, images.numpy())
    found = served("mask_rcnn", large)
    for row, picture in enumerate(large):
        one = {name: part[row] for name, part in expected.items()}
        wanted = to_picture(one, shapes.numpy()[row], picture.shape[:2])
        count = len(wanted["scores"])
        for name in ("boxes", "whole_boxes", "masks"):
            part = found[name][row, :count]
            np.testing.assert_allclose(part, wanted[name], atol=2e-3)


def test_pictures_are_prepared_as_by_pillow():
    """Sizes equal; pixels to one of 255, since Pillow rounds between its passes."""
    spec = known("detection", canvas=(96, 96), short_side=60, long_side=90)
    for kind in ("JPEG", "PNG"):
        for size in ((480, 640), (97, 31), (60, 60), (500, 1)):
            encoded = pictures.of_mode("RGB", kind, size[::-1])
            picture = np.asarray(Image.open(pictures.io.BytesIO(encoded)))
            wanted, shape = prepared(picture, spec)
            images, shapes, sizes = prepared_pictures(tf.constant([encoded]), spec)
            assert shapes.numpy().tolist() == [list(shape)]
            assert sizes.numpy().tolist() == [list(size)]
            apart_by = np.abs(images.numpy()[0] - wanted) * 255 * spec.std
            assert apart_by.max() < 1.001


@pytest.mark.parametrize(
    "spec",
    [
        {"task": "detection", "canvas": (1344, 1344), "short_side": 800}
        | {"long_side": 1333},
        {"task": "detection", "canvas": (64, 96)},
        {"task": "segmentation", "canvas": (512, 512), "resize_to": (2048, 512)},
    ],
)
def test_sizes_in_the_graph(spec):
    spec = DensePreprocessing(mean=(0,) * 3, std=(1,) * 3, **spec)
    graph = tf.function(lambda size: fitted(size, spec))
    for size in np.random.default_rng(0).integers(1, 3000, (200, 2)).tolist():
        wanted = fitted_by_pillow(tuple(size), spec.canvas, *spec.sides)
        assert tuple(graph(tf.constant(size)).numpy()) == wanted


@pytest.mark.parametrize("head", [long("retinanet"), "upernet"])
def test_any_size_is_served(head, tmp_path):
    model = kmlp.resize(dense_model(head), (None, None, 3))
    write_saved_model(kmlp.merge(model), tmp_path, warmup=False)
    run = load_saved_model(tmp_path)
    for size in ((64, 96, 3), (70, 101, 3)):
        x = images(size=size)
        assert agreement.difference(run(x), run_model(model, x)) < 1e-5


@pytest.mark.parametrize("head", [long("mask_rcnn"), "upernet"])
def test_the_check_passes(head):
    folder = version(head)
    names = (folder / EXTRA / CLASS_NAMES).read_text().splitlines()
    assert tuple(names) == NAMES
    findings = {finding.what: finding for finding in check(folder)}
    assert {f.what: f.failure for f in findings.values() if f.failure} == {}
    assert "serving_bytes equals" in findings["as in evaluation"].detail
    assert findings["warm-up records"].detail.startswith("4 replayed")
    carried = origin.read(folder)
    spec = dense_model(head).preprocessing
    assert DensePreprocessing.from_origin(carried) == spec
    assert carried["configuration"]["backbone"]["class_name"] == "ConvMLP"
    (folder / EXTRA / CLASS_NAMES).write_text("ant\nbee\ncow\n")
    with pytest.raises(AssertionError, match="disagree"):
        class_names(
            SimpleNamespace(folder=folder, dense=dense_model(head).preprocessing)
        )
    (folder / EXTRA / CLASS_NAMES).write_text("ant\nbee\ncat\n")


def test_one_bad_picture_is_named():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\] is n"):
        session("retinanet").predict(
            {"image_bytes": np.array([png(PICTURES[0]), b"no picture"], object)},
            "serving_bytes",
        )


def test_without_preprocessing_there_is_only_the_model(tmp_path):
    model = kmlp.merge(dense_model("semantic_fpn"))
    model.preprocessing = None
    write_saved_model(model, tmp_path, class_names=NAMES, warmup=False)
    assert set(Session(tmp_path).signatures) == {"serving_default"}
    assert (tmp_path / EXTRA / CLASS_NAMES).read_text().split() == list(NAMES)


@pytest.mark.parametrize(
    ("head", "arguments", "message"),
    [
        ("retinanet", {"preprocessing": Preprocessing()}, "pass a DensePrep"),
        ("retinanet", {"preprocessing": known("segmentation")}, "is of segmentation"),
        ("upernet", {"preprocessing": known("detection")}, "this model does segmen"),
        (
            "upernet",
            {"preprocessing": known("segmentation", canvas=(64, 64))},
            "the model's 64x96 pixels",
        ),
        ("retinanet", {"class_names": ("a", "b")}, "each of the model's 3 classes"),
        ("upernet", {"class_names": ("a", "b", "b")}, "must differ"),
    ],
)
def test_what_does_not_fit(head, arguments, message):
    model = dense_model(head)
    with pytest.raises(ValueError, match=message):
        offer(model, input_specs(model), **arguments)


def detected(boxes, scores, classes):
    return {
        "boxes": np.array([boxes], "float32"),
        "scores": np.array([scores], "float32"),
        "classes": np.array([classes], "int32"),
    }


ONE, OTHER, EMPTY = [0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]
EXPECTED = detected([ONE, OTHER, EMPTY], [0.9, 0.5, 0], [0, 1, -1])


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        (EXPECTED, 0),
        # Scores are told apart by 1, boxes by the largest, 40.
        (detected([ONE, OTHER, EMPTY], [0.8, 0.5, 0], [0, 1, -1]), 0.1),
        (detected([[0, 0, 10, 12], OTHER, EMPTY], [0.9, 0.5, 0], [0, 1, -1]), 0.05),
        (detected([OTHER, ONE, EMPTY], [0.5, 0.9, 0], [1, 0, -1]), 0),
        (detected([ONE, OTHER, EMPTY], [0.9, 0.5, 0], [1, 1, -1]), 1),
        (detected([OTHER, EMPTY, EMPTY], [0.5, 0, 0], [1, -1, -1]), 1),
        # The last may have fallen to the threshold.
        (detected([ONE, EMPTY, EMPTY], [0.9, 0, 0], [0, -1, -1]), 0),
        (detected([ONE, OTHER, [5, 5, 9, 9]], [0.9, 0.5, 0.7], [0, 1, 2]), 1),
        (detected([ONE, OTHER, EMPTY], [np.nan, 0.5, 0], [0, 1, -1]), np.nan),
    ],
)
def test_detections_are_matched(found, difference):
    apart = agreement.difference(found, EXPECTED)
    assert apart == pytest.approx(difference, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("head", SEGMENTERS)
@pytest.mark.parametrize(
    "family",
    [name if name == "convmlp" else long(name) for name in BACKBONES],
)
def test_segmenters_on_devices(family, head, tmp_path):
    model = dense_model(head, family)
    path = kmlp.export.tflite(model, tmp_path / "model.tflite")
    image = prepared(PICTURES[0], model.preprocessing)[0][None]
    (found,) = load_tflite(path)(image).values()
    assert relative(found, model(image, training=False)) < 1e-4
    carried = origin.read(path)
    assert DensePreprocessing.from_origin(carried) == model.preprocessing


def test_no_detectors_on_devices(tmp_path):
    with pytest.raises(ValueError, match="A detector is served as a SavedModel"):
        kmlp.export.tflite(dense_model("retinanet"), tmp_path / "model.tflite")
