"""What is the same for every task: weights known by content, keys of every origin."""

import shutil

import keras
import pytest
from cases import few

import kmlp
from kmlp.artifacts import origin
from kmlp.commands.main import main
from kmlp.errors import RunError
from kmlp.training.checkpoints import CHECKPOINTS, RunFolder

ARCH = ("--arch", "convmlp_s", "--rehearse", "--set", "model.stem_width=4")
ARCH = (*ARCH, "model.widths=6,8,8", "model.depths=1,1,1", "model.conv_blocks=1")
TASKS = {"classify": (), "segment": (), "detect": ("--head", "retinanet")}
EVIDENCE = {"artifact", "equality", "audit", "accuracies", "initial_weights", "frozen"}
EVIDENCE |= {"calibration", "compression", "source", "multiply_adds"}
EQUALITY = {"with", "kind", "images", "relative_difference", "disagreements", "ties"}


def weights(path, seed):
    """A small ConvMLP's weights as a file."""
    keras.utils.set_random_seed(seed)
    small = {"stem_width": 4, "widths": (6, 8, 8), "depths": (1, 1, 1)}
    model = kmlp.create_model("convmlp_s", 10, (32, 32, 3), conv_blocks=1, **small)
    path.parent.mkdir(exist_ok=True)
    model.save(path)
    return path


@pytest.mark.parametrize("task", few(TASKS, "classify"))
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


@pytest.mark.parametrize("task", few(TASKS, "classify"))
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


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Train a small classifier, and return its version."""
    output = tmp_path_factory.mktemp("run")
    assert main(["train", *ARCH, "--data", "digits", "--output", str(output)]) == 0
    (folder,) = (output / "rehearsals").glob("*/1")
    return folder


FEW = ("--data", "digits", "--images", "20", "--calibration-images", "20")
# What makes artifacts of a run -> `(command, artifacts in the folder OUTPUT)`.
MAKERS = {
    "SavedModel": (("export", "RUN", "OUTPUT/served"), ["served"]),
    "devices": (
        ("export", "RUN", "OUTPUT", "--format", "tflite", *FEW)
        + ("--quantize", "none", "int8", "--max-drop", "100"),
        ["model.float32.tflite", "model.int8.tflite"],
    ),
    "compression": (
        ("compress", "RUN", "--method", "prune", "--output", "OUTPUT", *FEW)
        + ("--epochs", "1"),
        ["1/trained.keras", "1/model.float32.tflite", "1/model.int8.tflite"],
    ),
}


@pytest.mark.parametrize("maker", few(MAKERS, "SavedModel"))
def test_every_maker_says_the_same(maker, run_folder, tmp_path, capfd):
    if maker == "compression":
        pytest.importorskip("tensorflow_model_optimization")
    words, names = MAKERS[maker]
    given = {"RUN": str(run_folder), "OUTPUT": str(tmp_path)}
    argv = [w.replace("OUTPUT", given["OUTPUT"]) for w in words]
    assert main([given.get(w, w) for w in argv]) == 0, capfd.readouterr().err
    keys = origin.read(run_folder).keys()
    for name in names:
        found = origin.read(tmp_path / name)
        assert found.keys() == keys >= EVIDENCE
        assert (found["compression"] is None) == (maker != "compression")
        assert (found["calibration"] is None) == ("int8" not in name or "1/" in name)
        if not name.endswith(".keras"):
            assert found["equality"].keys() >= EQUALITY
            assert found["audit"]["operations"]
        if name.endswith(".tflite"):
            assert found["accuracies"]["images"] == 20


def test_a_preset_says_the_same(run_folder, tmp_path):
    model = kmlp.create_model(weights=run_folder)
    folder = kmlp.pretrained.save_preset(model, tmp_path / "preset")
    assert origin.read(folder).keys() == origin.read(run_folder).keys()


def test_a_run_folder_names_the_other_unfinished_runs(tmp_path):
    first, second = (RunFolder(tmp_path, {"seed": n}) for n in range(2))
    for folder in (first, second):
        folder.path.mkdir()
        folder.write("recipe.json", {"seed": folder.path.name})
    (own,) = second.others()
    assert own == {"seed": first.path.name, "folder": str(first.path)}
