"""The command `kmlp`, as a person calls it."""

import ast
import importlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

import kmlp
from kmlp.commands import benchmark_input, compress, main, probe, train
from kmlp.console import SAVED_MODELS, _results_folder, exit_code
from kmlp.errors import InputError, Interrupted, RunError, TimeUp

ROOT = pathlib.Path(kmlp.__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["list", "convmlp_*"], ["convmlp_l", "convmlp_m", "convmlp_s"]),
        (
            ["list", "smlpnet_t*", "--costs"],
            ["| `smlpnet_t` | 224x224 | 24.12 (24.1) | 4.99 (5.0) | 20.0 | 81.9 |"],
        ),
        (
            ["list", "resmlp_b24", "--costs", "--format", "csv"],
            ["parameters,reported_parameters_millions", ",129138280,115.7,", "16x16"],
        ),
        (
            ["list", "msmlp_t", "--costs", "--format", "text"],
            ["msmlp_t          224x224      28.66 (28)", "82.1  18.5 (16.8)", "1, 2\n"],
        ),
        (
            ["info", "convmlp_s"],
            ["convmlp_s at 224x224", "9,022,920", "2.385", "train form", "merged"],
        ),
        (
            ["info", "resmlp_s12", "--image-size", "32", "48", "--num-classes", "5"],
            ["at 32x48"],
        ),
        (["info", "convmlp_s", "--layers", "--merged"], ["tokenizer_conv0", "total"]),
    ],
)
def test_output(argv, words, capsys):
    assert main.main(argv) == 0
    output = capsys.readouterr().out
    for word in words:
        assert word in output


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["list", "nothing*"], ["kmlp list", "'nothing*'"]),
        (["list", "--format", "csv"], ["--costs", "--format csv"]),
        (["info", "convmlp_z"], ["convmlp_s", "'convmlp_z'"]),
        (["info", "resmlp_s12", "--image-size", "225"], ["224 or 240", "225"]),
        (["info", "convmlp_s", "--image-size", "1", "2", "3"], ["height and width"]),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert main.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("kmlp: ")
    for word in (*words, "Received"):
        assert word in captured.err


QUIET = """
import sys
from kmlp.commands.main import main
code = 0
try:
    code = main(sys.argv[1:])
except SystemExit as stopped:
    code = stopped.code
sys.stdout.flush()
times = __import__("os").times()
heavy = sorted({"keras", "tensorflow", "jax", "torch"} & set(sys.modules))
print("\\n", code, times.user + times.system, *heavy)
"""
SECONDS = 0.5  # of the CPU


def quick(*argv):
    """`(exit code, seconds of the CPU, what of heavy packages was imported)`."""
    command = [sys.executable, "-c", QUIET, *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, seconds, *heavy = done.stdout.splitlines()[-1].split()
    return int(code), float(seconds), heavy


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["list"], 0),
        (["list", "convmlp_*"], 0),
        (["nothing"], 2),
        *(([name, "--help"], 0) for name in main.COMMANDS),
        *(([name, "--typo"], 2) for name in main.COMMANDS),
        (["plot", "saliency", "--help"], 0),
        (["train", "--task", "detect", "--help"], 0),
        (["train", "--task", "segment", "--typo"], 2),
        (["train", "--arch", "convmlp_z"], 2),
        (["train", "--arch", "convmlp_s", "--recipe", "imagenet"], 2),
        (["train", "--task", "detect", "--recipe", "convmlp_ade20k"], 2),
        (["study", "convmlp/table9"], 2),
        (["study", "list"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_answers_at_once(argv, code):
    ended, seconds, heavy = quick(*argv)
    assert ended == code
    assert not heavy
    # A busy machine may count a little more; Keras alone takes seconds.
    assert seconds <= SECONDS


def test_only_the_command_that_was_asked_for_is_imported():
    script = (
        "import sys\n"
        "from kmlp.commands.main import _parser\n"
        "_parser().parse_args(['audit', 'path'])\n"
        "print(*(m for m in sys.modules if m.startswith('kmlp.commands.')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    names = {name.removeprefix("kmlp.commands.") for name in done.stdout.split()}
    assert names == {"arguments", "main", "info"}


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name, entry in main.COMMANDS.items():
        assert f"{name} {entry.help}" in shown


def test_choices_are_those_of_the_library():
    from kmlp.commands import arguments
    from kmlp.weights.grid_resizing import RESOLUTIONS

    assert tuple(RESOLUTIONS) == arguments.RESOLUTIONS


# The ends of a command.


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TimeUp("Time is up."), 0, "Time is up."),
        (RunError("The disk is full."), 1, "The disk is full."),
        (InputError("Bad.\n Received: 1"), 2, "Bad. Received: 1"),
        (FileNotFoundError(2, "No such file", "x"), 2, "[Errno 2] No such file: 'x'"),
        (ImportError("pip install it"), 2, "pip install it"),
        (Interrupted("Stopped.", signal.SIGTERM), 143, "Stopped."),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_end_is_one_line_and_a_code(error, code, line, capsys):
    def job():
        raise error

    assert exit_code("kmlp", job) == code
    assert capsys.readouterr().err.strip() == f"kmlp: {line}"


def test_work_that_ends_says_nothing(capsys):
    assert exit_code("kmlp", lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_what_nobody_foresaw_is_one_line_that_says_to_report_it(capsys, monkeypatch):
    def job():
        raise KeyError("stem\nof a network")

    monkeypatch.delenv("KMLP_DEBUG", raising=False)
    assert exit_code("kmlp", job) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("kmlp: KeyError: ")
    for words in ("a fault of kmlp", "report it", "KMLP_DEBUG=1"):
        assert words in error
    monkeypatch.setenv("KMLP_DEBUG", "1")
    assert exit_code("kmlp", job) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("kmlp: KeyError: ")


def test_a_fault_in_a_command_is_caught(monkeypatch, capsys):
    monkeypatch.setattr(
        "kmlp.artifacts.operation_audit.audit", lambda path: {}["nothing"]
    )
    assert main.main(["audit", "x"]) == 1
    assert "KeyError: 'nothing'" in capsys.readouterr().err


def test_of_several_workers_one_that_failed_waits_for_nobody(monkeypatch):
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for code in (0, 1):
        with pytest.raises(SystemExit):
            main.leave(code)
    assert ended == []
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(SystemExit):  # the stand-in returns
        main.leave(1)
    assert ended == [1]


# The commands that train.


def parsed(*argv):
    return main._parser().parse_args(argv)


def the_same(installed, script):
    """Options beside those that say which command it is."""
    left, right = vars(installed), vars(script)
    ours = {"command", "task", "job", "preparation"}
    assert left.keys() - ours == right.keys() - ours
    assert all(left[name] == right[name] for name in left.keys() - ours)


@pytest.mark.parametrize(
    ("argv", "script", "words"),
    [
        (["train"], train.SCRIPT, ["--arch", "convmlp_s", "--set", "mixup=0"]),
        (["train", "--task", "classify"], train.SCRIPT, ["--weights", "RUN"]),
        (["train", "--task", "detect"], train.DETECTOR, ["--image-size", "64"]),
        (["train", "--task=segment"], train.SEGMENTER, ["--head", "upernet"]),
        (["study", "repmlpnet/table4"], train.SCRIPT, ["--minutes", "9"]),
        (["probe", "RUN"], probe.SCRIPT, ["--data", "digits", "--method", "knn"]),
        (["compress", "RUN"], compress.SCRIPT, ["--data", "x", "--method", "prune"]),
        (["benchmark-input"], benchmark_input.SCRIPT, ["--data", "x.tar"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_installed_command_is_its_script(argv, script, words):
    own = {"study": ["--study", *argv[1:]], "train": []}.get(argv[0], argv[1:])
    the_same(parsed(*argv, *words), script.parse([*own, *words]))


@pytest.mark.parametrize(
    ("argv", "program", "words"),
    [
        (["train"], "kmlp train", "--arch or --weights"),
        (["train", "--task", "count"], "kmlp train", "invalid choice: 'count'"),
        (["train", "--task", "detect", "--teacher", "x"], "kmlp train", "--teacher"),
        (["train", "--task", "detect", "--head", "upernet"], "kmlp train", "retinanet"),
        (
            ["train", "--arch", "x", "--freeze", "1"],
            "kmlp train",
            "goes with --weights",
        ),
        (["study", "x", "--arch", "y"], "kmlp study", "--arch does not go"),
        (["study"], "kmlp study", "PAPER/TABLE"),
        (["evaluate", "x", "--task", "classify"], "kmlp evaluate", "--data"),
        (
            ["probe", "x", "--data", "y", "--method", "linear", "--k", "1"],
            "kmlp probe",
            "knn",
        ),
        (
            ["compress", "x", "--data", "y", "--method", "prune", "--sparsity", "1"],
            "kmlp compress",
            "[0, 1)",
        ),
        (["benchmark", "x", "--rounds", "0"], "kmlp benchmark", "positive integer"),
    ],
)
def test_a_usage_error_is_one_line(argv, program, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(argv)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{program}: ")
    assert error.endswith("; see --help.\n")
    assert error.count("\n") == 1
    assert words in error


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: main.main(["train", "--help"]), "kmlp train --arch convmlp_s"),
        (
            lambda: main.main(["train", "--task", "detect", "--help"]),
            "kmlp train --head",
        ),
        (lambda: train.main(["--help"]), "python training/train.py --arch convmlp_s"),
        (lambda: probe.main(["--help"]), "python training/probe.py saved_models/"),
    ],
)
def test_help_shows_the_call_that_was_made(call, shown, capsys):
    with pytest.raises(SystemExit):
        call()
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--arch", "convmlp_z"], "kmlp train: "),
        (["train", "--task", "detect", "--arch", "convmlp_z"], "kmlp train: "),
        (["probe", "nothing", "--data", "digits", "--method", "knn"], "kmlp probe: "),
        (["evaluate", "nothing", "--data", "digits"], "kmlp evaluate: "),
        (["benchmark-input", "--data", "nothing"], "kmlp benchmark-input: "),
    ],
)
def test_what_goes_wrong_names_the_command(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(words)
    assert "Received" in lines[-1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data", "digits", "--flip"], "--flip goes with a segmenter"),
        (["--data", "digits", "--results", "x"], "--results goes with a detector"),
        (["--task", "detect"], "--task asks for a detector"),
        ([], "pass --data"),
    ],
)
def test_evaluation_refuses_what_goes_with_other_weights(argv, words, capsys):
    """Weights that nothing is known of are taken for a classifier's."""
    assert main.main(["evaluate", "nothing", *argv]) == 2
    assert words in capsys.readouterr().err


def test_results_go_into_a_clone_or_here(tmp_path):
    assert _results_folder(tmp_path, "in/it", "out") == pathlib.Path("out")
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "train.py").write_text("")
    assert _results_folder(tmp_path, "in/it", "out") == tmp_path / "in/it"
    assert parsed("train", "--arch", "x").output == SAVED_MODELS


# A run whose other worker is lost at first, and which then goes on.
# Modules that import Keras are stand-ins: what counts is the process's own command.
LOST = """
import os, sys, types
from kmlp import console

console.import_quietly = lambda **options: None

class WorkerLost(Exception):
    pass

def run(options, task=None):
    if os.environ.get("KMLP_RETURNS") != "1":
        raise WorkerLost("A worker is lost.")
    print("again", options.arch, options.output)

class StandIn(types.ModuleType):
    WorkerLost, run = WorkerLost, staticmethod(run)

for name in ("job", "engine.engine", "tasks.classification"):
    sys.modules[f"kmlp.training.{name}"] = StandIn(name)
"""


@pytest.mark.parametrize("program", ["module", "program", "script"])
def test_a_worker_that_lost_the_others_starts_its_command_again(program, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(LOST)
    installed = tmp_path / "kmlp"  # as pip writes it
    installed.write_text("from kmlp.commands.main import enter\nenter()\n")
    call = {
        "module": ["-m", "kmlp", "train"],
        "program": [str(installed), "train"],
        "script": ["training/train.py"],
    }[program]
    done = subprocess.run(
        [sys.executable, "-u", *call, "--arch", "convmlp_s", "--output", "a b"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "again convmlp_s a b\n", done.stderr
    assert done.returncode == 0
    assert "A worker is lost. Waiting for all workers, time 1 of" in done.stderr


# What `import kmlp` offers.


def test_every_name_of_the_face_is_there():
    for name in kmlp.__all__:
        assert getattr(kmlp, name) is not None, name
    assert dir(kmlp) == sorted(kmlp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kmlp.nothing
    assert kmlp.errors.InputError is InputError


def test_the_stub_has_the_same_names():
    stub = ast.parse((ROOT / "kmlp" / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname: f"{node.module}" for node in imports for alias in node.names}
    assert set(names) == set(kmlp.__all__)
    for name, module in names.items():
        found = getattr(importlib.import_module(module), name)
        assert found is getattr(kmlp, name), name


FACE = """
import sys
import kmlp
assert "keras" not in sys.modules
exec(sys.argv[1])
import keras
for name in ("ResMLP", "RetinaNet", "UperNet"):
    print(keras.saving.get_registered_object(f"kmlp>{name}").__name__)
"""


@pytest.mark.parametrize("before", ["", "kmlp.list_models()"])
def test_classes_are_known_once_keras_is_imported(before):
    command = [sys.executable, "-c", FACE, before]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "ResMLP\nRetinaNet\nUperNet\n", done.stderr
