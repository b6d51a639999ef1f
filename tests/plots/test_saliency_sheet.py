"""What is in the figure of saliency maps."""

import matplotlib
import numpy as np
import pytest
from looking import check_figure

from kmlp import plots
from kmlp.analysis.saliency import Saliency
from kmlp.plots import style
from kmlp.plots.image_sheets import Explained, overlaid, scaled

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.uniform(size=(3, 8, 8, 3))


def column(title, maps, signed=False, layer=None, words=("a 90%", "b 20%", "c 5%")):
    classes = np.zeros(len(maps), "int32")
    saliency = Saliency(maps, signed, classes, np.zeros((len(maps), 3)), layer=layer)
    return Explained(title, PICTURES, saliency, words)


def columns():
    positive = np.random.default_rng(1).uniform(size=(3, 8, 8))
    return [
        column("one\ngradient", positive),
        column("one\nintegrated", positive - 0.5, signed=True),
        column("two\nGrad-CAM", positive[:, :2, :2] - 0.5, signed=True, layer="P5"),
    ]


def shown(figure, title):
    """Images of the axes of a column, by the title of its first."""
    panels = [axes for axes in figure.axes if axes.images]
    width = len(panels) // len(PICTURES)
    titles = [axes.get_title() for axes in panels[:width]]
    return panels[titles.index(title) :: width]


def test_each_picture_is_a_row(tmp_path):
    figure = plots.saliency(columns(), names=["ant", "bee", "cat"])
    check_figure(figure, tmp_path)
    pictures = shown(figure, "picture")
    assert [axes.get_xlabel() for axes in pictures] == ["ant", "bee", "cat"]
    for axes, picture in zip(pictures, PICTURES, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture)
    for own in columns():
        panels = shown(figure, own.title)
        assert [axes.get_xlabel() for axes in panels] == list(own.words)
    labels = [axes.get_xlabel() for axes in figure.axes if not axes.images]
    assert len([label for label in labels if "share of its map" in label]) == 2


def test_maps_alone_are_the_scales_colours():
    own = columns()[:2]
    figure = plots.saliency(own, alone=True)
    for one, scale in zip(own, (style.SEQUENTIAL, style.DIVERGING)):
        colours = matplotlib.colormaps[scale]
        for axes, values in zip(shown(figure, one.title), one.saliency.maps):
            largest = np.percentile(np.abs(values), 99)
            share = np.clip(values / largest, -1, 1)
            expected = colours((share + 1) / 2 if one.signed else share)[..., :3]
            np.testing.assert_allclose(axes.images[0].get_array(), expected, atol=1e-6)


def test_scales():
    values = np.arange(-100.0, 101.0).reshape(3, 67)
    np.testing.assert_allclose(scaled(values, True)[0, :1], -1)
    assert scaled(values, True)[1, 33] == 0
    assert scaled(values, False).min() == 0
    assert scaled(values, False).max() == 1
    # One pixel alone still shows.
    single = np.zeros((40, 40))
    single[3, 4] = 1e-9
    assert scaled(single, False)[3, 4] == 1
    assert not scaled(np.zeros((2, 2)), True).any()


def test_what_does_not_count_is_the_grey_picture():
    for signed in (False, True):
        drawn = overlaid(np.zeros((8, 8)), signed, PICTURES[0])
        assert np.ptp(drawn, axis=-1).max() < 1e-12
        grey = PICTURES[0] @ (0.299, 0.587, 0.114)
        assert np.corrcoef(grey.ravel(), drawn[..., 0].ravel())[0, 1] > 0.999
        full = overlaid(np.ones((8, 8)), signed, PICTURES[0])
        assert np.ptp(full.reshape(-1, 3), axis=0).max() < 1e-12


def test_a_coarse_map_covers_the_picture():
    drawn = overlaid(np.array([[0.0, 1.0], [0.0, 0.0]]), False, np.zeros((8, 8, 3)))
    assert drawn.shape == (8, 8, 3)
    assert drawn[:4, 4:].sum() > 5 * drawn[4:, :4].sum() + 1


def test_an_empty_map_says_so():
    (own,) = columns()[2:]
    figure = plots.saliency([column("x\ny", -np.ones((3, 2, 2)), True, "P5"), own])
    texts = [text.get_text() for axes in shown(figure, "x\ny") for text in axes.texts]
    assert texts == ["nothing above zero"] * 3
    assert not any(axes.texts for axes in shown(figure, own.title))


def test_long_names_stay_in_their_column(tmp_path):
    long = ["an_image_whose_name_is_very_long_and_ends_in_0001"] * 3
    own = [
        column(
            "a_network_of_a_very_long_name\ngradient", RANDOM.uniform(size=(3, 8, 8))
        )
    ]
    figure = plots.saliency(own, names=long)
    check_figure(figure, tmp_path)
    figure.draw_without_rendering()
    for axes in figure.axes:
        if axes.images:
            for text in (axes.xaxis.label, axes.title):
                assert text.get_window_extent().width <= axes.bbox.width * 1.05


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1], [0, 1, 2]])
def test_words_of_the_bars_stay_within_the_sheet(chosen, tmp_path):
    own = columns()
    check_figure(plots.saliency([own[index] for index in chosen]), tmp_path)


@pytest.mark.parametrize(
    "wrong", [[], [column("a", np.ones((3, 8, 8))), column("b", np.ones((2, 8, 8)))]]
)
def test_columns_of_other_pictures(wrong):
    with pytest.raises(ValueError, match="at least one column, all of the same"):
        plots.saliency(wrong)
