"""Accuracy against cost: what stands in the figure, and the command."""

import json

import matplotlib
import pytest
from looking import check_figure

from kmlp import plots
from kmlp.analysis.efficiency import Cost
from kmlp.commands import main
from kmlp.models import list_models
from kmlp.models.papers import reported
from kmlp.plots import style
from kmlp.plots.style import name_points

DIGITS = "scikit-learn's handwritten digits"


def row(name, millions, top1, data="ImageNet-1k", gmacs=2.0, activations=3_000_000):
    return Cost(
        name=name,
        image_size=(224, 224),
        parameters=round(millions * 1e6),
        macs=round(gmacs * 1e9),
        activations=activations,
        top1=top1,
        data=data,
    )


ROWS = [
    row("convmlp_s", 9, 76.8, gmacs=2.4),
    row("convmlp_l", 42.7, 80.2, gmacs=9.9),
    row("convmlp_m", 17.4, 79.0, gmacs=3.9),
    row("msmlp_t", 28, 82.1),
    row("msmlp_swin_t", 29, 81.9),
    row("smlpnet_t_a2", 19.2, 81.3),
    row("repmlpnet_cifar", 8.3, 67.43, data="CIFAR-100"),
    row("msmlp/table9/local", 15, None),
]
RUNS = [row("mine", 1.5, 99.0, data=DIGITS, activations=None)]


def series(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_series_per_family_a_panel_per_data(tmp_path):
    figure = plots.costs(ROWS, runs=RUNS)
    check_figure(figure, tmp_path)
    imagenet, cifar, digits = figure.axes
    assert series(imagenet) == {
        "ConvMLP": [[9, 76.8], [17.4, 79.0], [42.7, 80.2]],
        "MS-MLP": [[28, 82.1]],
        "sMLPNet": [[19.2, 81.3]],
        "MS-MLP + Swin": [[29, 81.9]],
    }
    assert series(cifar) == {"RepMLPNet": [[8.3, 67.43]]}
    assert series(digits) == {"own runs": [[1.5, 99.0]]}
    assert texts(imagenet) == ["S", "L", "M", "T", "T", "T*"]
    assert (texts(cifar), texts(digits)) == (["RepMLPNet"], ["mine"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["ImageNet-1k", "CIFAR-100", DIGITS]
    assert imagenet.get_xscale() == "log"
    assert imagenet.get_xlabel() == "parameters (millions)"
    assert digits.lines[0].get_linestyle() == "None"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        *("RepMLPNet", "ConvMLP", "MS-MLP", "sMLPNet", "MS-MLP + Swin", "own runs")
    ]


def test_other_axes():
    axes = plots.costs(ROWS[:3], x="macs", y="per_mparam").axes[0]
    points = series(axes)["ConvMLP"]
    assert [x for x, _ in points] == [2.4, 3.9, 9.9]
    assert points[0][1] == pytest.approx(76.8 / 9)
    assert axes.get_ylabel() == "top-1 (%) per million parameters"
    axes = plots.costs(ROWS[:1], x="activations").axes[0]
    assert series(axes) == {"ConvMLP": [[3.0, 76.8]]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ROWS, "x": "speed"}, r"'parameters', 'macs', .*Received: x='speed'"),
        ({"rows": ROWS, "y": "top5"}, r"'top1', 'per_gmac', .*Received: y='top5'"),
        ({"rows": ROWS[-1:]}, r"top-1.*Received: \['msmlp/table9/local'\]"),
        ({"rows": [], "runs": RUNS, "x": "activations"}, "not counted for mine"),
    ],
)
def test_what_cannot_be_drawn(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.costs(**arguments)


@pytest.mark.parametrize("x", ["parameters", "macs"])
def test_names_of_all_architectures_cover_neither_points_nor_each_other(x):
    """Costs as the papers print them, so that nothing need be built."""
    rows = [
        row(name, float(r.parameters), r.top1, r.data, float(r.macs))
        for name, r in ((name, reported(name)) for name in list_models())
        if r is not None
    ]
    figure = plots.costs(rows, x=x)
    figure.draw_without_rendering()
    for axes in figure.axes:
        # Without the leaders, which annotations count as theirs.
        boxes = [
            matplotlib.text.Text.get_window_extent(text).extents for text in axes.texts
        ]
        inside = axes.get_window_extent().padded(6).extents
        points = [
            axes.transData.transform(point)
            for line in axes.lines
            for point in line.get_xydata()
        ]
        for i, (left, bottom, right, top) in enumerate(boxes):
            assert inside[0] <= left < right <= inside[2], axes.texts[i]
            assert inside[1] <= bottom < top <= inside[3], axes.texts[i]
            for x_, y_ in points:
                assert not (left < x_ < right and bottom < y_ < top), axes.texts[i]
            for other in boxes[:i]:
                width = min(right, other[2]) - max(left, other[0])
                height = min(top, other[3]) - max(bottom, other[1])
                assert min(width, height) <= 1, axes.texts[i]


def test_a_name_moves_where_its_place_is_taken():
    figure = style.new_figure(3, 3)
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1))
    points = [(0.5, 0.5, "first", "k"), (0.55, 0.5, "second", "k")]
    alone, crowded = (name_points(axes, points[i:])[-1].xyann for i in (1, 0))
    assert alone[0] > 0
    first, second = name_points(axes, points)
    assert first.xyann != second.xyann
    assert crowded == second.xyann


REPORT = {
    "arguments": {"input_shape": [32, 32, 3]},
    "data": {"name": DIGITS},
    "forms": {
        "trained": {
            "accuracy": 0.9875,
            "trainable_parameters": 1_270_650,
            "multiply_adds": 7_506_688,
        }
    },
}


def write_run(folder, report):
    folder.mkdir(parents=True)
    (folder / "trained.keras").touch()
    (folder / "report.json").write_text(report)
    return folder


def test_command(tmp_path, capsys):
    write_run(tmp_path / "mine" / "1", "{}")
    newest = write_run(tmp_path / "mine" / "2", json.dumps(REPORT))
    out = tmp_path / "costs.svg"
    argv = ["plot", "costs", "convmlp_s", "repmlpnet/table4/resmlp_1x1"]
    argv += ["msmlp/table9/local", "--run", str(newest.parent), "--x", "macs"]
    assert main.main([*argv, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"written  {out}" in said
    assert "left out" in said
    assert "msmlp/table9/local" in said
    assert out.read_text().count('id="axes_') == 3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["zzz"], ["kmlp list", "'zzz'"]),
        (["--out", "costs.gif"], [".png, .svg, .pdf", "costs.gif"]),
        (["--run", "nowhere"], ["report.json", "nowhere"]),
        (["--run", "empty"], ["accuracy", "forms"]),
        (["--run", "damaged"], ["accuracy", "damaged"]),
    ],
)
def test_bad_input_gets_one_line(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "empty", "{}")
    write_run(tmp_path / "damaged", '{"forms": ')
    assert main.main(["plot", "costs", *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in (*words, "Received"):
        assert word in error
    assert not (tmp_path / "costs.png").exists()
