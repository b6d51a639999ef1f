"""Pasted masks, COCO's scores and those of class maps, against values by hand."""

import json

import keras
import numpy as np
import pytest
from dense_folders import write_coco
from pycocotools import mask as rle

from kmlp.data import scoring
from kmlp.data.dense import open_dense, results
from kmlp.errors import KmlpError
from kmlp.segmentation.segmenter import confusion

SIZE = (40, 60)


@pytest.fixture(scope="module")
def scenes():
    return open_dense(None, "detection", train=4, validation=24)


def perfect(source, index):
    """A scene's objects as a detector would give them, masks at 96 x 96 over them."""
    objects = source.validation.annotation(index)
    masks = []
    for mask, box in zip(objects.masks(), objects.boxes.astype(int)):
        inside = mask[box[1] : box[3], box[0] : box[2]]
        rows, columns = (np.arange(96) * side // 96 for side in inside.shape)
        masks.append(inside[rows[:, None], columns])
    empty = 6 - len(objects)
    return {
        "boxes": np.pad(objects.boxes, [(0, empty), (0, 0)]),
        "scores": np.pad(np.ones(len(objects)), (0, empty)),
        "classes": np.pad(objects.classes, (0, empty), constant_values=-1),
        "masks": np.pad(np.array(masks, "float32"), [(0, empty), (0, 0), (0, 0)]),
    }


def entries(source, detections):
    found = []
    for index, detection in enumerate(detections):
        found += results.coco_results(
            detection,
            image_id=source.validation.image_id(index),
            size=source.validation.image_size(index),
            category_ids=source.category_ids,
        )
    return found


def test_perfect_detections_score_one(scenes, capsys):
    found = entries(scenes, [perfect(scenes, index) for index in range(24)])
    json.dumps(found)
    truth = scoring.truth(scenes.validation, scenes)
    scores = scoring.average_precision(truth, found, masks=True)
    assert scores["AP"] == pytest.approx(1)
    assert scores["mask_AP50"] == pytest.approx(1)
    assert scores["mask_AP"] > 0.97
    assert not any(capsys.readouterr())


def image(number, *bboxes, category=1):
    return [
        {
            "image_id": number,
            "category_id": category,
            "bbox": list(bbox),
            "area": bbox[2] * bbox[3],
            "iscrowd": 0,
            "segmentation": [],
        }
        for bbox in bboxes
    ]


def scored(truth, found):
    numbers = sorted({item["image_id"] for item in [*truth, *found]})
    content = {
        "images": [{"id": n, "height": 100, "width": 100} for n in numbers],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": [{**item, "id": n} for n, item in enumerate(truth, 1)],
    }
    return scoring.average_precision(content, found)


A, B, ELSEWHERE = (10, 10, 20, 20), (50, 50, 20, 20), (10, 70, 20, 20)
# Of its 20 columns 15 are covered: intersection over union 0.75.
SHIFTED = (10, 10, 15, 20)
# Recall is read off at 0, 0.01, … 1: at 51 of the 101 places it is at most a half.
HALF = 51 / 101
# Case -> (boxes there, (box, score) found, AP, AP50).
CASES = {
    "one of two": ([A, B], [(A, 0.9)], HALF, HALF),
    "none found": ([A], [], 0, 0),
    "a wrong one before": ([A], [(ELSEWHERE, 0.9), (A, 0.5)], 0.5, 0.5),
    "a wrong one after": ([A], [(A, 0.9), (ELSEWHERE, 0.5)], 1, 1),
    "twice": ([A, B], [(A, 0.9), (A, 0.8), (B, 0.7)], None, (51 + 50 * 2 / 3) / 101),
    # Good enough for 0.5, 0.55, 0.6, 0.65, 0.7 and 0.75 of the ten thresholds.
    "not all of it": ([A], [(SHIFTED, 0.9)], 0.6, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_average_precision_by_hand(case):
    there, found, expected, expected50 = CASES[case]
    found = [{**image(1, box)[0], "score": score} for box, score in found]
    scores = scored(image(1, *there), found)
    assert scores["AP50"] == pytest.approx(expected50, abs=1e-6)
    if expected is not None:
        assert scores["AP"] == pytest.approx(expected, abs=1e-6)


def test_the_mean_is_over_the_classes_that_are_there():
    truth = image(1, A) + image(1, B, category=2)
    found = [{**image(1, A)[0], "score": 0.5}]
    assert scored(truth, found)["AP"] == pytest.approx(0.5)
    assert scored(truth[:1], found)["AP"] == pytest.approx(1)
    assert "AP_large" not in scored(truth, found)


def test_what_lies_in_a_crowd_counts_for_nothing():
    crowd = {**image(1, (40, 40, 60, 60))[0], "iscrowd": 1}
    found = [{**image(1, box)[0], "score": s} for box, s in [(B, 0.9), (A, 0.5)]]
    assert scored([*image(1, A), crowd], found)["AP"] == pytest.approx(1)
    assert scored(image(1, A), found)["AP"] == pytest.approx(0.5)


def test_what_cannot_be_scored():
    with pytest.raises(KmlpError, match="no object"):
        scored([], [{**image(1, A)[0], "score": 0.5}])
    detections = {
        "boxes": np.array([[1.0, 2, 3, 4], [1, 2, np.nan, 4]]),
        "scores": np.array([0.9, 0.8]),
        "classes": np.array([0, 0]),
    }
    given = {"image_id": 1, "size": SIZE, "category_ids": (1,)}
    with pytest.raises(
        KmlpError, match=r"not finite: .*Received: \[1.0, 2.0, nan, 4.0"
    ):
        results.coco_results(detections, **given)
    detections["classes"][1] = -1  # an empty place may hold anything
    assert len(results.coco_results(detections, **given)) == 1


def test_results_in_the_pixels_of_the_picture(tmp_path):
    source = open_dense(f"coco:{write_coco(tmp_path)}", "detection")
    detections = {
        "boxes": np.array([[20, 10, 60, 50], [100, 90, 300, 200], [0, 0, 0, 0]]),
        "scores": np.array([0.5, 0.4, 0.0]),
        "classes": np.array([1, 0, -1]),
    }
    found = results.coco_results(
        detections,
        image_id=7,
        size=(48, 64),
        shape=(96, 128),
        category_ids=source.category_ids,
    )
    assert found == [
        {"image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 20], "score": 0.5},
        {"image_id": 7, "category_id": 3, "bbox": [50, 45, 14, 3], "score": 0.4},
    ]


def grid_sampled(mask, box, size):
    """The reference framework's pasting, written with its own operation."""
    torch = pytest.importorskip("torch")
    x1, y1, x2, y2 = box
    x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    rows, columns = torch.meshgrid(y.double(), x.double(), indexing="ij")
    grid = torch.stack([columns, rows], -1)[None]
    values = torch.from_numpy(mask).double()[None, None]
    sampled = torch.nn.functional.grid_sample(values, grid, align_corners=False)
    return sampled[0, 0].numpy()


@pytest.mark.parametrize(
    "box",
    [
        (10, 5, 30, 35),
        (3.3, 2.7, 51.2, 38.9),
        (20.2, 10.1, 24.9, 13.3),  # smaller than the mask
        (-15.5, -4.2, 20.8, 20),
        (50, 30, 90.5, 70),
        (30.1, 10.2, 30.6, 10.9),
        (12.5, 8.5, 40.5, 36.5),  # edges through the pixels' centres
    ],
)
def test_masks_are_pasted_as_the_reference_does(box):
    for seed in range(5):
        mask = np.random.default_rng(seed).uniform(size=(28, 28))
        if seed == 4:
            mask[:] = 1
        expected = grid_sampled(mask, box, SIZE)
        clear = abs(expected - 0.5) > 1e-6  # float32 in the reference may fall beside
        pasted = results.paste(mask, box, SIZE)
        assert pasted.shape == SIZE
        np.testing.assert_array_equal(pasted[clear], (expected >= 0.5)[clear])


def test_a_pasted_full_mask_is_its_box():
    expected = np.zeros(SIZE)
    expected[4:20, 8:33] = 1
    np.testing.assert_array_equal(
        results.paste(np.ones((28, 28)), (8, 4, 33, 20), SIZE), expected
    )


def test_masks_in_results_are_run_lengths():
    detections = {
        "boxes": np.array([[8.0, 4, 33, 20]]),
        "scores": np.ones(1),
        "classes": np.zeros(1, int),
        "masks": np.ones((1, 28, 28)),
    }
    (found,) = results.coco_results(
        detections, image_id=1, size=SIZE, category_ids=(1,)
    )
    assert rle.area(found["segmentation"]) == 25 * 16


# Rows the truth, columns the prediction.
MATRIX = [[3, 1, 0], [2, 4, 0], [0, 0, 0]]


def test_intersection_over_union_by_hand():
    truth = np.repeat([0, 0, 1, 1, 255], [3, 1, 2, 4, 5])
    predicted = np.repeat([0, 1, 0, 1, 2], [3, 1, 2, 4, 5])
    matrix = scoring.confusion(truth, predicted, 3)
    np.testing.assert_array_equal(matrix, MATRIX)
    scores = scoring.intersection_over_union(matrix)
    assert scores["IoU"] == [pytest.approx(3 / 6), pytest.approx(4 / 7), None]
    assert scores["mIoU"] == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert scores["accuracy"] == pytest.approx(7 / 10)
    assert scores["mean_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2)


def test_intersection_over_union_agrees_with_keras():
    generator = np.random.default_rng(0)
    truth = generator.choice([0, 1, 2, 4, 255], (4, 30, 20))  # 3 is never there
    predicted = np.where(
        generator.random(truth.shape) < 0.6,
        truth % 5,
        generator.choice([0, 1, 2, 4], truth.shape),
    )
    metric = keras.metrics.MeanIoU(5, ignore_class=255)
    matrix = 0
    for one, other in zip(truth, predicted):
        metric.update_state(one, other)
        matrix = matrix + scoring.confusion(one, other, 5)
    in_a_graph = confusion(np.eye(5, dtype="float32")[predicted], truth, 5)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(in_a_graph), matrix)
    scores = scoring.intersection_over_union(matrix)
    assert scores["mIoU"] == pytest.approx(float(metric.result()), abs=1e-6)
    assert scores["IoU"][3] is None


def test_maps_of_void_alone_are_not_scored():
    void = np.full((4, 4), 255)
    matrix = scoring.confusion(void, np.zeros((4, 4), int), 3)
    with pytest.raises(KmlpError, match="No pixel"):
        scoring.intersection_over_union(matrix)


def test_a_class_that_is_only_predicted_counts_as_zero():
    scores = scoring.intersection_over_union([[3, 1], [0, 0]])
    assert scores["IoU"] == [pytest.approx(3 / 4), 0]
    assert scores["mIoU"] == pytest.approx(3 / 8)
