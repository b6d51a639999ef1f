"""Plots of speeds: what is in them, and what is no such file."""

import json

import numpy as np
import pytest
from looking import check_figure

from kmlp.benchmarking.findings import (
    FORMS,
    Benchmark,
    Findings,
    Speed,
    read,
    verdicts,
)
from kmlp.benchmarking.measuring import PEAK, Timing
from kmlp.commands import main
from kmlp.plots import form_speeds, throughput

WAYS = (("tensorflow", False), ("tensorflow", True), ("jax", True), ("torch", False))
LABELS = ["TensorFlow", "TensorFlow, XLA", "JAX, XLA", "PyTorch"]
# Top-1 as the papers print it: ConvMLP, Table 3; ResMLP, Table 1.
TOP1 = {"convmlp_s": 76.8, "resmlp_s12": 76.6}


def found(networks=("convmlp_s", "resmlp_s12"), works=("inference",), **changes):
    """Findings in which the i-th network on the j-th way does 10·(i + 1)·(j + 1)."""
    speeds = [
        Speed(
            network=network,
            image_size=(224, 224),
            work=work,
            backend=backend,
            xla=xla,
            batch=8,
            rounds=tuple(10.0 * (i + 1) * (j + 1) * k for k in (0.8, 1, 1.4)),
            share=0.5,
            memory=1_000_000 * (100 + 10 * i + j),
            parameters=5_000_000 * (i + 1),
            macs=1_000_000_000 * (i + 1),
            first_call_seconds=1.0,
        )
        for i, network in enumerate(networks)
        for work in works
        for j, (backend, xla) in enumerate(WAYS)
    ]
    about = {"version": "1", "keras": "3", "device": "2 CPU cores", "peak": 1e11}
    backends = {backend: about for backend, _ in WAYS}
    values = {"precision": "float32", "speeds": tuple(speeds), **changes}
    return Findings(device="cpu", threads=2, backends=backends, missing={}, **values)


def points(axes):
    """`[(label, x, y, lower, upper), …]` of the points with bars."""
    values = []
    for container in axes.containers:
        line, _, (bars,) = container.lines
        for (x, y), segment in zip(line.get_xydata(), bars.get_segments(), strict=True):
            values.append((container.get_label(), x, y, *np.sort(segment, 0)))
    return values


def words(axes):
    return sorted(t.get_text() for t in axes.texts if t.get_text())


@pytest.mark.parametrize(
    ("x", "places", "label"),
    [
        ("parameters", (5.0, 10.0), "parameters (millions)"),
        ("macs", (1.0, 2.0), "billions"),
        ("top1", tuple(TOP1.values()), "top-1 on ImageNet-1k"),
    ],
)
def test_throughput_against_a_figure(tmp_path, x, places, label):
    figure = throughput([found()], x=x)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "images per second"
    assert label in axes.get_xlabel()
    for text in ("inference", "batch 8", "float32", "2 CPU cores"):
        assert text in axes.get_title()
    drawn = points(axes)
    assert len(drawn) == 8
    for name, at, speed, low, high in drawn:
        i, j = places.index(at), LABELS.index(name)
        median = 10.0 * (i + 1) * (j + 1)
        assert speed == pytest.approx(median)
        # Quartiles of 0.8, 1 and 1.4 of it.
        assert (low[1], high[1]) == pytest.approx((0.9 * median, 1.2 * median))
        assert axes.get_ylim()[0] < low[1] < high[1] < axes.get_ylim()[1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == LABELS
    # A series differs by colour and by marker.
    looks = [(c.lines[0].get_color(), c.lines[0].get_marker()) for c in axes.containers]
    assert [len(set(kind)) for kind in zip(*looks)] == [4, 4]
    assert words(axes) == sorted(TOP1)  # each network once
    check_figure(figure, tmp_path)


def test_throughput_against_memory_names_every_point(tmp_path):
    figure = throughput([found()], x="memory")
    (axes,) = figure.axes
    assert sorted(x for _, x, *_ in points(axes)) == [
        *(100, 101, 102, 103, 110, 111, 112, 113)
    ]
    assert words(axes) == ["convmlp_s"] * 4 + ["resmlp_s12"] * 4
    assert axes.get_xlabel() == "peak memory (MB)"
    check_figure(figure, tmp_path)


def test_panels_are_of_results_and_work(tmp_path):
    results = [
        found(works=("inference", "training")),
        found(works=("inference",), precision="bfloat16"),
    ]
    titles = [axes.get_title() for axes in throughput(results).axes]
    assert [title.rpartition(", ")[0] for title in titles] == [
        "inference, batch 8, float32",
        "training, batch 8, float32",
        "inference, batch 8, bfloat16",
    ]
    (one,) = throughput(results, work="training").axes
    assert one.get_title() == titles[1]


def test_names_close_together_stay_apart():
    names = [f"network_{i}" for i in range(6)]
    figure = throughput([found(names)])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    written = [t for t in axes.texts if t.get_text()]
    assert [t.get_text() for t in written] == names
    feet = [t.get_transform().transform(t.xyann)[0] for t in written]
    assert np.diff(feet).min() > 10 * figure.dpi / 72
    # All networks at one place: their names do not lie upon one another either.
    own = found(names)
    same = [Speed(**{**vars(s), "parameters": 1}) for s in own.speeds]
    figure = throughput([Findings(**{**vars(own), "speeds": tuple(same)})])
    written = [t for t in figure.axes[0].texts if t.get_text()]
    feet = sorted(t.get_transform().transform(t.xyann)[0] for t in written)
    assert np.diff(feet).min() > 9 * figure.dpi / 72


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"x": "price"}, r"'macs', 'top1', 'memory'\. Received: x='price'"),
        ({"work": "training"}, r"training and parameters.*work='training'"),
    ],
)
def test_what_cannot_be_drawn_is_told(options, match):
    with pytest.raises(ValueError, match=match):
        throughput([found()], **options)
    with pytest.raises(ValueError, match="top-1"):
        throughput([found(["somebody's"])], x="top1")


def of_forms(name, forms=("merged", "int8"), batches=(1, 8)):
    timings = [Timing(PEAK, 1, 9.0, 1.0, (9.0,) * 3)]
    for i, form in enumerate(forms):
        for batch in batches:
            rounds = tuple(10.0 * (i + 1) * batch * k for k in (0.8, 1, 1.4))
            timings.append(Timing(FORMS[form], batch, rounds[1], 0.5, rounds))
    compared = verdicts(timings)
    return Benchmark(
        name, (224, 224, 3), 2, "wall", tuple(timings), compared, {1: ("why",)}, {}
    )


def test_forms_are_rows(tmp_path):
    figure = form_speeds([of_forms("one"), of_forms("runs/two", ("float32",))])
    one, two = figure.axes
    assert one.get_title() == "one at 224x224, 2 threads"
    assert two.get_title() == "two at 224x224, 2 threads"
    rows = [tick.get_text() for tick in one.get_yticklabels()]
    assert rows == [FORMS["merged"], FORMS["int8"]]
    for name, speed, row, low, high in points(one):
        batch = int(name.removeprefix("batch "))
        median = 10.0 * (round(row) + 1) * batch
        assert speed == median
        assert (low[0], high[0]) == pytest.approx((0.9 * median, 1.2 * median))
    assert len(points(one)) == 4
    assert len(points(two)) == 2
    check_figure(figure, tmp_path)
    with pytest.raises(ValueError, match="No form was timed"):
        form_speeds([of_forms("none", ())])


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def test_files_are_read_back(tmp_path):
    own = found()
    assert read(write(tmp_path / "a.json", own.as_data())) == own
    forms = of_forms("one", ("train", "merged"))
    assert read(write(tmp_path / "b.json", [forms.as_data()])) == (forms,)


def test_the_command(tmp_path, capsys):
    first = write(tmp_path / "a.json", found(works=("inference", "training")).as_data())
    second = write(tmp_path / "b.json", found(("convmlp_s", "my_own")).as_data())
    out = tmp_path / "speeds.svg"
    argv = ["plot", "benchmark", first, second, "--x", "top1", "--out", str(out)]
    assert main.main(argv) == 0
    assert "left out  my_own: without top1" in capsys.readouterr().out
    assert b"<svg" in out.read_bytes()[:1000]
    forms = write(tmp_path / "c.json", [of_forms("one").as_data()])
    assert main.main(["plot", "benchmark", forms, "--out", str(out)]) == 0
    for argv, word in (
        ([forms, first], "one kind"),
        ([forms, "--x", "macs"], "--x goes with"),
        ([forms, "--work", "inference"], "--work goes with"),
        ([second, "--work", "training"], "training"),
        ([first, "--out", "speeds.gif"], ".svg"),
    ):
        capsys.readouterr()
        assert main.main(["plot", "benchmark", *argv]) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert word in captured.err
        assert "Received" in captured.err


def _without(data, name):
    return {key: value for key, value in data.items() if key != name}


WHOLE, ONE = found().as_data(), vars(found().speeds[0])
DAMAGED = {
    "empty": "",
    "cut": json.dumps(WHOLE)[:500],
    "binary": "\x00\x01",
    "number": 3,
    "no_networks": [],
    "foreign": {"rows": [1, 2]},
    "foreign_list": [{"a": 1}],
    "another_kind": {**WHOLE, "kind": "x"},
    "no_speeds": _without(WHOLE, "speeds"),
    "no_rounds": {**WHOLE, "speeds": [{**ONE, "rounds": []}]},
    "no_backends": {**WHOLE, "backends": {}},
    "older": {**WHOLE, "speeds": [_without(ONE, "macs")]},
}


@pytest.mark.parametrize("case", [*DAMAGED, "missing"])
def test_other_files_get_one_line(case, tmp_path, capsys):
    path = tmp_path / f"{case}.json"
    if case != "missing":
        write(path, DAMAGED[case])
    out = tmp_path / "speeds.png"
    assert main.main(["plot", "benchmark", str(path), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert path.name in captured.err
    assert not out.exists()
    if case != "missing":
        assert "kmlp benchmark" in captured.err
        assert "Received" in captured.err
