"""What is in the figure of feature maps."""

import numpy as np
import pytest
from looking import check_figure

from kmlp import plots
from kmlp.plots.image_sheets import Shown

RANDOM = np.random.default_rng(0)


def network(title, stages, count=2):
    maps = {
        name: RANDOM.normal(size=(count, side, side, 5))
        for name, side in stages.items()
    }
    channels = {name: (3, 1) for name in stages}
    return Shown(title, RANDOM.uniform(size=(count, 16, 16, 3)), maps, channels)


def test_each_picture_has_a_row_per_network(tmp_path):
    networks = [
        network("convmlp_s", {"P2": 8, "P3": 4, "P4": 2}),
        network("resmlp_s12", {"block5_add2": 4}),
    ]
    figure = plots.features(networks, names=["ant", "bee"])
    check_figure(figure, tmp_path)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2 * ((1 + 6) + (1 + 2))
    expected = []
    for index in range(2):
        for one in networks:
            expected.append(one.pictures[index])
            for name, maps in one.maps.items():
                expected += [maps[index, ..., c] for c in one.channels[name]]
    for axes, values in zip(panels, expected, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), values)
    row = panels[:7]
    assert row[0].get_ylabel() == "convmlp_s"
    assert row[0].get_xlabel() == "ant"
    titles = [axes.get_title(loc="left") for axes in row[1:]]
    assert titles == ["P2, 8×8", "", "P3, 4×4", "", "P4, 2×2", ""]
    assert [axes.get_xlabel() for axes in row[1:3]] == ["channel 3", "channel 1"]
    # Each from its own smallest to its own largest value.
    for axes in row[1:]:
        values = axes.images[0].get_array()
        assert axes.images[0].get_clim() == (values.min(), values.max())


@pytest.mark.parametrize(
    "wrong", [[], [network("a", {"P2": 4}), network("b", {"P2": 4}, count=3)]]
)
def test_networks_of_other_pictures(wrong):
    with pytest.raises(ValueError, match="at least one network, all of the same"):
        plots.features(wrong)
