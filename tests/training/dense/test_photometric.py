"""Brightness, contrast, saturation and hue against a reference written out."""

import colorsys

import numpy as np
import pytest

from kmlp.training.input.dense_examples import distorted

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)


class Script:
    """A generator whose numbers are given, in the order in which they are drawn."""

    def __init__(
        self, shift=None, contrast=None, early=False, saturation=None, hue=None
    ):
        self.uniforms = [shift or 0.0, contrast or 1.0, saturation or 1.0]
        switches = [shift is not None, early, contrast is not None]
        self.switches = [*switches, saturation is not None, hue or 0, hue is not None]

    def uniform(self, low, high):
        value = self.uniforms.pop(0)
        assert low <= value <= high
        return value

    def integers(self, low, high=None):
        value = int(self.switches.pop(0))
        assert (0 if high is None else low) <= value < (low if high is None else high)
        return value


def linear(image, factor, shift=0.0):
    return np.clip(image.astype(float) * factor + shift, 0, 255).astype("uint8")


def coloured(image, saturation=1.0, turn=0.0):
    """In floating point, by the standard library's conversions."""

    def pixel(colour):
        hue, chroma, value = colorsys.rgb_to_hsv(*(colour / 255))
        hue, chroma = (hue + turn) % 1, min(1, chroma * saturation)
        return [255 * part for part in colorsys.hsv_to_rgb(hue, chroma, value)]

    return np.array([[pixel(colour) for colour in row] for row in image.astype(float)])


EXACT = {
    "nothing": ({}, IMAGE),
    "brighter": ({"shift": 25.5}, linear(IMAGE, 1, 25.5)),
    "darker": ({"shift": -32}, linear(IMAGE, 1, -32)),
    "contrast first": (
        {"shift": 20, "contrast": 1.5, "early": True},
        linear(linear(IMAGE, 1, 20), 1.5),
    ),
    "contrast last": (
        {"shift": -20, "contrast": 0.5},
        linear(linear(IMAGE, 1, -20), 0.5),
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_brightness_and_contrast_are_exact(case):
    script, expected = EXACT[case]
    np.testing.assert_array_equal(distorted(IMAGE, Script(**script)), expected)


@pytest.mark.parametrize(
    ("script", "changes"),
    [
        ({"saturation": 0.5}, {"saturation": 0.5}),
        ({"saturation": 1.5}, {"saturation": 1.5}),
        ({"hue": 17}, {"turn": 34 / 360}),
        ({"hue": -18}, {"turn": -36 / 360}),
        ({"hue": 9, "saturation": 0.7}, {"turn": 18 / 360, "saturation": 0.7}),
    ],
)
def test_saturation_and_hue_within_their_eight_bits(script, changes):
    found = distorted(IMAGE, Script(**script)).astype(float)
    expected = coloured(IMAGE, **changes)
    # 256 hues: half a step is 3 of 255 levels, once in each conversion.
    assert abs(found - expected).max() <= 10
    assert abs(found - expected).mean() <= 1.5
    assert abs(found - IMAGE).mean() > 8


def test_contrast_comes_after_the_colours_where_it_comes_last():
    script = {"hue": 12, "contrast": 1.4}
    late = distorted(IMAGE, Script(**script)).astype(float)
    expected = np.clip(coloured(IMAGE, turn=24 / 360) * 1.4, 0, 255)
    assert abs(late - expected).mean() < 2


def test_each_change_has_a_chance_of_one_half():
    """With probability 1/16 nothing changes."""
    same = [
        np.array_equal(distorted(IMAGE, np.random.default_rng(n)), IMAGE)
        for n in range(800)
    ]
    assert 0.035 < np.mean(same) < 0.095
