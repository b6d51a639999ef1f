"""Training curves: what is read, what is drawn, what is refused."""

import csv

import numpy as np
import pytest
from looking import check_figure

from kmlp.artifacts.run_curves import read_runs
from kmlp.commands.main import main
from kmlp.plots.line_charts import curves

SCORES = {"top1": [0.1, 0.4, 0.3], "loss": [2.0, 1.5, 1.0], "steps": 10, "seconds": 30}


def write_run(folder, *, score="val_top1", rates=True, epochs=3):
    folder.mkdir(parents=True)
    rows = [
        {
            "epoch": number + 1,
            "step": SCORES["steps"] * (number + 1),
            "loss": SCORES["loss"][number] + 1,
            "accuracy": SCORES["top1"][number] / 2,
            "val_loss": SCORES["loss"][number],
            score: SCORES["top1"][number],
            "seconds": SCORES["seconds"],
        }
        for number in range(epochs)
    ]
    write_csv(folder / "history.csv", rows)
    if rates:
        rows = [{"step": s, "learning_rate": s * 1e-4} for s in range(5, 31, 5)]
        write_csv(folder / "steps.csv", rows)
    return folder


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lines(figure, title):
    """`{style: values}` of a panel, without its markers."""
    (axes,) = [axes for axes in figure.axes if axes.get_title() == title]
    drawn = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    return axes, drawn


def test_losses_scores_and_rates_of_two_runs(tmp_path):
    runs = read_runs(
        [write_run(tmp_path / "a" / "1").parent, write_run(tmp_path / "b" / "1")]
    )
    assert [run.label for run in runs] == ["a", "b"]
    figure = curves(runs)
    check_figure(figure, tmp_path)
    axes, drawn = lines(figure, "loss")
    assert axes.get_xlabel() == "epoch"
    assert [line.get_linestyle() for line in drawn] == ["--", "-"] * 2
    np.testing.assert_allclose(drawn[0].get_ydata(), [3, 2.5, 2])
    np.testing.assert_allclose(drawn[1].get_ydata(), [2, 1.5, 1])
    np.testing.assert_allclose(drawn[1].get_xdata(), [1, 2, 3])
    axes, drawn = lines(figure, "top-1")
    assert axes.get_ylabel() == "top-1 (%)"
    np.testing.assert_allclose(drawn[0].get_ydata(), [5, 20, 15])
    np.testing.assert_allclose(drawn[1].get_ydata(), [10, 40, 30])
    _, drawn = lines(figure, "learning rate")
    np.testing.assert_allclose(drawn[0].get_xdata(), np.arange(5, 31, 5) / 10)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a", "b", "validation", "training"]


@pytest.mark.parametrize(
    ("x", "expected"),
    [("epoch", [1, 2, 3]), ("step", [10, 20, 30]), ("minutes", [0.5, 1, 1.5])],
)
def test_along_the_axis(x, expected, tmp_path):
    figure = curves(read_runs([write_run(tmp_path / "a")]), x=x)
    np.testing.assert_allclose(lines(figure, "loss")[1][0].get_xdata(), expected)


def test_each_kind_of_run_has_the_panel_that_it_is_judged_by(tmp_path):
    kinds = ("val_top1", "val_mIoU", "val_mask_AP")
    folders = [write_run(tmp_path / kind, score=kind, rates=False) for kind in kinds]
    figure = curves(read_runs(folders))
    units = [axes.get_ylabel() for axes in figure.axes]
    assert units == ["loss", "top-1 (%)", "mIoU (%)", "mask AP (%)"]
    figure = curves(read_runs(folders[:1]), columns=["accuracy", "seconds"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["top-1 (%)", "seconds"]


def test_the_newest_run_of_a_folder_and_its_name(tmp_path):
    for version in ("2", "10"):
        write_run(tmp_path / "net" / version)
    write_run(tmp_path / "fresh" / "unfinished-0a1b", epochs=1)
    write_run(tmp_path / "other" / "net" / "1")
    write_run(tmp_path / "net" / "unfinished-ffff")
    folders = [tmp_path / "net", tmp_path / "fresh", tmp_path / "other" / "net"]
    runs = read_runs(folders)
    assert runs[0].path.parent.name == "10"
    assert [run.label for run in runs] == ["net/10", "fresh/0a1b (unfinished)", "net/1"]
    twice = read_runs([tmp_path / "net", tmp_path / "net"])
    assert len({run.label for run in twice}) == 2


def test_a_study_is_its_rows(tmp_path):
    for row in ("none", "both"):
        folder = write_run(tmp_path / "study" / "rows" / row, rates=False)
        (folder / "history.csv").rename(folder / "48c82ce3.csv")
    runs = read_runs([tmp_path / "study"])
    assert sorted(run.label for run in runs) == ["both", "none"]


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    folder = write_run(tmp_path / "a")
    with open(folder / "history.csv", "a") as file:
        file.write("4,40,0.5")
    (run,) = read_runs([folder])
    assert run.epochs["epoch"].tolist() == [1, 2, 3]


DAMAGES = {
    b"\xff\xfe": "'utf-8' codec can't decode",
    bytes(64): "could not convert string to float",
    b"1,2,3\r\n": "3 cells in place of",
    b"ab": "could not convert string to float",
}


@pytest.mark.parametrize("name", ["history.csv", "steps.csv"])
@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_curve_is_told_in_a_line(damage, name, tmp_path, capsys):
    path = write_run(tmp_path / "a") / name
    raw = path.read_bytes()
    middle = raw.index(b"\n", raw.index(b"\n") + 1) + 1
    path.write_bytes(raw[:middle] + damage + raw[middle:])
    out = tmp_path / "a.svg"
    assert main(["plot", "run", str(tmp_path / "a"), "--out", str(out)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "This curve is damaged in line 3" in told
    assert DAMAGES[damage] in told
    assert f"Received: {str(path)!r}" in told
    assert not out.exists()


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a")
    assert main(["plot", "run", "a", "--out", "a.svg", "--x", "minutes"]) == 0
    said = capsys.readouterr().out
    assert "3 epochs, top1 30.00%, best 40.00% in epoch 2" in said
    assert "written  a.svg" in said
    assert "<svg" in (tmp_path / "a.svg").read_text()[:1000]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty"], ["history.csv", "'empty'"]),
        (["nowhere"], ["does not exist", "'nowhere'"]),
        (["foreign.csv"], ["`epoch`", "'foreign.csv'"]),
        (["void.csv"], ["`epoch`", "'void.csv'"]),
        (["a", "--columns", "val_top2"], ["val_top1", "'val_top2'"]),
        (["a", "--out", "a.gif"], [".svg", "'a.gif'"]),
        (["a", "--out", "no/where.png"], ["existing folder", "'no/where.png'"]),
    ],
)
def test_bad_input_gets_one_line(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.csv").write_text("name,size\nx,1\n")
    (tmp_path / "void.csv").write_text("")
    assert main(["plot", "run", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    for word in (*words, "Received"):
        assert word in captured.err
    assert not list(tmp_path.glob("*.png"))
