"""Share of small weights against depth: what is in the figure."""

import cases
import numpy as np
import pytest
from looking import check_figure

from kmlp import plots
from kmlp.analysis.sparsity import sparsity

# The token of the second one is read outside of blocks, by the same kind of layer.
CASES = ("repmlpnet", "resmlp_class_mlp")


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def test_a_line_per_kind_a_panel_per_network(tmp_path):
    networks = {case: sparsity(cases.build(case)) for case in CASES}
    figure = plots.sparsity(networks)
    check_figure(figure, tmp_path)
    colours = {}
    for label, axes in panels(figure).items():
        for kind in {row.series for row in networks[label].layers}:
            layers = [row for row in networks[label].layers if row.series == kind]
            depths = sorted({row.depth for row in layers})
            expected = {}
            for depth in depths:
                here = [row for row in layers if row.depth == depth]
                weights = sum(row.size for row in here)
                small = sum(row.small * row.size for row in here)
                expected[depth] = pytest.approx(100 * small / weights, rel=1e-12)
            (named,) = [li for li in axes.get_lines() if li.get_label() == kind]
            sign = named.get_color(), named.get_marker()
            assert colours.setdefault(kind, sign) == sign
            lines = [
                line
                for line in axes.get_lines()
                if (line.get_color(), line.get_marker()) == sign
            ]
            points = [dict(zip(*line.get_data(), strict=True)) for line in lines]
            assert {d: y for line in points for d, y in line.items()} == expected
            for line, drawn in zip(lines, points):
                joined = line.get_linestyle() != "None"
                assert all((depth % 1 == 0) == joined for depth in drawn)
        assert axes.get_xlabel() == "depth (block)"
        bottom, top = axes.get_ylim()
        assert bottom == 0
        assert 100 * max(row.small for row in networks[label].layers) <= top <= 100
    assert len(set(colours.values())) == len(colours)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("patch mixing", "patch mixing, expansion", "patch mixing, projection"),
        *("channel, expansion", "channel, projection"),
        *("gate", "patch embedding", "head"),
    ]


@pytest.mark.parametrize(("threshold", "words"), [(0.01, "1 %"), (0.005, "0.5 %")])
def test_the_threshold_is_on_the_axis(threshold, words):
    figure = plots.sparsity({"resmlp": sparsity(cases.build("resmlp"), threshold)})
    (axes,) = figure.axes
    assert axes.get_ylabel() == f"weights below {words} of max |w| (%)"


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_as_many_panels_as_networks(count):
    measured = sparsity(cases.build("resmlp"))
    figure = plots.sparsity({f"network {n}": measured for n in range(count)})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == count
    assert np.all([axes.get_lines() for axes in shown])


def test_thresholds_are_not_mixed():
    model = cases.build("resmlp")
    networks = {"a": sparsity(model, 0.01), "b": sparsity(model, 0.05)}
    with pytest.raises(ValueError, match=r"one threshold. Received: \[0.01, 0.05\]"):
        plots.sparsity(networks)
