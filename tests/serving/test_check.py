"""The check: silent on what is good, loud on what a server would stumble over."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys

import cases
import pytest
import tensorflow as tf
from serving import served

from kmlp.artifacts.saved_model_file import check as check_content
from kmlp.commands import main
from kmlp.export.saved_model import CLASS_NAMES, EXTRA
from kmlp.export.warmup import FILE
from kmlp.serving import native_loader
from kmlp.serving.check import CHECKS as ALL
from kmlp.serving.check import Artifact, check, print_findings

NATIVE = "loads in C++ alone"
CHECKS = (
    "loads in a session",
    NATIVE,
    "method names",
    "class names",
    "warm-up records",
    "JSON, rows and columns",
    "one at a time as in a batch",
    "no images",
    "as in evaluation",
    "scores",
    "the pyramid",
    "hostile bytes",
)


@pytest.mark.long
def test_in_a_fresh_process():
    """As a person calls it: the model's own code has never run there."""
    loud = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "kmlp", "serving", "check", served.version().parent],
        capture_output=True,
        text=True,
        env=loud,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(CHECKS)
    for line, what in zip(lines, CHECKS):
        assert line.startswith(f"ok    {what} ")
    assert done.stderr == ""


@pytest.fixture(autouse=True)
def alone(request, monkeypatch):
    """Without the check that takes a process of its own, but in its tests."""
    if "native" not in request.node.name:
        monkeypatch.delitem(ALL, NATIVE)


@pytest.mark.parametrize("case", cases.few(served.FAMILIES, served.SMALL))
def test_native_answers_equal_the_sessions(case, monkeypatch):
    told, run = {}, subprocess.run

    def spied(*arguments, **options):
        done = run(*arguments, **options)
        told.update(json.loads(done.stdout))
        return done

    monkeypatch.setattr(subprocess, "run", spied)
    found = ALL[NATIVE](Artifact(served.version(case)))
    assert found.endswith("4 signatures, equal to the bit")
    assert told["python"] == []
    assert told["version"] == tf.__version__


def test_native_loading_tells_what_is_damaged(copy):
    """Numbers that are cut short, which no reading of the graph and index shows."""
    artifact = Artifact(copy)
    (file,) = (copy / "variables").glob("*.data-*")
    os.truncate(file, file.stat().st_size // 2)
    check_content(copy)
    with pytest.raises(AssertionError, match="Read less bytes") as caught:
        ALL[NATIVE](artifact)
    assert "\n" not in str(caught.value)


def test_native_answers_that_differ(monkeypatch):
    artifact = Artifact(served.version())
    ask = artifact.ask

    def other(name):
        return {
            k: v * 1.0000002 if v.dtype == "f4" else v for k, v in ask(name).items()
        }

    monkeypatch.setattr(artifact, "ask", other)
    with pytest.raises(AssertionError, match="differs from the session's"):
        ALL[NATIVE](artifact)


def test_a_library_without_the_native_loader(monkeypatch, capsys):
    def in_this_process(command, **_):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            native_loader.main(*command[2:])
        return subprocess.CompletedProcess(command, 0, out.getvalue(), "")

    monkeypatch.setattr(native_loader, "SYMBOL", "TF_NoSuchFunction")
    monkeypatch.setattr(subprocess, "run", in_this_process)
    monkeypatch.setattr("kmlp.serving.check.CHECKS", {NATIVE: ALL[NATIVE]})
    assert print_findings(check(served.version()))
    loaded, line = capsys.readouterr().out.splitlines()
    assert loaded.startswith("ok ")
    assert line.startswith(f"--    {NATIVE} ")
    assert "not run: TensorFlow's package has no TF_NoSuchFunction here" in line
    assert "libtensorflow_cc" in line


def failures(folder):
    return {f.what: f.failure for f in check(folder) if f.failure is not None}


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(served.version(), tmp_path / "flowers" / "1")


def test_class_names_that_disagree(copy):
    file = copy / EXTRA / CLASS_NAMES
    file.write_text("".join(f"{number}\n" for number in range(10)))
    assert set(failures(copy)) == {"class names"}


def test_preprocessing_that_is_not_the_artifacts(copy):
    from kmlp.artifacts import origin

    known = origin.read(copy)
    known["preprocessing"]["mean"] = [0.1, 0.1, 0.1]
    origin.write(copy, known)
    assert set(failures(copy)) == {"as in evaluation"}


def test_warm_up_records_that_do_not_fit(copy):
    with tf.io.TFRecordWriter(str(copy / EXTRA / FILE)) as writer:
        writer.write(b"\x08\x01")
    assert set(failures(copy)) == {"warm-up records"}
    (copy / EXTRA / FILE).unlink()
    assert not failures(copy)


def test_an_artifact_that_does_not_load(copy, capsys):
    for file in (copy / "variables").iterdir():
        file.unlink()
    assert set(failures(copy)) == {"loads in a session"}
    assert main.main(["serving", "check", str(copy)]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("FAIL  loads in a session")
    assert captured.err.splitlines()[-1].startswith("kmlp: This artifact would not")


def test_an_artifact_that_is_not_ours(tmp_path):
    """Rows that depend on one another, as a batch norm in training mode makes them."""

    class Foreign(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def serve(self, x):
            return {"y": x - tf.reduce_mean(x)}

    module = Foreign()
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.serve})
    assert set(failures(tmp_path)) == {"one at a time as in a batch"}


def test_bytes_that_pass_unrefused(copy, monkeypatch):
    from kmlp.serving import check

    good = check.Artifact(copy).pictures[0]
    monkeypatch.setattr(
        "kmlp.serving.check.hostile_images", lambda *_: {"a good one": good}
    )
    found = failures(copy)
    assert set(found) == {"hostile bytes"}
    assert found["hostile bytes"].endswith("answers to a good one")


@pytest.mark.parametrize("path", ["none", "file"])
def test_paths_that_hold_no_saved_model(tmp_path, path, capsys):
    (tmp_path / "file").write_text("text")
    assert main.main(["serving", "check", str(tmp_path / path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert path in captured.err
