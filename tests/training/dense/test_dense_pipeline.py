"""Batches of detection and segmentation: what they hold and on what they depend."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from dense_folders import (
    SIZE,
    coco_content,
    write_ade20k,
    write_cityscapes,
    write_coco,
)
from stopping import stopped

from kmlp.data import scoring
from kmlp.data.dense import DenseSource, DenseSplit, Objects, Unreadable, open_dense
from kmlp.data.dense.results import coco_results
from kmlp.errors import KmlpError
from kmlp.recipes.dense_recipe import DenseRecipe
from kmlp.training.input.dense_pipeline import evaluation_batches, training_batches

ROOT = Path(__file__).parents[3]
PLAIN = {
    "name": "test",
    "epochs": 1,
    "batch_size": 4,
    "learning_rate": 1.0,
    "schedule": "cosine",
    "image_size": (96, 96),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.5, 1.0),
    "flip": 0.0,
}
DETECTION = {**PLAIN, "task": "detection", "head": "mask_rcnn", "max_objects": 6}
SEGMENTATION = {**PLAIN, "task": "segmentation", "head": "upernet"}


def recipe_of(task, **changes):
    of_task = DETECTION if task == "detection" else SEGMENTATION
    return DenseRecipe(**{**of_task, **changes})


def scenes(task, train=10, validation=6):
    return open_dense(None, task, train=train, validation=validation)


def denormalised(image):
    return (image * np.array(PLAIN["std"]) + np.array(PLAIN["mean"])) * 255


def flat(batch):
    return [np.asarray(part) for part in tf.nest.flatten(batch)]


def take(dataset, count):
    return [flat(batch) for batch in dataset.take(count)]


AUGMENTED = {
    "detection": {"flip": 0.5, "short_sides": (60, 96), "long_side": 96},
    "segmentation": {
        "flip": 0.5,
        "scale_range": (0.5, 2.0),
        "max_class_share": 0.75,
        "photometric": True,
    },
}


@pytest.mark.parametrize("task", AUGMENTED)
def test_a_run_goes_on_at_any_step_and_on_any_number_of_workers(task):
    source, recipe = scenes(task), recipe_of(task, **AUGMENTED[task])
    whole = training_batches(source, recipe, batch_size=4, global_batch=4, seed=5)
    steps = take(whole, 5)  # two to an epoch
    later = training_batches(
        source, recipe, batch_size=4, global_batch=4, seed=5, start_step=3
    )
    for expected, found in zip(steps[3:], take(later, 2)):
        for one, other in zip(expected, found):
            np.testing.assert_array_equal(one, other)
    for worker in range(2):
        share = training_batches(
            source,
            recipe,
            batch_size=2,
            global_batch=4,
            seed=5,
            worker=worker,
            workers=2,
        )
        for expected, found in zip(steps, take(share, 5)):
            for one, other in zip(expected, found):
                np.testing.assert_array_equal(one[worker::2], other)
    other = training_batches(source, recipe, batch_size=4, global_batch=4, seed=6)
    assert np.any(take(other, 1)[0][0] != steps[0][0])


@pytest.mark.parametrize("task", AUGMENTED)
def test_an_epoch_shows_every_image_once(task):
    source, recipe = scenes(task, train=8), recipe_of(task)
    known = [source.train.image(index) for index in range(8)]
    batches = training_batches(source, recipe, batch_size=4, global_batch=4)
    found = []
    for images, *_ in take(batches, 4):
        for image in np.rint(denormalised(images)).astype("uint8"):
            (index,) = [i for i, other in enumerate(known) if (image == other).all()]
            found.append(index)
    assert sorted(found[:8]) == sorted(found[8:]) == list(range(8))
    assert found[:8] != found[8:]


def test_an_image_is_another_in_every_epoch():
    source = scenes("segmentation", train=2)
    recipe = recipe_of("segmentation", scale_range=(0.5, 2.0))
    batches = training_batches(source, recipe, batch_size=2, global_batch=2)
    found = [part.tobytes() for _, maps in take(batches, 5) for part in maps]
    assert len(set(found)) == 10


def test_objects_of_a_scene():
    source, recipe = scenes("detection", validation=6), recipe_of("detection")
    (batch,) = evaluation_batches(source, recipe, batch_size=6)
    images, targets, weights = batch
    np.testing.assert_array_equal(weights, np.ones(6))
    np.testing.assert_array_equal(targets["index"], range(6))
    for index in range(6):
        objects = source.validation.annotation(index)
        count = len(objects)
        np.testing.assert_array_equal(targets["boxes"][index, :count], objects.boxes)
        assert np.all(targets["classes"][index, count:] == -1)
        assert not np.any(targets["boxes"][index, count:])
        assert not np.any(targets["masks"][index, count:])
        np.testing.assert_allclose(
            denormalised(images[index].numpy()), source.validation.image(index), 1e-4
        )


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn"])
def test_masks_are_only_where_they_are_learned(head):
    source, recipe = scenes("detection"), recipe_of("detection", head=head)
    spec = training_batches(source, recipe, batch_size=2, global_batch=4).element_spec
    assert ("masks" in spec[1]) == (head == "mask_rcnn")
    assert spec[0].shape == (2, 96, 96, 3)
    assert spec[1]["boxes"].shape == (2, 6, 4)


class Picture(DenseSplit):
    """One picture with the objects that are given, as rectangles."""

    name, count, in_memory = "one", 1, True

    def __init__(self, size, rectangles):
        self.size = size
        self.boxes = np.array(rectangles, "float32").reshape(-1, 4)

    def image(self, index):
        rows, columns = np.indices(self.size)
        return np.stack([columns, rows, rows * 0 + 200], -1).astype("uint8")

    def annotation(self, index):
        def draw(k):
            mask = np.zeros(self.size, "uint8")
            x1, y1, x2, y2 = self.boxes[k].astype(int)
            mask[y1:y2, x1 : (x1 + x2) // 2] = 1  # the left half of the box
            return mask

        return Objects(self.boxes, np.arange(len(self.boxes)), self.size, draw)


def source_of(split, task="detection", classes=9):
    return DenseSource(
        name="one",
        task=task,
        class_names=tuple("abcdefghi"[:classes]),
        train=split,
        validation=split,
        palette=np.zeros((classes, 3)),
    )


def one(split, recipe, task="detection"):
    batches = training_batches(source_of(split, task), recipe, batch_size=1, **ALONE)
    images, targets = next(iter(batches))
    return images[0].numpy(), tf.nest.map_structure(lambda x: x[0].numpy(), targets)


ALONE = {"global_batch": 1}


def test_resizing_mirroring_and_padding_by_hand():
    split = Picture((40, 80), [(8, 4, 40, 24), (60, 20, 80, 40)])
    recipe = recipe_of(
        "detection",
        image_size=(96, 128),
        short_sides=(50, 50),
        long_side=120,
        flip=1.0,
        mask_size=8,
    )
    image, targets = one(split, recipe)  # 50 x 100
    expected = [[50, 5, 90, 30], [0, 25, 25, 50]]
    np.testing.assert_allclose(targets["boxes"][:2], expected, atol=1e-5)
    assert targets["classes"].tolist() == [0, 1, -1, -1, -1, -1]
    assert not targets["masks"][0][:, :4].any()  # mirrored: the right half
    assert targets["masks"][0][:, 4:].all()
    assert not image[50:].any()
    assert not image[:, 100:].any()
    assert image[:50, :100].all(axis=-1).any()
    red = denormalised(image)[25, :100, 0]
    assert np.all(np.diff(red) <= 0)  # the columns count backwards
    np.testing.assert_allclose(red[50], 39.1, atol=0.6)


@pytest.mark.parametrize(
    ("size", "canvas", "short", "long", "expected"),
    [
        # Of the reference framework's rescaling.
        ((480, 640), (800, 1344), 800, 1333, (800, 1067)),
        ((427, 640), (800, 1344), 800, 1333, (800, 1199)),
        ((300, 640), (800, 1344), 800, 1333, (625, 1333)),
        ((640, 480), (1344, 1344), 800, 1333, (1067, 800)),
        # Upright on an oblong canvas: as far as it fits.
        ((640, 480), (800, 1344), 800, 1333, (800, 600)),
        ((96, 96), (96, 96), None, None, (96, 96)),
        ((120, 60), (96, 96), None, None, (96, 48)),
    ],
)
def test_sizes_on_the_canvas(size, canvas, short, long, expected):
    from kmlp.data.dense.geometry import fitted

    assert fitted(size, canvas, short, long) == expected


def test_short_sides_take_their_whole_range():
    split = Picture((40, 40), [(0, 0, 40, 40)])
    recipe = recipe_of("detection", short_sides=(60, 62), long_side=96)
    batches = training_batches(source_of(split), recipe, batch_size=60, **SIXTY)
    sides = next(iter(batches))[1]["boxes"][:, 0, 2].numpy()
    assert sorted(set(np.rint(sides).tolist())) == [60, 61, 62]


SIXTY = {"global_batch": 60}


@pytest.fixture(autouse=True)
def _repeated(monkeypatch):
    """One picture is enough for a batch of any size."""
    if Picture.count == 1:
        monkeypatch.setattr(Picture, "count", 60)


def test_small_objects_are_left_out_and_the_largest_kept():
    boxes = [(0, 0, 4 * n, 10) for n in range(1, 9)] + [(0, 0, 90, 1.5)]
    recipe = recipe_of("detection", max_objects=3, min_box=2.0)
    _, targets = one(Picture((96, 96), boxes), recipe)
    assert targets["classes"].tolist() == [5, 6, 7]
    assert targets["boxes"][:, 2].tolist() == [24, 28, 32]


def test_pictures_without_objects():
    _, targets = one(Picture((96, 96), []), recipe_of("detection"))
    assert (targets["classes"] == -1).all()
    assert not targets["boxes"].any()


def test_masks_over_boxes_by_area():
    from kmlp.data.dense.geometry import mask_in_box

    rows, columns = np.indices((200, 300))
    disc = (rows - 90.5) ** 2 + (columns - 150.5) ** 2 < 60**2
    box = (91, 31, 211, 151)
    small = mask_in_box(disc, box, 56)
    # Pixels' centres of the grid within the circle, but for those at its edge.
    grid = (np.arange(56) + 0.5) / 56 * 2 - 1
    radius = np.hypot(grid[:, None], grid[None])
    assert (small == (radius < 1))[abs(radius - 1) > 0.03].all()
    assert abs(small.mean() - np.pi / 4) < 0.01
    assert mask_in_box(np.ones((50, 50)), (3.4, 2, 9.1, 4.5), 7).all()


def bands(height=40, width=60):
    """A map of vertical bands, ten pixels wide."""
    return np.repeat(np.arange(width // 10)[None], height, 0).repeat(10, 1)


class Bands(Picture):
    def __init__(self, classes):
        self.classes, self.size = classes.astype("uint8"), classes.shape

    def annotation(self, index):
        return self.classes

    def image(self, index):
        """Its colours say which class it is."""
        return np.stack([self.classes * 20] * 3, -1).astype("uint8")


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("crop", [(24, 24), (64, 48), (128, 128)])
def test_images_and_maps_are_cut_and_mirrored_alike(crop, flip):
    recipe = recipe_of(
        "segmentation", image_size=crop, scale_range=(0.5, 2.0), flip=flip
    )
    split = Bands(bands())
    batches = training_batches(
        source_of(split, "segmentation"), recipe, batch_size=30, global_batch=60
    )
    images, maps = (part.numpy() for part in next(iter(batches)))
    maps = maps.astype(int)
    levels = denormalised(images)[..., 0] / 20
    counted = maps != 255
    # Where bands meet the image is blurred.
    assert np.mean(abs(levels - maps)[counted] < 0.05) > 0.75
    assert np.mean(abs(levels - maps)[counted] < 0.55) > 0.97
    assert not images[~counted].any()
    order = np.sign(np.diff(maps, axis=2))
    order = order[counted[:, :, 1:] & counted[:, :, :-1]]
    assert set(order[order != 0]) == {-1 if flip else 1}
    if crop == (24, 24):
        assert len({part.tobytes() for part in maps}) > 20
    if crop == (128, 128):
        assert {255} < set(maps.ravel().tolist())


def test_crops_are_drawn_again_where_one_class_takes_too_much():
    classes = np.zeros((96, 192), int)
    classes[:, :30] = 1
    split = Bands(classes)

    def share(most):
        recipe = recipe_of("segmentation", image_size=(48, 48), max_class_share=most)
        source = source_of(split, "segmentation")
        batches = training_batches(source, recipe, batch_size=60, **SIXTY)
        maps = next(iter(batches))[1].numpy()
        return np.mean([(part == 0).mean() < 0.75 for part in maps])

    assert share(1.0) < 0.35  # (30 - 12) of 145 places, and a few more
    assert share(0.75) > 0.65


def test_void_alone_is_a_legal_crop():
    split = Bands(np.full((40, 40), 255))
    recipe = recipe_of("segmentation", max_class_share=0.75, photometric=True)
    image, found = one(split, recipe, "segmentation")
    assert (found == 255).all()
    assert np.isfinite(image).all()


def test_maps_of_several_sizes_come_one_by_one(tmp_path):
    source = open_dense(f"ade20k:{write_ade20k(tmp_path)}", "segmentation")
    recipe = recipe_of("segmentation", resize_to=(200, 96))
    batches = evaluation_batches(source, recipe, batch_size=4)
    shapes = [(b[0].shape[1:3], b[1].shape[1:]) for b in batches]
    assert shapes == [((96, 128), (48, 64)), ((96, 134), (40, 56))]


def test_maps_of_one_size_come_in_batches(tmp_path):
    source = open_dense(f"cityscapes:{write_cityscapes(tmp_path)}", "segmentation")
    recipe = recipe_of("segmentation")
    batches = evaluation_batches(source, recipe, batch_size=2, split=source.train)
    assert batches.element_spec[0].shape == (2, 32, 64, 3)
    ((_, maps, weights),) = batches
    assert maps.shape == (2, 32, 64)
    assert weights.numpy().tolist() == [1, 1]


def test_workers_share_the_evaluation():
    source, recipe = scenes("detection", validation=7), recipe_of("detection")
    found = []
    for worker in range(2):
        batches = list(
            evaluation_batches(
                source, recipe, batch_size=1, replicas=2, worker=worker, workers=2
            )
        )
        assert len(batches) == 4
        for _, targets, weights in batches:
            found += targets["index"].numpy()[weights.numpy() > 0].tolist()
    assert sorted(found) == list(range(7))


def test_coco_from_files(tmp_path):
    source = open_dense(f"coco:{write_coco(tmp_path)}", "detection")
    recipe = recipe_of(
        "detection", image_size=(96, 128), short_sides=(96, 96), long_side=128
    )
    (batch,) = evaluation_batches(source, recipe, batch_size=5)
    targets = batch[1]
    assert targets["size"].numpy().tolist() == [[*SIZE]] * 4 + [[24, 64]]
    assert targets["shape"].numpy().tolist() == [[96, 128]] * 4 + [[48, 128]]
    assert (targets["classes"].numpy() >= 0).sum(1).tolist() == [2, 1, 0, 1, 1]
    ring = targets["masks"][1, 0].numpy()
    assert abs(ring.mean() - 0.75) < 0.01
    images, _ = next(iter(training_batches(source, recipe, batch_size=3, **THREE)))
    assert images.shape == (3, 96, 128, 3)


THREE = {"global_batch": 3}


def spoil_one(split, index=2, error=None):
    whole = split.image

    def image(number):
        if number == index:
            raise error or Unreadable("some/file.jpg", "cut short")
        return whole(number)

    split.image = image


def attainable(folder):
    """COCO's fixture without what lies outside its image."""
    content = coco_content()
    content["annotations"] = [n for n in content["annotations"] if n["image_id"] != 4]
    return open_dense(f"coco:{write_coco(folder, content)}", "detection")


@pytest.mark.parametrize("kind", ["scenes", "coco"])
def test_targets_score_as_perfect_detections(tmp_path, kind):
    """What is learned from, given back as results, is the truth."""
    small = scenes("detection", validation=40) if kind == "scenes" else None
    source = small or attainable(tmp_path)
    recipe = recipe_of(
        "detection", image_size=(128, 160), short_sides=(128, 128), long_side=160
    )
    found = []
    for _, targets, weights in evaluation_batches(source, recipe, batch_size=5):
        assert weights.numpy().all()
        for row, index in enumerate(targets["index"].numpy()):
            part = {name: value[row].numpy() for name, value in targets.items()}
            found += coco_results(
                {**part, "scores": np.ones(len(part["classes"]))},
                image_id=source.validation.image_id(index),
                size=tuple(part["size"]),
                shape=tuple(part["shape"]),
                category_ids=source.category_ids,
            )
    truth = scoring.truth(source.validation, source)
    scores = scoring.average_precision(truth, found, masks=True)
    assert scores["AP"] == pytest.approx(1)
    assert scores["mask_AP"] > 0.97


@pytest.mark.parametrize("task", AUGMENTED)
def test_what_cannot_be_read_ends_the_run_with_a_line(task):
    source = scenes(task, train=4)
    spoil_one(source.train)
    batches = training_batches(source, recipe_of(task), batch_size=4, **FOUR)
    line = str(stopped(batches.take(1)))
    assert line.startswith("An image or its annotation cannot be used")
    assert line.endswith("Received: some/file.jpg (cut short)")
    source = scenes(task, train=4)
    spoil_one(source.train, error=FileNotFoundError(2, "No such file", "x/y.jpg"))
    source.train.on_corrupt = "skip"  # a file that is gone is another matter
    batches = training_batches(source, recipe_of(task), batch_size=4, **FOUR)
    line = str(stopped(batches.take(1)))
    assert "can no longer be read" in line
    assert "x/y.jpg" in line


FOUR = {"global_batch": 4}


def test_what_cannot_be_read_is_skipped_where_asked(capsys):
    source = scenes("detection", train=4, validation=4)
    for split in (source.train, source.validation):
        split.on_corrupt = "skip"
        spoil_one(split)
    recipe = recipe_of("detection")
    images, _ = next(
        iter(training_batches(source, recipe, batch_size=4, **FOUR).take(1))
    )
    found = np.rint(denormalised(images.numpy())).astype("uint8")
    following = source.train.image(3)
    assert sum((image == following).all() for image in found) == 2
    (batch,) = evaluation_batches(source, recipe, batch_size=4)
    assert batch[2].numpy().tolist() == [1, 1, 0, 1]
    assert "Skipped some/file.jpg (cut short)" in capsys.readouterr().out


def test_fewer_images_than_a_batch_are_refused():
    source = scenes("detection", train=3)
    with pytest.raises(KmlpError, match="lower batch_size"):
        training_batches(source, recipe_of("detection"), batch_size=4, **FOUR)


SCRIPT = """
import time
from kmlp.data.dense import open_dense
from kmlp.training.input.dense_pipeline import training_batches
from kmlp.recipes import DenseRecipe
recipe = DenseRecipe(
    name="x", task="detection", head="retinanet", epochs=1, learning_rate=1.0,
    schedule="cosine", image_size=(96, 96),
)
source = open_dense(None, "detection", train=256)
whole = source.train.image
source.train.image = lambda index: time.sleep(0.2) or whole(index)
batches = iter(training_batches(source, recipe, batch_size=16, global_batch=16))
next(batches)
print("done", flush=True)
"""


@pytest.mark.long
def test_the_process_ends_while_batches_are_prepared():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout == "done\n", result.stderr[-2000:]
    assert result.returncode == 0
