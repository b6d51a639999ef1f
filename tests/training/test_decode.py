"""Decoding, cropping and resizing against Pillow, and timm's choice of crops."""

import importlib.util
import io
import math
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from serving.pictures import encoded, picture

from kmlp.data import decode
from kmlp.pytorch.timm_resmlp import timm_module
from kmlp.training.input import order
from kmlp.training.input import pipeline as crops

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def timm_evaluation(image, size, test_crop, interpolation):
    """What timm's evaluation transform does, with Pillow."""
    short = math.floor(size / test_crop)
    width, height = image.size
    sides = [int(short * side / min(width, height)) for side in (width, height)]
    image = image.resize(sides, FILTERS[interpolation])
    left, top = (round((side - size) / 2) for side in sides)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("test_crop", [1.0, 0.9, 0.875])
@pytest.mark.parametrize(
    "sides", [(500, 375), (333, 500), (224, 224), (249, 300), (40, 31), (900, 90)]
)
def test_centre_crop(sides, test_crop, interpolation):
    image = picture(*sides)
    expected = timm_evaluation(image, 224, test_crop, interpolation).astype(int)
    result = decode.centre_crop(
        tf.constant(np.asarray(image)), 224, test_crop, interpolation
    )
    difference = np.abs(result.numpy().astype(int) - expected)
    assert difference.mean() < 0.25
    # Pillow clips between its passes too, where bicubic overshoots twice.
    assert np.quantile(difference, 0.999) <= 2
    if interpolation == "bilinear":
        assert difference.max() <= 1


@pytest.mark.parametrize("test_crop", [1.0, 0.875])
def test_centre_crop_within_a_map(test_crop):
    """As it is served; an image that fits already stands among others."""

    def crop(image):
        return decode.centre_crop(image, 32, test_crop, "bilinear")

    files = [encoded(picture(*s), "PNG") for s in ((48, 90), (32, 32), (20, 33))]
    spec = tf.TensorSpec((32, 32, 3), tf.uint8)
    mapped = tf.function(lambda x: tf.map_fn(crop, x, fn_output_signature=spec))
    found = mapped(tf.constant(files)).numpy()
    np.testing.assert_array_equal(found, [crop(tf.constant(f)) for f in files])
    fits = tf.constant(np.asarray(picture(32, 32)))
    np.testing.assert_array_equal(found[1], crop(fits))


class Draws:
    """Stands for Python's `random` and gives what was drawn."""

    def __init__(self, drawn):
        self.drawn, self.calls, self.placed = drawn, 0, 0

    def uniform(self, low, high):
        value = self.drawn[self.calls // 2, self.calls % 2]
        self.calls += 1
        return low + (high - low) * value

    def randint(self, low, high):
        value = self.drawn[(self.calls - 1) // 2, 2 + self.placed]
        self.placed += 1
        return low + math.floor(value * (high - low + 1))


# Sides of images, some of which few crops or none fit.
SIDES = [(500, 375), (375, 500), (64, 64), (400, 100), (90, 400), (1000, 20), (5, 3)]


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.8, 1.0), (0.5, 2.0))]
)
def test_crops_are_timms(sides, scale, ratio, monkeypatch):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm")
    transforms = timm_module("timm.data.transforms")
    functional = types.SimpleNamespace(get_image_size=lambda image: image)
    monkeypatch.setattr(transforms, "F", functional)
    choose = transforms.RandomResizedCropAndInterpolation.get_params
    draws = np.random.default_rng(0).random((100, crops.ATTEMPTS, 4), np.float32)
    width, height = sides
    boxes = tf.map_fn(
        lambda shapes: crops.crop_box(height, width, shapes, ratio),
        crops.crop_shapes(tf.constant(draws), scale, ratio),
        fn_output_signature=tf.int32,
    )
    expected = []
    for drawn in draws.astype("float64"):
        monkeypatch.setattr(transforms, "random", Draws(drawn))
        expected.append(choose(sides, scale, ratio))
    difference = np.abs(boxes.numpy() - expected).max(axis=1)
    # In single precision, a side may be rounded the other way.
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1


FULL = ((1.0, 1.0), (1.0, 1.0))  # scale and ratio of crops that are the whole square


def shapes_of(scale, ratio, seed=0):
    draws = tf.random.stateless_uniform((1, crops.ATTEMPTS, 4), (seed, 0))
    return crops.crop_shapes(draws, scale, ratio)[0]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("side", [20, 224, 230, 700])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "decoded"])
def test_resized_crop_of_a_square(kind, side, interpolation):
    image = picture(side, side)
    value = np.asarray(image)
    if kind != "decoded":
        value = encoded(image, kind)
        image = Image.open(io.BytesIO(value)).convert("RGB")
    expected = np.asarray(image.resize((224, 224), FILTERS[interpolation])).astype(int)
    result = crops.resized_crop(
        tf.constant(value), 224, shapes_of(*FULL), FULL[1], interpolation, False
    )
    difference = np.abs(result.numpy().astype(int) - expected)
    assert difference.mean() < 0.25
    assert np.quantile(difference, 0.999) <= 2


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sides", [(500, 333), (120, 300)])
def test_part_of_a_jpeg_is_that_of_the_whole(sides, seed):
    """Cropping while decoding only moves the borders' chroma a little."""
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    contents = tf.constant(encoded(picture(*sides), "JPEG"))
    arguments = (224, shapes_of(scale, ratio, seed), ratio, "bicubic", False)
    part = crops.resized_crop(contents, *arguments).numpy().astype(int)
    whole = crops.resized_crop(decode.decode(contents), *arguments).numpy()
    difference = np.abs(part - whole)
    assert difference.mean() < 0.2
    assert difference[8:-8, 8:-8].max() <= 1


def test_either_interpolation():
    image = tf.constant(np.asarray(picture(150, 150)))
    arguments = (image, 224, shapes_of(*FULL), FULL[1])
    for cubic, name in ((True, "bicubic"), (False, "bilinear")):
        either = crops.resized_crop(*arguments, "random", tf.constant(cubic))
        np.testing.assert_array_equal(
            either, crops.resized_crop(*arguments, name, False)
        )


def test_shift_moves_by_whole_pixels():
    size = 16
    reach = int(size * order.SHIFT)
    image = np.random.default_rng(0).integers(1, 255, (size, size, 3), np.uint8)
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)))
    places = range(2 * reach + 1)
    share = 1 / len(places)
    for top in places:
        for left in places:
            for low in (0.0, 0.999):  # every part of the range leads there
                draws = tf.constant([(top + low) * share, (left + low) * share])
                window = padded[top : top + size, left : left + size]
                np.testing.assert_array_equal(
                    crops.shift(tf.constant(image), draws), window
                )


def test_mirror():
    image = tf.constant(np.asarray(picture(12, 9)))
    np.testing.assert_array_equal(crops.mirror(image, tf.constant(False)), image)
    np.testing.assert_array_equal(
        crops.mirror(image, tf.constant(True)), image[:, ::-1]
    )


def test_normalise():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = np.asarray(picture(10, 10))
    expected = (image / 255 - mean) / std
    result = decode.normalise(tf.constant(image), mean, std)
    np.testing.assert_allclose(result, expected, atol=1e-6)
