"""Hostile bytes: refused by name, one request at a time, and before memory is taken."""

import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf
from serving import pictures, served

from kmlp.data import decode
from kmlp.serving.hostile import hostile_images, resized_png

IMAGES = list(pictures.STRANGE.values())


def ask(session, signature, values):
    return session.predict({"image_bytes": values}, signature)


def encoded(*images):
    return np.array(images, object)


HOSTILE = hostile_images(pictures.STRANGE["JPEG"], pictures.STRANGE["PNG"])


@pytest.mark.parametrize("signature", ["serving_bytes", "classify"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bytes_fail_one_request(kind, signature):
    session = served.session()
    before = ask(session, signature, encoded(*IMAGES[:2]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        ask(session, signature, encoded(*IMAGES[:2], HOSTILE[kind]))
    after = ask(session, signature, encoded(*IMAGES[:2]))
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (HOSTILE["text"], r"image_bytes\[2\] is none of JPEG, PNG, WebP .* 19 bytes"),
        (HOSTILE["an empty string"], r"image_bytes\[2\] is none of .* 0 bytes"),
        (HOSTILE["a GIF"], r"image_bytes\[2\] is none of"),
        (HOSTILE["a BMP of 4 bits a pixel"], r"image_bytes\[2\] is none of"),
        (
            HOSTILE["a BMP of 50,000 pixels a side"],
            r"image_bytes\[2\] is too large .* Received: 50000x50000 pixels",
        ),
        (
            HOSTILE["a WebP of 16,000 pixels a side"],
            r"image_bytes\[2\] is too large .* Received: 16000x16000 pixels",
        ),
        (
            HOSTILE["a JPEG of 50,000 pixels a side"],
            r"image_bytes\[2\] is too large .* Received: 50000x50000 pixels",
        ),
        (
            HOSTILE["a PNG of 50,000 pixels a side"],
            r"image_bytes\[2\] is too large .* Received: 50000x50000 pixels",
        ),
        (
            resized_png(pictures.STRANGE["PNG"], 2**31 - 1, 2**31 - 1),
            r"image_bytes\[2\] is too large",
        ),
        (
            resized_png(pictures.STRANGE["PNG"], decode.LONGEST_SIDE + 1, 1),
            r"image_bytes\[2\] is too large .* 65536x1 pixels",
        ),
        (HOSTILE["a truncated JPEG"], "Invalid JPEG data"),
    ],
)
def test_refusals_name_the_image(image, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ask(served.session(), "classify", encoded(*IMAGES[:2], image))


def test_headers_are_judged_before_anything_is_decoded():
    huge = HOSTILE["a PNG of 50,000 pixels a side"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\]"):
        ask(served.session(), "classify", encoded(HOSTILE["a damaged PNG"], huge))


def test_the_limits_themselves_are_allowed():
    side = 2**13
    assert side * side == decode.LARGEST_IMAGE
    png = resized_png(pictures.STRANGE["PNG"], side, side)
    checked = decode.checked(tf.constant([png]), "images")
    assert checked.numpy()[0] == png
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"8193x8192"):
        decode.checked(tf.constant([resized_png(png, side + 1, side)]), "images")


def test_hostile_requests_leave_those_beside_them_alone():
    session = served.session()
    good, bad = encoded(*IMAGES[:2]), encoded(IMAGES[0], HOSTILE["a damaged PNG"])
    expected = ask(session, "serving_bytes", good)["output_0"]

    def request(index):
        if index % 2:
            with pytest.raises(tf.errors.InvalidArgumentError):
                ask(session, "serving_bytes", bad)
            return expected
        return ask(session, "serving_bytes", good)["output_0"]

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for found in threads.map(request, range(40)):
            np.testing.assert_array_equal(found, expected)
