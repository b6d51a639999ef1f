"""What the stages learn from and what becomes detections, worked by hand."""

import keras
import numpy as np
import pytest

from kmlp.detection.boxes import Anchors
from kmlp.detection.detections import ClassMasks, Detections, Refine
from kmlp.detection.mask_rcnn import CascadeMaskRCNN
from kmlp.detection.regions import Sampler, mask_targets, sample_regions
from kmlp.detection.rpn import Proposals, rpn_losses

numpy = keras.ops.convert_to_numpy
LOG2 = np.log(2.0)


def array(*rows, dtype="float32"):
    return np.array([rows], dtype)


def targets(boxes, classes):
    return {"boxes": array(*boxes), "classes": array(*classes, dtype="int32")}


def rpn(objectness, codes, objects, beta=0.0):
    """Losses of one level of 3×3 places, anchors of 32 pixels at stride 16."""
    anchors = Anchors((2,), (1.0,), (16,))
    found = rpn_losses(
        [np.reshape(objectness, (1, 3, 3, 1)).astype("float32")],
        [np.reshape(codes, (1, 3, 3, 4)).astype("float32")],
        anchors,
        objects,
        Sampler(256, 0.5),
        beta,
    )
    return [float(numpy(x)[0]) for x in found]


def test_the_rpn_learns_the_anchors_it_should():
    # The object is the anchor in the middle. The four beside it overlap it by
    # 512 / 1536 = 1/3 and are neither; those at the corners by 256 / 1792 are not.
    objects = targets([(0, 0, 32, 32), (0, 0, 0, 0)], [1, -1])
    logits = np.full((3, 3), 50.0)  # the cost of 50 for each that is taken for one
    logits[::2, ::2] = [[1.0, 2.0], [3.0, 4.0]]
    logits[1, 1] = -5.0
    codes = np.full((3, 3, 4), 9.0)
    codes[1, 1] = [0.5, -0.25, 1.0, 0.05]
    # With the stride's offset of zero the middle anchor is (0, 0, 32, 32).
    found = rpn(logits, codes, objects)
    costs = np.log1p(np.exp([5.0, 1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(found[0], costs.sum() / 5, rtol=1e-6)
    np.testing.assert_allclose(found[1], 1.8 / 5, rtol=1e-6)
    # Smooth L1 of 0.1: 0.05 costs 0.05² / 0.2, the others half of 0.1 less.
    smooth = (0.45 + 0.2 + 0.95 + 0.0125) / 5
    np.testing.assert_allclose(rpn(logits, codes, objects, 0.1)[1], smooth, rtol=1e-6)


def test_an_object_keeps_its_best_anchors():
    # Between two anchors, it overlaps either by 768 / 1280 = 0.6 only.
    objects = targets([(8, 0, 40, 32)], [0])
    logits = np.zeros((3, 3))
    codes = np.zeros((3, 3, 4))
    class_loss, box_loss = rpn(logits, codes, objects)
    np.testing.assert_allclose(class_loss, LOG2, rtol=1e-6)
    # Both are positives, a quarter of a width away; the seven others overlap the
    # object by 384 / 1664 at most and are background.
    np.testing.assert_allclose(box_loss, 2 * 0.25 / 9, rtol=1e-6)


def test_without_objects_every_anchor_is_background():
    objects = targets([(0, 0, 0, 0)], [-1])
    class_loss, box_loss = rpn(np.zeros((3, 3)), np.ones((3, 3, 4)), objects)
    np.testing.assert_allclose(class_loss, LOG2, rtol=1e-6)
    assert box_loss == 0


def test_proposals_are_the_best_of_all_levels_without_repetitions():
    # One square anchor at each place: 8 pixels at stride 4, 16 pixels at stride 8.
    layer = Proposals((2,), (1.0,), (4, 8), candidates=3, count=4, threshold=0.5)
    fine = np.array([[9.0, 8.0, -9.0], [-9.0, 7.0, 6.0], [-9.0, -9.0, -9.0]])
    coarse = np.array([[5.0, -9.0], [-9.0, 8.5]])
    codes = np.zeros((1, 3, 3, 4), "float32")
    codes[0, 0, 1] = [-0.5, 0.0, 0.0, 0.0]  # onto the anchor of the first place
    images = np.zeros((1, 12, 12, 3), "float32")
    found = layer(
        [
            images,
            fine.reshape(1, 3, 3, 1).astype("float32"),
            coarse.reshape(1, 2, 2, 1).astype("float32"),
            codes,
            np.zeros((1, 2, 2, 4), "float32"),
        ]
    )
    # Scores: 9 (0, 0), then coarse 8.5 at (8, 8), 8 repeats the first, 7 (4, 4) has
    # 16 / 64 in common with it; 6 is no candidate; coarse 5 holds the corner.
    expected = [(0, 0, 4, 4), (0, 0, 12, 12), (0, 0, 8, 8), (0, 0, 8, 8)]
    np.testing.assert_allclose(numpy(found)[0], expected)


def test_proposals_of_unknown_sizes_are_the_same():
    """Where a map is smaller than the number of candidates, empty places follow."""
    shapes = [(None, 6, 5), (None, 3, 3)]
    known, unknown = (
        [
            keras.Input((24, 20, 3) if sized else (None, None, 3)),
            *(keras.Input((*s[1:], 2) if sized else (None, None, 2)) for s in shapes),
            *(keras.Input((*s[1:], 8) if sized else (None, None, 8)) for s in shapes),
        ]
        for sized in (True, False)
    )
    random = np.random.default_rng(0)
    values = [random.normal(size=(2, *x.shape[1:])).astype("float32") for x in known]
    arguments = ((2,), (0.5, 1.0), (4, 8))
    results = []
    for inputs in (known, unknown):
        layer = Proposals(*arguments, candidates=40, count=70)
        twin = Proposals.from_config(layer.get_config())
        outputs = twin(inputs)
        assert outputs.shape == (None, 70, 4)
        results.append(numpy(keras.Model(inputs, outputs)(values)))
    np.testing.assert_allclose(*results, atol=1e-5)
    assert results[0][:, 0].any(axis=-1).all()
    assert not results[0][:, -1].any()  # suppression left fewer than 70


PROPOSALS = (
    (0, 0, 10, 10),  # the object itself
    (0, 0, 10, 5.5),  # IoU 0.55
    (0, 0, 10, 6.5),  # 0.65
    (0, 0, 10, 7.5),  # 0.75
    (0, 0, 10, 4.5),  # 0.45
    (20, 20, 30, 30),
    (0, 0, 0, 0),  # padding
)


@pytest.mark.parametrize(
    ("stage", "positives", "std"),
    [
        (0, 5, (0.1, 0.1, 0.2, 0.2)),
        (1, 4, (0.05, 0.05, 0.1, 0.1)),
        (2, 3, (0.033, 0.033, 0.067, 0.067)),
    ],
)
def test_each_stage_wants_tighter_boxes(stage, positives, std):
    regions = sample_regions(
        array(*PROPOSALS),
        targets([(0, 0, 10, 10), (0, 0, 0, 0)], [2, -1]),
        Sampler(16, 0.5),
        positive=CascadeMaskRCNN.stages[stage].positive,
        num_classes=3,
    )
    # The object's own box joins seven proposals, one of which is padding.
    assert numpy(regions.sampled).sum() == 7
    assert numpy(regions.positive).sum() == positives
    assert numpy(regions.positive)[0, :positives].all()  # first
    labels = numpy(regions.labels)[0]
    assert (labels[:positives] == 2).all()
    assert (labels[positives:] == 3).all()
    assert numpy(regions.is_object).sum() == 1
    assert not numpy(regions.boxes)[0, 7:].any()
    np.testing.assert_array_equal(
        numpy(regions.objects)[0, :positives], [(0, 0, 10, 10)] * positives
    )
    assert CascadeMaskRCNN.stages[stage].std == std
    assert CascadeMaskRCNN.stages[stage].weight == 0.5**stage


@pytest.mark.parametrize(
    ("count", "share", "positives", "sampled"),
    [(4, 0.25, 1, 3), (4, 0.5, 2, 4), (6, 1.0, 5, 6), (2, 0.5, 1, 2)],
)
def test_counts_of_samples(count, share, positives, sampled):
    """Positives up to their share; negatives, of which there are two, fill up."""
    regions = sample_regions(
        array(*PROPOSALS),
        targets([(0, 0, 10, 10)], [0]),
        Sampler(count, share),
        positive=0.5,
        num_classes=1,
    )
    assert regions.boxes.shape == (1, count, 4)
    assert numpy(regions.positive).sum() == positives
    assert numpy(regions.sampled).sum() == sampled


def test_samples_differ_from_call_to_call():
    label = np.zeros((1, 64), "int32")
    sampler = Sampler(8, 0.5)
    first, second = (numpy(sampler(label)[1]) for _ in range(2))
    assert first.sum() == second.sum() == 8
    assert (first != second).any()


def test_masks_of_shifted_regions():
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]], "uint8")
    regions = array(
        (0, 0, 8, 8),  # the object
        (4, 0, 12, 8),  # half a width to the right
        (0, -4, 8, 4),  # half a height up
        (1, 0, 9, 8),  # half a position to the right: halves count
        (20, 20, 28, 28),  # elsewhere
    )
    found = mask_targets(
        regions, array(*[(0, 0, 8, 8)] * 5), np.tile(mask, (1, 5, 1, 1)), 4
    )
    found = numpy(found)[0]
    none = np.zeros((4, 2))
    right = np.concatenate([mask[:, 2:], none], axis=1)
    up = np.concatenate([none.T, mask[:2]], axis=0)
    for index, expected in enumerate((mask, right, up)):
        np.testing.assert_array_equal(found[index], expected)
    np.testing.assert_array_equal(found[3][:, :3], mask[:, :-1] | mask[:, 1:])
    assert not found[4].any()


def test_masks_of_finer_regions_are_bilinear():
    """Between two centres a value falls by quarters, beyond the last not at all."""
    mask = np.array([[[[1, 0], [0, 0]]]], "uint8")
    box = array((10, 10, 18, 18))
    found = numpy(mask_targets(box, box, mask, 4))[0, 0]
    along = np.array([1.0, 0.75, 0.25, 0.0])
    np.testing.assert_array_equal(found, np.outer(along, along) >= 0.5)


def test_detections_are_the_best_of_each_class():
    images = np.zeros((1, 40, 60, 3), "float32")
    boxes = array(
        (0, 0, 20, 20), (1, 0, 21, 20), (30, 10, 70, 50), (0, 0, 0, 0), (5, 5, 9, 9)
    )
    probabilities = np.array(
        [
            (0.6, 0.3, 0.1),
            (0.5, 0.35, 0.15),
            (0.04, 0.9, 0.06),
            (0.9, 0.05, 0.05),  # of padding
            (0.01, 0.02, 0.97),
        ]
    )
    logits = np.log(probabilities)[None].astype("float32")
    layer = Detections(
        (0.1, 0.1, 0.2, 0.2), score_threshold=0.05, nms_threshold=0.5, count=5
    )
    layer = Detections.from_config(layer.get_config())
    codes = np.zeros((1, 5, 1, 4), "float32")
    # Two stages whose logits are this in the mean.
    found = layer([images, boxes, codes, logits + 1.0, logits - 1.0])
    found = {key: numpy(value)[0] for key, value in found.items()}
    np.testing.assert_allclose(found["scores"], [0.9, 0.6, 0.35, 0, 0], rtol=1e-5)
    np.testing.assert_array_equal(found["classes"], [1, 0, 1, -1, -1])
    assert found["classes"].dtype == "int32"
    # Within the image of 40×60; the second is repeated by 1, the third by 0.
    expected = [(30, 10, 60, 40), (0, 0, 20, 20), (1, 0, 21, 20)]
    np.testing.assert_allclose(found["boxes"][:3], expected, atol=1e-4)
    assert not found["boxes"][3:].any()


def test_a_class_moves_its_own_box():
    images = np.zeros((1, 90, 90, 3), "float32")
    boxes = array((10, 10, 30, 50), (0, 0, 0, 0))
    codes = np.zeros((1, 2, 2, 4), "float32")
    codes[0, 0, 1] = [5.0, 0.0, 0.0, np.log(2.0) / 0.2]
    logits = np.array([[[0.0, 1.0, 9.0], [0, 0, 0]]], "float32")
    moved = Refine((0.1, 0.1, 0.2, 0.2))([images, boxes, logits, codes])
    # Half a width to the right, twice as high, cut at the top: 30 - 40 is above.
    np.testing.assert_allclose(
        numpy(moved)[0], [(20, 0, 40, 70), (0, 0, 0, 0)], atol=1e-4
    )


def test_masks_are_those_of_the_class():
    logits = np.zeros((1, 3, 2, 2, 2), "float32")
    logits[0, 0, ..., 1] = np.log(3.0)
    logits[0, 1, ..., 0] = -np.log(3.0)
    classes = np.array([[1, 0, -1]], "int32")
    found = numpy(ClassMasks()([classes, logits, np.zeros_like(logits)]))[0]
    expected = [(0.75 + 0.5) / 2, (0.25 + 0.5) / 2, 0.0]
    np.testing.assert_allclose(
        found, np.reshape(expected, (3, 1, 1)) * np.ones((3, 2, 2)), rtol=1e-6
    )
