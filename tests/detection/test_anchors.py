"""Anchors of known places, forms and order."""

import numpy as np
import pytest
from keras import ops

from kmlp.detection.boxes import Anchors

# Halves of the sides at stride 8 of 4·2^{0, 1/3, 2/3} strides: 16, 20.16, 25.40; of
# height / width one half, √2 longer and shorter.
LONG, SIDE, SHORT = (
    (22.6274, 28.5088, 35.9188),
    (16.0, 20.1587, 25.3984),
    (11.3137, 14.2544, 17.9594),
)


def test_the_nine_forms():
    scales = tuple(4 * 2 ** (i / 3) for i in range(3))
    anchors = Anchors(scales, (0.5, 1, 2), (8, 16))
    halves = [*zip(LONG, SHORT), *zip(SIDE, SIDE), *zip(SHORT, LONG)]
    wanted = np.array([(-x, -y, x, y) for x, y in halves])
    assert anchors.count == 9
    assert anchors.forms(8) == pytest.approx(wanted, abs=1e-4)
    assert anchors.forms(16) == pytest.approx(2 * wanted, abs=2e-4)


def test_order_of_places():
    anchors = Anchors((2, 4), (1,), (8, 16))
    fine, coarse = map(ops.convert_to_numpy, anchors.boxes([(2, 3), (1, 1)]))
    forms = np.array([[-8, -8, 8, 8], [-16, -16, 16, 16]])
    places = [(x, y) for y in (0, 8) for x in (0, 8, 16)]
    wanted = [form + (x, y, x, y) for x, y in places for form in forms]
    assert fine.tolist() == np.array(wanted).tolist()
    assert coarse.tolist() == (2 * forms).tolist()


def test_levels_and_strides_go_together():
    with pytest.raises(ValueError, match=r"2 levels.*Received: 1 shapes"):
        Anchors((4,), (1,), (8, 16)).boxes([(2, 2)])
