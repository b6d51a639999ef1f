"""What is the same for every task: weights known by content, keys of every origin."""

import shutil

import keras
import pytest

import kmlp
from kmlp.artifacts import origin
from kmlp.commands.main import main
from kmlp.errors import RunError
from kmlp.training.checkpoints import CHECKPOINTS, RunFolder

ARCH = ("--arch", "convmlp_s", "--rehearse", "--set", "model.stem_width=4")
ARCH = (*ARCH, "model.widths=6,8,8", "model.depths=1,1,1", "model.conv_blocks=1")
TASKS = {"classify": (), "segment": (), "detect": ("--head", "retinanet")}
EVIDENCE = {"artifact", "equality", "audit", "accuracies", "initial_weights", "frozen"}
EQUALITY = {"with", "kind", "images", "relative_difference", "disagreements", "ties"}


def weights(path, seed):
    """A small ConvMLP's weights as a file."""
    keras.utils.set_random_seed(seed)
    small = {"stem_width": 4, "widths": (6, 8, 8), "depths": (1, 1, 1)}
    model = kmlp.create_model("convmlp_s", 10, (32, 32, 3), conv_blocks=1, **small)
    path.parent.mkdir(exist_ok=True)
    model.save(path)
    return path


@pytest.mark.parametrize("task", TASKS)
def test_weights_are_known_by_their_content(task, tmp_path, monkeypatch, capfd):
    """Others at one path start over and say so; the same at another path go on."""
    folders = []

    def interrupted(job, schedule, folder, until=None):
        folders.append(folder.name)
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
        (folder / CHECKPOINTS / "step-0000000001.npz").touch()
        raise RunError("enough was seen")

    monkeypatch.setattr("kmlp.training.job.train", interrupted)
    one, other = weights(tmp_path / "a" / "w.keras", 0), tmp_path / "b" / "w.keras"
    other.parent.mkdir()
    shutil.copyfile(one, other)

    def run(path):
        argv = ["train", "--task", task, *ARCH, *TASKS[task], "--weights", str(path)]
        if task == "classify":
            # Weights bring their own arguments.
            argv = ["train", "--arch", "convmlp_s", "--rehearse", "--data", "digits"]
            argv += ["--weights", str(path)]
        argv += ["--output", str(tmp_path / "runs")]
        code = main(argv)
        printed = capfd.readouterr()
        assert (code, printed.err) == (1, "kmlp train: enough was seen\n")
        return printed.out

    assert "starts over" not in run(one)
    weights(one, 1)
    assert f"{one} holds other weights than the unfinished run" in run(one)
    assert "starts over" not in run(other)
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.parametrize(
    "task", ["classify", "segment", pytest.param("detect", marks=pytest.mark.long)]
)
def test_every_artifact_of_every_task_says_the_same(task, tmp_path, capfd):
    argv = ["train", "--task", task, *ARCH, *TASKS[task]]
    assert main([*argv, "--output", str(tmp_path)]) == 0, capfd.readouterr().err
    printed = capfd.readouterr().out
    (folder,) = (tmp_path / "rehearsals").glob("*/1")
    forms = [folder, folder / "trained.keras", folder / "best.keras"]
    if task != "detect":
        forms.append(folder / "model.tflite")
    keys = {frozenset(origin.read(form)) for form in forms}
    assert len(keys) == 1
    assert keys.pop() >= EVIDENCE
    for form in forms:
        found = origin.read(form)
        assert found["initial_weights"] is None
        if form.suffix != ".keras":
            assert found["equality"].keys() >= EQUALITY
            assert found["audit"]["operations"]
            assert found["accuracies"]["images"] > 0
    titles = [line.split("  ")[0] for line in printed.splitlines()]
    rows = [title for title in titles if title in ("accuracy", "mIoU", "AP", "ties")]
    assert rows
    assert len(rows) == len(set(rows))  # each row once


def test_a_run_folder_names_the_other_unfinished_runs(tmp_path):
    first, second = (RunFolder(tmp_path, {"seed": n}) for n in range(2))
    for folder in (first, second):
        folder.path.mkdir()
        folder.write("recipe.json", {"seed": folder.path.name})
    (own,) = second.others()
    assert own == {"seed": first.path.name, "folder": str(first.path)}
