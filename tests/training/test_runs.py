"""Runs that are cut short in every way, on an engine of a few numbers."""

import contextlib
import csv
import errno
import functools
import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from kmlp.errors import KmlpError, RunError
from kmlp.training import monitor
from kmlp.training.checkpoints import KEPT, Checkpoint, Checkpoints, RunFolder
from kmlp.training.loop import train
from kmlp.training.tasks.classification import Classification

EPOCHS, STEPS = 3, 10
PICTURE = np.zeros((1, 4, 4, 3), "float32")


class Task(Classification):
    """Classification whose results the engine knows."""

    def validate(self, engine, make_dataset):
        return engine.evaluate(make_dataset)


class Engine:
    """One number that follows from all steps before; `at` may act at a step."""

    workers, chief, replicas = 1, True, 1

    def __init__(self, at=None):
        self.at = at or {}
        self.weight, self.step = np.float64(0.1), 0
        self.model, self.task = self, Task(None)

    def feed(self, make):
        return iter(make())

    def train(self, batches, steps):
        losses = []
        for _ in range(steps):
            _, batch = next(batches)
            assert batch == self.step
            self.weight = np.sin(7 * self.weight + batch)
            losses.append(self.weight)
            self.step += 1
            losses[-1] = self.at.get(self.step, lambda loss: loss)(losses[-1])
        losses = np.array(losses)
        return {
            "loss": losses,
            "accuracy": np.abs(losses),
            "gradient_norm": losses,
            "finite": np.isfinite(losses),
        }

    def evaluate(self, make):
        top1 = float(abs(self.weight))
        return {"loss": top1, "top1": top1, "top5": 1.0, "count": 1}

    def averaged(self):
        return contextlib.nullcontext()

    def state(self):
        return {"model/weight": self.weight, "step": np.array(self.step)}

    def restore(self, state):
        self.weight, self.step = state["model/weight"][()], int(state["step"])

    def any(self, flag):
        return flag

    def save_weights(self, path):
        path.write_text(repr(self.weight))


def trained(folder, engine, epochs=EPOCHS, **options):
    """The history of a run in a folder."""
    options = {
        "precision": "float32",
        "checkpoint_minutes": 1e9,
        "checkpoint_steps": 3,
        "log_steps": 2,
        "profile": None,
        **options,
    }
    job = SimpleNamespace(
        engine=engine,
        recipe=SimpleNamespace(batch_size=4),
        options=SimpleNamespace(**options),
        epochs=epochs,
        steps_per_epoch=STEPS,
        averaged=False,
        training_data=lambda step: lambda: ((PICTURE, n) for n in range(step, 10**6)),
        validation_data=lambda: None,
    )
    return train(job, SimpleNamespace(rate_at=lambda step: 1.0), folder)


def outcome(folder, history, engine):
    """What must not depend on how often the run was cut."""
    with open(folder / "steps.csv", newline="") as file:
        steps = list(csv.reader(file))
    timing = ("seconds", "images_per_second")
    rows = [{k: v for k, v in row.items() if k not in timing} for row in history]
    return rows, steps, engine.weight, (folder / "best.weights.h5").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder, engine = tmp_path_factory.mktemp("whole"), Engine()
    return outcome(folder, trained(folder, engine), engine)


class Found(Task):
    """Another task: no loss of an evaluation, and scores below 0."""

    measures = ("loss", "box_loss")
    score = "AP"

    def validate(self, engine, make_dataset):
        scores = {10: -7.0, 20: -2.5, 30: -3.0}
        return {"AP": scores[engine.step], "AP50": 0.25, "count": 4}


class Finder(Engine):
    """The engine under it."""

    def train(self, batches, steps):
        values = super().train(batches, steps)
        del values["accuracy"]
        return {"loss": values.pop("loss"), "box_loss": np.full(steps, 0.5), **values}


def test_measures_and_results_are_the_tasks(tmp_path, capsys):
    weights = {}
    note = {20: lambda loss: weights.setdefault(20, loss)}
    engine = Finder(note)
    engine.task = Found(None)
    history = trained(tmp_path, engine)
    names = ["epoch", "step", "loss", "box_loss", "val_AP", "val_AP50"]
    assert [*history[1]] == [*names, "seconds", "images_per_second"]
    assert [row["val_AP"] for row in history] == [-7, -2.5, -3]
    assert history[2]["box_loss"] == 0.5
    assert (tmp_path / "best.weights.h5").read_text() == repr(weights[20])
    shown = capsys.readouterr().out
    assert ", box_loss 0.5000, val_AP -2.5000, val_AP50 25.00%, " in shown
    with open(tmp_path / "steps.csv", newline="") as file:
        header = next(csv.reader(file))
    assert header == ["step", "loss", "box_loss", "gradient_norm", "learning_rate"]


def power_cut(loss):
    raise KeyError("power cut")


def terminate(loss):
    os.kill(os.getpid(), signal.SIGTERM)
    return loss


# Steps at which the run ends, one after the other.
CUTS = {
    "at once": [1],
    "in an epoch": [17],
    "at an epoch's end": [10],
    "at the last step": [30],
    "often": [2, 4, 5, 11, 12, 20, 29],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("how", [power_cut, terminate])
def test_a_run_that_was_cut_ends_as_if_it_was_not(cut, how, tmp_path, uninterrupted):
    for step in CUTS[cut]:
        with pytest.raises((KeyError, KmlpError)) as caught:
            trained(tmp_path, Engine({step: how}))
        if how is terminate:
            assert caught.value.signal == signal.SIGTERM
            kept = Checkpoints(tmp_path / "checkpoints").latest().step
            assert kept >= step
            assert f"after step {kept} of 30" in str(caught.value)
    engine = Engine()
    history = trained(tmp_path, engine)
    assert outcome(tmp_path, history, engine) == uninterrupted


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    trained(tmp_path, Engine())
    engine = Engine({step: power_cut for step in range(1, 31)})
    assert outcome(tmp_path, trained(tmp_path, engine), engine) == uninterrupted


def test_checkpoints_by_the_clock(tmp_path):
    trained(tmp_path, Engine(), checkpoint_minutes=0, checkpoint_steps=None)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert len(names) == KEPT
    assert names[-1] == "step-0000000030.npz"


@pytest.mark.parametrize("step", [2, 14])
def test_a_loss_that_is_not_finite_keeps_the_last_good_state(step, tmp_path):
    engine = Engine({step: lambda loss: np.nan})
    with pytest.raises(KmlpError, match=r"no longer finite.*learning-rate") as caught:
        trained(tmp_path, engine)
    assert f"step {step}" in str(caught.value)
    assert isinstance(caught.value, RunError)
    found = Checkpoints(tmp_path / "checkpoints").latest()
    assert (found.step if found else 0) == (step - 1) // 3 * 3


def test_float16_may_skip_steps(tmp_path):
    engine = Engine({step: lambda loss: np.inf for step in (1, 2, 15)})
    history = trained(tmp_path, engine, precision="float16")
    assert np.isfinite([row["loss"] for row in history]).all()
    endless = Engine({step: lambda loss: np.inf for step in range(1, 10**4)})
    with pytest.raises(KmlpError, match="step 51"):
        trained(tmp_path / "endless", endless, precision="float16", epochs=9)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"weight.npy") + 140] ^= 1
    path.write_bytes(content)


def _empty(path):
    path.write_bytes(b"")


def _garbage(path):
    path.write_bytes(b"checkpoint" * 100)


DAMAGES = (_truncate, _flip, _empty, _garbage)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    damage, tmp_path, capsys, uninterrupted
):
    with pytest.raises(KeyError):
        trained(tmp_path, Engine({17: power_cut}))
    newest = max((tmp_path / "checkpoints").iterdir())
    assert newest.name == "step-0000000015.npz"
    damage(newest)
    engine = Engine()
    history = trained(tmp_path, engine)
    shown = capsys.readouterr()
    assert f"{newest} is damaged" in shown.err
    assert "Going on at step 12 of 30" in shown.out
    assert outcome(tmp_path, history, engine) == uninterrupted


def test_only_damaged_checkpoints_are_no_reason_to_begin_anew(tmp_path):
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(Checkpoint(step, {"a": np.ones(3)}, {}))
        _truncate(tmp_path / f"step-{step:010d}.npz")
    for _ in range(2):
        with pytest.raises(KmlpError, match="--fresh"):
            store.latest()


def test_a_full_disk_keeps_the_last_good_state(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    store.save(Checkpoint(1, {"a": np.arange(3.0)}, {"x": 1}))

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        KmlpError, match=r"No space left.*step-0000000001\.npz"
    ) as caught:
        store.save(Checkpoint(2, {"a": np.zeros(3)}, {"x": 2}))
    assert isinstance(caught.value, RunError)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001.npz"]
    found = store.latest()
    assert (found.step, found.progress) == (1, {"x": 1})
    np.testing.assert_array_equal(found.arrays["a"], np.arange(3.0))


def test_a_draft_that_was_left_behind_goes(tmp_path):
    (tmp_path / "step-0000000002.unfinished").write_bytes(b"half")
    assert Checkpoints(tmp_path).latest() is None
    assert not list(tmp_path.iterdir())


def test_folders_of_runs(tmp_path):
    first, other = (RunFolder(tmp_path / "arch", {"seed": s}) for s in (0, 1))
    assert first.path != other.path
    assert first.path == RunFolder(tmp_path / "arch", {"seed": 0}).path
    with first.open(fresh=False):
        first.write("recipe.json", {"epochs": 1})
        (first.path / "checkpoints").mkdir()
        (first.path / "checkpoints/step-0000000001.npz").touch()
        with pytest.raises(KmlpError, match="Another process"), first.open(fresh=False):
            pass
        with other.open(fresh=False):
            pass
    assert not other.path.exists()  # nothing was written there
    with first.open(fresh=False):
        assert (first.path / "recipe.json").exists()
    with first.open(fresh=True):
        assert not (first.path / "recipe.json").exists()
    assert not (tmp_path / "arch").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("keep me")
    held = RunFolder(tmp_path / "file", {}).open(fresh=False)
    with pytest.raises(KmlpError, match="--output: Cannot write"), held:
        pass


CURVES = ("steps.csv", "history.csv")
# What becomes of a curve's bytes while the run stands still.
LOSSES = {
    "half a number": lambda raw: raw + b"1",
    "half a line": lambda raw: raw + b"16,0.",
    "a line too short": lambda raw: raw + b"16,0.5,0.5,0.5,1\r\n",
    "not UTF-8": lambda raw: raw[:60] + b"\xff\xfe" + raw[60:],
    "zeros": lambda raw: raw[:70] + bytes(99) + raw[169:],
    "words": lambda raw: raw + b"x,y,z\r\n",
    "nothing left": lambda raw: b"",
    "truncated": lambda raw: raw[: len(raw) // 2],
    "of another file": lambda raw: bytes(range(256)) * 40,
    "missing": lambda raw: None,
}


def lose(path, loss):
    """Damage a curve."""
    raw = LOSSES[loss](path.read_bytes())
    if raw is None:
        path.unlink()
    else:
        path.write_bytes(raw)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_damaged_curve_is_written_anew_from_the_checkpoint(
    loss, name, tmp_path, uninterrupted
):
    with pytest.raises(KeyError):
        trained(tmp_path, Engine({17: power_cut}))
    lose(tmp_path / name, loss)
    engine = Engine()
    history = trained(tmp_path, engine)
    assert outcome(tmp_path, history, engine) == uninterrupted
    whole = {name: (tmp_path / name).read_bytes() for name in CURVES}
    lose(tmp_path / name, loss)
    trained(tmp_path, Engine())  # all steps are done, and nothing is published yet
    assert {name: (tmp_path / name).read_bytes() for name in CURVES} == whole


def forget_curves(folder):
    """Make the checkpoints those of an earlier version, which held no curve."""
    store = Checkpoints(folder / "checkpoints")
    for path in store.folder.iterdir():
        with np.load(path) as file:
            arrays = {n: file[n] for n in file.files if not n.startswith("curve/")}
        found = json.loads(arrays.pop("manifest").tobytes()[8:])
        text = json.dumps(found["progress"]).encode()
        np.savez(path, **arrays, progress=np.frombuffer(text, np.uint8))


@pytest.mark.parametrize("loss", [None, "half a line", "half a number", "zeros"])
def test_a_run_of_an_earlier_version_goes_on(loss, tmp_path, capsys, uninterrupted):
    with pytest.raises(KeyError):
        trained(tmp_path, Engine({17: power_cut}))
    forget_curves(tmp_path)
    if loss:
        lose(tmp_path / "steps.csv", loss)
    engine = Engine()
    found = outcome(tmp_path, trained(tmp_path, engine), engine)
    told = capsys.readouterr().err
    if loss != "zeros":
        assert found == uninterrupted
        assert not told
        return
    assert "The curve of steps begins anew: " in told
    assert len(told.splitlines()) == 1
    header, *rows = uninterrupted[1]
    assert found[1] == [header, *(row for row in rows if int(row[0]) > 15)]
    assert found[0] == uninterrupted[0]


@pytest.mark.parametrize("until", [1, 2, 99])
def test_a_curve_that_somebody_holds_is_written_later(
    until, tmp_path, capsys, uninterrupted, monkeypatch
):
    """As a spreadsheet holds it on Windows, from the second row or epoch on."""
    writers = {"write_rows": monitor.write_rows, "append_rows": monitor.append_rows}
    tries = dict.fromkeys(CURVES, 0)

    def held(write, path, rows):
        tries[path.name] += 1
        if 1 < tries[path.name] <= until + 1:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        write(path, rows)

    for name, write in writers.items():
        monkeypatch.setattr(monitor, name, functools.partial(held, write))
    engine = Engine()
    history = trained(tmp_path, engine)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(" is written later, since it cannot be now: " in line for line in told)
    if until == 99:  # nor at the end: the same command, once it is let go of
        monkeypatch.undo()
        history = trained(tmp_path, engine := Engine())
    assert outcome(tmp_path, history, engine) == uninterrupted
    with open(tmp_path / "history.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + EPOCHS
