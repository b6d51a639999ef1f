"""The gallery's commands are those of the jobs that it calls."""

import numpy as np
import pytest
from PIL import Image

from kmlp.commands import gallery, main, train
from kmlp.data.sources import digits

RUNS = {name: f"runs/{name}" for name in gallery.NETWORKS}


@pytest.mark.parametrize("name", gallery.NETWORKS)
def test_networks_are_trained(name):
    options = train.parse(gallery.training(name))
    assert options.arch == name
    assert options.data is None  # the embedded digits


@pytest.mark.parametrize("name", gallery.plots(RUNS, ["3.png"]))
def test_plots_are_drawn(name):
    kind, *arguments = map(str, gallery.plots(RUNS, ["3.png"])[name])
    words = ["plot", kind, *arguments, "--out", f"{name}.svg"]
    options = main._parser().parse_args(words)
    assert options.kind == kind
    assert options.out.name == f"{name}.svg"


def test_digits_are_written_as_they_are(tmp_path):
    paths = gallery.write_digits(tmp_path)
    assert [path.parent.name for path in paths] == ["3", "5", "8"]
    images = np.asarray(digits().validation.store.images)
    for path in paths:
        shown = np.asarray(Image.open(path))
        assert np.array_equal(shown, images[int(path.stem)])
        assert digits().validation.labels[int(path.stem)] == int(path.parent.name)


@pytest.mark.long
def test_a_command_that_fails_ends_the_gallery(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "training", lambda name: ["--arch", "nothing"])
    assert gallery.main(["--output", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "the gallery is not whole" in captured.err
    assert "$ python training/train.py --arch nothing" in captured.out


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert gallery.main(["--output", str(tmp_path / "file" / "x")]) == 2
    assert capsys.readouterr().err.startswith("gallery.py: The gallery cannot be")
