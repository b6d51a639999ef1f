"""COCO's layout: polygons and run lengths, crowds, what is left out and refused."""

import json
import sys

import numpy as np
import pytest
from dense_folders import (
    SIZE,
    coco_content,
    rectangle,
    run_lengths,
    write_coco,
    write_picture,
)
from PIL import Image
from pycocotools import mask as rle

from kmlp.data import scoring
from kmlp.data.dense import Unreadable, open_dense
from kmlp.data.dense.results import drawn, encoded
from kmlp.errors import KmlpError
from kmlp.training.tasks.detection import Detection


@pytest.fixture
def folder(tmp_path):
    return write_coco(tmp_path / "data")


def test_objects_of_a_picture(folder):
    source = open_dense(f"coco:{folder}", "detection")
    assert source.class_names == ("car", "brush")  # by their ids, 3 and 90
    assert source.category_ids == (3, 90)
    first = source.validation.annotation(0)  # without the crowd
    np.testing.assert_array_equal(first.boxes, [[4, 6, 24, 16], [30, 20, 40, 44]])
    np.testing.assert_array_equal(first.classes, [1, 0])
    expected = np.zeros((2, *SIZE), bool)
    expected[0, 6:16, 4:24] = expected[1, 20:44, 30:40] = True
    np.testing.assert_array_equal(first.masks(), expected)
    ring = source.validation.annotation(1).masks()[0]
    assert ring.sum() == 32**2 - 16**2
    assert ring[10, 10]
    assert not ring[20, 20]
    assert len(source.validation.annotation(2)) == 0
    cut = source.validation.annotation(3)
    np.testing.assert_array_equal(cut.boxes, [[0, 10, 10, 30]])
    assert source.validation.image(0).shape == (*SIZE, 3)


def test_pictures_without_objects_are_validated_on_but_not_trained_on(folder):
    source = open_dense(f"coco:{folder}", "detection")
    ids = [source.train.image_id(index) for index in range(source.train.count)]
    assert ids == [1, 2, 4]
    assert source.validation.count == 5
    assert len(source.notes) == 3
    assert "2 objects have no area within the image" in source.notes[0]
    assert "2 of 5 images are not trained on" in source.notes[2]


def test_scoring_sees_everything_with_ids_from_one(folder):
    source = open_dense(f"coco:{folder}", "detection")
    truth = scoring.truth(source.validation, source)
    stated = coco_content()["annotations"]
    assert [item["id"] for item in truth["annotations"]] == list(range(1, 9))
    assert sum(item["iscrowd"] for item in truth["annotations"]) == 1
    assert sorted(item["bbox"] for item in truth["annotations"]) == sorted(
        item["bbox"] for item in stated
    )
    assert {item["category_id"] for item in truth["annotations"]} == {3, 90}


def annotation(**changes):
    """COCO's content with another first annotation, an object of picture 1."""
    content = coco_content()
    content["annotations"][0] |= changes
    return content


RING = coco_content()["annotations"][1]["segmentation"]
PACKED = rle.frPyObjects(RING, *SIZE)
FLAT = rectangle(4, 6, 20, 10)[0]


def test_compressed_run_lengths(tmp_path):
    content = coco_content()
    counts = PACKED["counts"].decode()
    content["annotations"][1]["segmentation"] = {**PACKED, "counts": counts}
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    assert source.train.annotation(1).masks()[0].sum() == 32**2 - 16**2


# Case -> (segmentation, pixels of its mask, `None` where it has none).
SEGMENTATIONS = {
    "a polygon": ([FLAT], 200),
    "a flat polygon": (FLAT, 200),
    "two polygons": (rectangle(4, 6, 9, 10) + rectangle(14, 6, 10, 10), 190),
    "one good, one of two points": ([FLAT, FLAT[:4]], 200),
    "two points": ([FLAT[:4]], None),
    "an odd number": ([FLAT[:7]], None),
    "flat and odd": (FLAT[:7], None),
    "empty": ([], None),
    "an empty polygon": ([[]], None),
    "a null polygon": ([None], None),
    "null": (None, None),
    "far away": ([[0, 0, 1e9, 0, 1e9, 1e9]], None),
    "not finite": ([[0, 0, float("nan"), 0, 5, 5]], None),
}


@pytest.mark.parametrize("case", SEGMENTATIONS)
def test_segmentations(tmp_path, case):
    segmentation, pixels = SEGMENTATIONS[case]
    content = annotation(segmentation=segmentation)
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    first = source.train.annotation(0)
    np.testing.assert_array_equal(first.boxes[0], [4, 6, 24, 16])
    mask = first.draw(0)
    said = any("1 object has no mask" in note for note in source.notes)
    truth = source.validation.truth(0)[0]["segmentation"]
    if pixels is None:
        assert (mask, truth, said) == (None, None, True)
        assert not first.masks()[0].any()
    else:
        assert (mask.sum(), truth is None, said) == (pixels, False, False)


def test_no_mask_at_all(tmp_path):
    content = coco_content()
    for item in content["annotations"]:
        item.pop("segmentation")
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    assert not source.train.masks
    assert not source.validation.masks
    with pytest.raises(KmlpError, match=r"no object has one here: .*--head retinanet"):
        Detection(source, masks=True)
    Detection(source, masks=False)
    truth = scoring.truth(source.validation, source)
    with pytest.raises(KmlpError, match="no object has one: score a detector of boxes"):
        scoring.average_precision(truth, [], masks=True)


def test_an_object_without_a_mask_is_scored_by_its_box_alone(tmp_path):
    """Masks found there count neither for nor against a detector."""
    content = annotation(segmentation=None)
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    truth = scoring.truth(source.validation, source)
    kept = {1, 2}
    for part, name in (("images", "id"), ("annotations", "image_id")):
        truth[part] = [item for item in truth[part] if item[name] in kept]
    results = [
        {
            "image_id": item["image_id"],
            "category_id": item["category_id"],
            "bbox": item["bbox"],
            "score": 0.9,
            "segmentation": encoded(
                drawn(item["segmentation"] or rectangle(4, 6, 5, 5), SIZE)
            ),
        }
        for item in truth["annotations"]
        if not item["iscrowd"]
    ]
    figures = scoring.average_precision(truth, results, masks=True)
    assert figures["AP"] == pytest.approx(1)
    assert figures["mask_AP"] == pytest.approx(1)


@pytest.mark.parametrize("on_corrupt", ["stop", "skip"])
def test_garbage_run_lengths(tmp_path, on_corrupt):
    """Found when they are drawn or scored, and named with their picture."""
    content = annotation(segmentation={"size": [*SIZE], "counts": "ab~~ no ~ lengths"})
    folder = write_coco(tmp_path, content)
    source = open_dense(f"coco:{folder}", "detection", on_corrupt=on_corrupt)
    with pytest.raises(Unreadable, match=r"000000000001.jpg \(run lengths of a mask"):
        source.train.annotation(0).masks()
    if on_corrupt == "skip":
        truth = scoring.truth(source.validation, source)
        assert truth["annotations"][0]["segmentation"] is None
    else:
        with pytest.raises(KmlpError, match=r"cannot be used.*Received: .*01.jpg"):
            scoring.truth(source.validation, source)


@pytest.mark.parametrize(
    ("mark", "crowd"),
    [
        *((0, 0), ("0", 0), ([0], 0), (None, 0), (False, 0), ("", 0)),
        *((1, 1), ("1", 1), ([1], 1), (True, 1), ("true", 1)),
    ],
)
def test_crowd_marks(tmp_path, mark, crowd):
    content = annotation(iscrowd=mark)
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    assert source.validation.truth(0)[0]["iscrowd"] == crowd
    assert len(source.train.annotation(0)) == 2 - crowd


@pytest.mark.parametrize(
    ("changes", "area"),
    [
        ({"area": 0}, 200),
        ({"area": -3}, 200),
        ({"area": None}, 200),
        ({"area": 0, "segmentation": rectangle(4, 6, 5, 5)}, 25),
        ({"area": 0, "segmentation": None}, 200),
        ({"area": 7}, 7),
    ],
)
def test_areas(tmp_path, changes, area):
    content = annotation(**changes)
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    assert source.validation.truth(0)[0]["area"] == area
    assert len(source.train.annotation(0)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "look like corners"),
        (lambda x, y, w, h: [x / 64, y / 48, w / 64, h / 48], "look like fractions"),
        (lambda *box: list(box), None),
    ],
)
def test_boxes_of_other_formats(tmp_path, change, words):
    content = coco_content()
    content["annotations"] = [
        item for item in content["annotations"] if item["image_id"] in (1, 2)
    ]
    for item in content["annotations"]:
        item["bbox"] = change(*item["bbox"])
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    said = [note for note in source.notes if "look like" in note]
    assert bool(said) == (words is not None)
    assert all(words in note for note in said)


def test_names_with_folders_and_backslashes(folder):
    for split in ("train", "val"):
        path = folder / f"annotations/instances_{split}2017.json"
        content = json.loads(path.read_text())
        for number, item in enumerate(content["images"]):
            before = "images\\" if number % 2 else "../elsewhere/"
            item["file_name"] = before + item["file_name"]
        # A mark before the text, as some editors write it.
        path.write_text(json.dumps(content), encoding="utf-8-sig")
    source = open_dense(f"coco:{folder}", "detection")
    assert source.train.image(1).shape == (*SIZE, 3)


def test_upright_sizes(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = folder / "val2017/000000000001.jpg"
    Image.open(path).resize(SIZE).save(path, exif=exif.tobytes())
    source = open_dense(f"coco:{folder}", "detection")
    with pytest.raises(Unreadable, match="pass --exif apply"):
        source.validation.image(0)
    source = open_dense(f"coco:{folder}", "detection", exif="apply")
    assert source.validation.image(0).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("year", "pictures"),
    [("2014", "{split}{year}"), ("", "{split}"), ("2017", "images/{split}{year}")],
)
def test_other_years_and_folders(tmp_path, year, pictures):
    write_coco(tmp_path, year=year, pictures=pictures)
    assert open_dense(f"coco:{tmp_path}", "detection").train.count == 3


def set_in(kind, place, key, value):
    def spoil(content):
        content[kind][place][key] = value

    return spoil


def remove_from(kind, place, key):
    return lambda content: content[kind][place].pop(key)


# Case -> (what is done to good annotations, words of the message).
BAD_CONTENT = {
    "no annotations": (lambda c: c.pop("annotations"), "without a list of annotations"),
    "no categories": (lambda c: c["categories"].clear(), "no categories"),
    "unknown category": (
        set_in("annotations", 3, "category_id", 7),
        r"annotation 3 has category 7, which is not among the categories \(3, 90\)",
    ),
    "unknown image": (
        set_in("annotations", 2, "image_id", 77),
        r"annotation 2 is of image 77, .* \(1, 2, 3",
    ),
    "an image's id as text": (
        set_in("annotations", 2, "image_id", "1"),
        r'annotation 2 is of image "1", which is not among the images \(1, 2',
    ),
    "a crowd of words": (set_in("annotations", 1, "iscrowd", "no"), 'iscrowd "no"'),
    "no box": (remove_from("annotations", 1, "bbox"), "annotation 1 .* 'bbox'"),
    "three numbers": (set_in("annotations", 1, "bbox", [1, 2, 3]), "annotation 1"),
    "not finite": (
        set_in("annotations", 1, "bbox", [1, float("nan"), 3, 4]),
        "annotation 1 with numbers not finite",
    ),
    "no file name": (remove_from("images", 0, "file_name"), "without 'file_name'"),
    "an image twice": (set_in("images", 1, "id", 1), "an id twice"),
    "a mask of another size": (
        set_in("annotations", 1, "segmentation", run_lengths(np.eye(5, 6, dtype=int))),
        "segmentation of annotation 1: a mask of 5 x 6 for an image of 48 x 64",
    ),
    "run lengths too short": (
        set_in("annotations", 1, "segmentation", {"size": [*SIZE], "counts": [9, 9]}),
        "18 pixels in the run lengths of 3,072",
    ),
    "no objects": (
        lambda c: c["annotations"].clear(),
        "no images to use: 5 without objects",
    ),
    "nothing to learn": (
        lambda c: [item.update(bbox=[70, 10, 5, 5]) for item in c["annotations"]],
        "no images to use: 1 without objects, 4 with no object that has an area",
    ),
    "no images": (
        lambda c: (c["images"].clear(), c["annotations"].clear()),
        "no images to use: the annotations name none",
    ),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_bad_annotations_are_refused(tmp_path, case):
    spoil, words = BAD_CONTENT[case]
    write_coco(tmp_path)
    content = coco_content()
    spoil(content)
    for split in ("train", "val"):
        path = tmp_path / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))
    with pytest.raises(KmlpError, match=words) as caught:
        open_dense(f"coco:{tmp_path}", "detection")
    assert "Received: " in str(caught.value)


def test_damaged_json_is_refused(folder):
    (folder / "annotations/instances_val2017.json").write_text('{"images": [')
    with pytest.raises(KmlpError, match=r"damaged: Expecting value.*val2017.json"):
        open_dense(f"coco:{folder}", "detection")


# Case -> (what is done to a good folder, words of the message).
BAD_FOLDERS = {
    "missing": (lambda root: root.rename(root / "../gone"), "this does not exist"),
    "no annotations": (
        lambda root: (root / "annotations").rename(root / "notes"),
        "no annotations/instances_train",
    ),
    "no val": (
        lambda root: (root / "annotations/instances_val2017.json").unlink(),
        "no annotations/instances_val",
    ),
    "no pictures": (
        lambda root: (root / "train2017").rename(root / "pictures"),
        "neither train2017 nor train for instances_train2017.json",
    ),
    "a picture gone": (
        lambda root: (root / "val2017/000000000003.jpg").unlink(),
        "1 of the 5 images .* not there: 000000000003.jpg",
    ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_refused(folder, case):
    spoil, words = BAD_FOLDERS[case]
    spoil(folder)
    with pytest.raises(KmlpError, match=words):
        open_dense(f"coco:{folder}", "detection")


def test_train_and_val_must_agree_on_the_categories(folder):
    content = coco_content()
    content["categories"][0]["name"] = "broom"
    path = folder / "annotations/instances_val2017.json"
    path.write_text(json.dumps(content))
    with pytest.raises(KmlpError, match="only in train: brush; only in val: broom"):
        open_dense(f"coco:{folder}", "detection")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_short, "truncated"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("text"), "none of JPEG"),
        (lambda path: write_picture(path, (50, 64)), "50 x 64 pixels"),
    ],
)
def test_pictures_that_cannot_be_read(folder, spoil, words):
    source = open_dense(f"coco:{folder}", "detection")
    spoil(folder / "val2017/000000000001.jpg")
    with pytest.raises(Unreadable, match=words):
        source.validation.image(0)
    source.validation.image(1)


def test_without_pycocotools_there_is_one_clear_line(folder, monkeypatch):
    source = open_dense(f"coco:{folder}", "detection")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert len(source.train.annotation(0).boxes) == 2  # boxes need no masks
    with pytest.raises(KmlpError, match="pip install pycocotools"):
        source.train.annotation(0).masks()


def test_touching_polygons_are_one_mask(tmp_path):
    content = coco_content()
    parts = rectangle(4, 6, 10, 10) + rectangle(14, 6, 10, 10)
    content["annotations"][0]["segmentation"] = parts
    source = open_dense(f"coco:{write_coco(tmp_path, content)}", "detection")
    assert source.train.annotation(0).masks()[0].sum() == 200
