"""`kmlp benchmark --backends`: one real run, and what it does not take."""

import csv
import importlib.util
import os
import subprocess
import sys

import pytest

from kmlp.benchmarking.findings import COLUMNS, read
from kmlp.commands import main

BACKENDS = [
    name
    for name in ("tensorflow", "jax", "torch")
    if importlib.util.find_spec(name) is not None
]
TINY = ("--set", "depth=1", "width=8", "--image-size", "32", "--num-classes", "4")


def test_the_backends_that_are_there(tmp_path):
    """Real processes, of a parent that has no TensorFlow."""
    files = [tmp_path / name for name in ("speeds.json", "speeds.csv")]
    argv = ["benchmark", "resmlp_s12", *TINY, "--backends", *BACKENDS, "--no-memory"]
    argv += ["--rounds", "2", "--threads", "1", "--batch", "2", "--device", "cpu"]
    argv += ["--json", str(files[0]), "--csv", str(files[1])]
    program = (
        "import sys\n"
        "sys.modules['tensorflow'] = None\n"
        "from kmlp.commands.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environment = dict(os.environ, KERAS_HOME=str(tmp_path))
    environment.pop("KERAS_BACKEND", None)
    own = [b for b in BACKENDS if b != "tensorflow"]
    if not own:
        pytest.skip("JAX and PyTorch are not installed")
    done = subprocess.run(
        [sys.executable, "-c", program, *argv],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found = read(files[0])
    # Its parent sees no TensorFlow, and says so.
    assert list(found.missing) == ["tensorflow"] * ("tensorflow" in BACKENDS)
    assert {(s.backend, s.work) for s in found.speeds} == {
        (backend, work) for backend in own for work in ("inference", "training")
    }
    for speed in found.speeds:
        assert (len(speed.rounds), speed.batch, speed.memory) == (2, 2, None)
        assert speed.image_size == (32, 32)
        assert 0 < speed.share < 1.5
        assert speed.first_call_seconds > 0
    # ResMLP at width 8 on 2x2 patches: embedding, cross-patch map, MLP, head.
    macs = 4 * 16 * 16 * 3 * 8 + 4 * 4 * 8 + 2 * 4 * 8 * 32 + 8 * 4
    assert {speed.macs for speed in found.speeds} == {macs}
    for backend in own:
        assert f"{backend} {found.backends[backend]['version']}, Keras" in done.stdout
        assert "1 CPU core, float32" in done.stdout
    with open(files[1], newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [float(row["images_per_second"]) for row in rows] == [
        speed.images_per_second for speed in found.speeds
    ]


@pytest.mark.long
def test_peak_memory_comes_from_a_process_of_its_own(tmp_path, capfd):
    pytest.importorskip("tensorflow")
    path = tmp_path / "speeds.json"
    argv = ["benchmark", "resmlp_s12", *TINY, "--backends", "tensorflow"]
    argv += ["--work", "inference", "--rounds", "1", "--device", "cpu", "--xla", "off"]
    assert main.main([*argv, "--json", str(path)]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    found = read(path)
    (speed,) = found.speeds
    assert (speed.backend, speed.xla) == ("tensorflow", False)
    # Some thousand weights: what the libraries keep is all there is.
    assert 0 <= speed.memory < 200e6
    assert found.missing == {}
    assert captured.out.startswith(
        f"tensorflow {found.backends['tensorflow']['version']}"
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["x", "--backends", "jax", "--forms", "train"], ["--forms", "--backends"]),
        (["x", "--backends", "theano"], ["--backends", "'theano'", "tensorflow"]),
        (["x", "--backends", "jax", "--work", "play"], ["--work", "'play'"]),
        (["x", "--backends", "jax", "--precision", "int8"], ["--precision", "int8"]),
        (["x", "--work", "training"], ["--work goes with --backends", "Received"]),
        (["x", "--no-memory"], ["--no-memory goes with --backends"]),
        (["x", "--xla", "on", "--forms", "train"], ["--xla goes with --backends"]),
        (["x", "--csv", "a.csv"], ["--csv goes with --backends"]),
        (["x", "--backends", "jax", "--clock", "wall"], ["--clock goes with --forms"]),
        (
            ["x", "--backends", "jax", "--csv", "/none/a.csv"],
            ["--csv", "'/none/a.csv'"],
        ),
        (["x", "--backends", "jax", "--json", "/none/a"], ["--json", "'/none/a'"]),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    try:
        code = main.main(["benchmark", *argv])
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1)
    for word in words:
        assert word in captured.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["resmlp_s13"], ["resmlp_s12", "Received: 'resmlp_s13'"]),
        (["resmlp_s12", "--image-size", "225"], ["225"]),
        (["resmlp_s12", "--set", "widht=3"], ["width", "'widht'"]),
        (["missing.keras"], ["does not exist", "missing.keras"]),
    ],
)
def test_wrong_networks_get_one_line(argv, words):
    """What the processes find wrong, by their desk."""
    from kmlp.benchmarking.contenders import Desk
    from kmlp.benchmarking.worker import answer
    from kmlp.commands.benchmark import _sources
    from kmlp.commands.main import _parser

    options = _parser().parse_args(["benchmark", *argv, "--backends", "jax"])
    kind, message = answer(Desk(), "check", {"sources": _sources(options)})
    assert kind == "input"
    for word in (*words, "Received"):
        assert word in message
    assert "\n" not in message
