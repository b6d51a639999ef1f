"""What the library wrote before its second plan is read by it."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from cases import relative_error

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.opening import open_weights
from kmlp.artifacts.run_curves import read_runs
from kmlp.commands.main import main
from kmlp.training.checkpoints import Checkpoints, RunFolder

FILES = Path(__file__).parents[1] / "reference" / "first_house"
SMALL = ("--arch", "convmlp_s", "--rehearse", "--set", "model.stem_width=4")
SMALL = (*SMALL, "model.widths=6,8,8", "model.depths=1,1,1", "model.conv_blocks=1")
TINY = ("--arch", "resmlp_s12", "--epochs", "3", "--set", "model.depth=1")
TINY = (*TINY, "model.width=8", "model.patch_size=4")


def images(name):
    shape = keras.saving.load_model(FILES / name, compile=False).inputs[0].shape[1:]
    shape = [side or 32 for side in shape]
    return np.random.default_rng(2).normal(size=(1, *shape)).astype("float32")


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("resmlp_local.keras", "resmlp_local"),
        ("resmlp_local_merged.keras", "resmlp_local"),
        ("repmlpnet_merged.keras", "repmlpnet"),
        ("smlpnet_merged.keras", "smlpnet"),
    ],
)
def test_models_answer_as_they_did(file, case):
    assert kmlp.RepMLPNet  # which registers the classes
    model = keras.saving.load_model(FILES / file, compile=False)
    expected = np.load(FILES / "outputs.npz")[case]
    found = keras.ops.convert_to_numpy(model(images(file), training=False))
    assert relative_error(found, expected) < 1e-5


def test_a_version_is_opened_in_every_form():
    run = FILES / "run"
    pixels = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype("float32")
    forms = (run / "trained.keras", run, run / "model.tflite")
    outputs = [open_weights(form).run(pixels) for form in forms]
    for found in outputs[1:]:
        assert relative_error(found, outputs[0]) < 1e-5
    for form in forms:
        assert origin.read(form)["architecture"] == "resmlp_s12"
    model = kmlp.create_model(weights=run)
    assert model.class_names == tuple("0123456789")
    (curves,) = read_runs([run])
    assert list(curves.epochs["epoch"]) == [1]


# Task's script -> the mark that the first house's folder of this run has: a run that
# it left unfinished is found again.
MARKS = {"train": "832de0aa", "segment": "fa66f778", "detect": "8216db0e"}


@pytest.mark.parametrize("task", MARKS)
def test_unfinished_runs_are_found_again(task, tmp_path, monkeypatch):
    found = []

    class Folder(RunFolder):
        def __init__(self, parent, identity):
            super().__init__(parent, identity)
            found.append(self.path.name)
            raise KeyboardInterrupt

    monkeypatch.setattr("kmlp.training.job.RunFolder", Folder)
    command = [] if task == "train" else ["--task", task]
    argv = [*command, *SMALL, "--output", str(tmp_path)]
    assert main(["train", *argv]) == 130
    assert found == [f"unfinished-{MARKS[task]}"]


def test_a_checkpoint_is_read():
    (folder,) = (FILES / "unfinished" / "resmlp_s12").iterdir()
    found = Checkpoints(folder / "checkpoints").latest()
    assert found.step == 10
    assert json.loads((folder / "recipe.json").read_text())["seed"] == 0


@pytest.mark.long
def test_an_unfinished_run_goes_on(tmp_path, capfd):
    shutil.copytree(FILES / "unfinished", tmp_path / "runs")
    argv = [*TINY, "--output", str(tmp_path / "runs")]
    assert main(["train", *argv]) == 0
    output = capfd.readouterr().out
    assert "Going on at step 10 of 132" in output
    assert (tmp_path / "runs" / "resmlp_s12" / "1" / "saved_model.pb").is_file()
