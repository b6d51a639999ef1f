"""FC kernels before and after Locality Injection: what is in the figure."""

import cases
import keras
import numpy as np
import pytest
from looking import check_figure

import kmlp
from kmlp import plots
from kmlp.analysis.injection import Injection, injected_kernels
from kmlp.plots.kernel_images import LABEL


def injections(case, **overrides):
    return [
        Injection(kernel) for kernel in injected_kernels(cases.build(case, **overrides))
    ]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def test_a_row_per_pair_on_one_scale(tmp_path):
    injected = injections("repmlpnet")[1]
    pairs = [injected.at(0, (0, 7)), injected.at(3, (2, 2))]
    figure = plots.locality(pairs)
    check_figure(figure, tmp_path)
    assert len(panels(figure)) == 4
    logs = [log for pair in pairs for log in (pair.log_before, pair.log_after)]
    shown = [axes.images[0] for axes in panels(figure)]
    for image, log in zip(shown, logs, strict=True):
        np.testing.assert_array_equal(image.get_array(), log)
        assert image.norm.vmax == max(log.max() for log in logs)
        assert image.norm.vmin == np.percentile(np.array(logs), 1)
    for number, axes in enumerate(panels(figure)):
        pair = pairs[number // 2]
        when, inside = (("before", pair.inside_before), ("after", pair.inside_after))[
            number % 2
        ]
        share = f"{inside:.1%}" if inside < 0.1 else f"{inside:.0%}"
        assert axes.get_title() == f"{when}: {share} of |w| in outline"
        outline, point = axes.patches[1], axes.patches[3]
        top, left, height, width = pair.footprint
        assert outline.get_bbox().bounds == (left - 0.5, top - 0.5, width, height)
        assert point.get_bbox().bounds[:2] == (
            pair.position[1] - 0.25,
            pair.position[0] - 0.25,
        )
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles == [
        "stage1_block0_channel_perceptron, share-set 0, output (0, 7)",
        "stage1_block0_channel_perceptron, share-set 3, output (2, 2)",
    ]
    bars = [child for axes in panels(figure) for child in axes.child_axes]
    assert [bar.get_ylabel() for bar in bars] == [LABEL] * 2


def test_an_outline_on_a_large_map_hides_none_of_its_cells():
    layer = kmlp.layers.SetSharingLinear(local_kernels=(3,), name="mix")
    inputs = keras.Input((40, 40, 1))
    (kernel,) = injected_kernels(keras.Model(inputs, layer(inputs)))
    figure = plots.locality([Injection(kernel).at(0, (20, 30))])
    axes = figure.axes[0]
    casing, outline = axes.patches
    figure.canvas.draw()
    drawn = outline.get_window_extent().width
    cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    points = figure.dpi / 72
    assert drawn - casing.get_linewidth() * points >= 3 * cell - 1e-6


def test_darker_is_larger():
    figure = plots.locality([injections("resmlp_local")[0].at(0, (1, 1))])
    shades = [
        np.dot(panels(figure)[0].images[0].cmap(x)[:3], (0.3, 0.6, 0.1))
        for x in (0.0, 0.5, 1.0)
    ]
    assert shades == sorted(shades, reverse=True)


def test_kernels_along_an_axis_are_lines(tmp_path):
    width, height, *_ = injections("smlpnet", local_kernels=(3,))
    pairs = [width.at(0, (0, 2)), height.at(0, (1, 0))]
    figure = plots.locality(pairs)
    check_figure(figure, tmp_path)
    for axes, pair, word in zip(figure.axes, pairs, ("column", "row"), strict=True):
        before, after, output = axes.get_lines()
        np.testing.assert_array_equal(before.get_ydata(), pair.log_before.ravel())
        np.testing.assert_array_equal(after.get_ydata(), pair.log_after.ravel())
        assert before.get_marker() != after.get_marker()
        assert output.get_xdata()[0] == max(pair.position)
        assert axes.get_xlabel() == f"input {word} (patch)"
        assert axes.get_ylabel() == LABEL
        words = [text.get_text() for text in axes.get_legend().get_texts()]
        assert words[0] == "local branch (3)"
        assert pair.inside_after > 0.1
        assert words[2] == f"after: {pair.inside_after:.0%} of |w| in it"


def test_nothing_is_not_drawn():
    with pytest.raises(ValueError, match="at least one KernelPair"):
        plots.locality([])
