"""The rounds across backends: what is asked of whom, and what becomes of answers."""

import json
import statistics

import pytest

from kmlp.benchmarking import backends
from kmlp.benchmarking.backends import benchmark_backends
from kmlp.benchmarking.benchmarked import Case, Source
from kmlp.benchmarking.findings import COLUMNS, HEADER, Findings, Speed, from_data
from kmlp.benchmarking.worker import Failed

MACS = {"small": 10, "large": 100}
PRODUCTS = {"tensorflow": 1000, "jax": 4000, "torch": 2000}
PASSES = {"inference": 1, "training": 3}
SPEEDS = {"tensorflow": 5.0, "jax": 20.0, "torch": 10.0}


class Backend:
    """Stands for a backend's process.

    Class attributes are set anew by each test.
    """

    log, open, broken = [], 0, {}

    def __init__(self, backend, device):
        self.backend, self.device, self.alive = backend, device, True
        self.cases, self.turns = [], 0
        Backend.open += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.alive = False
        Backend.open -= 1

    def ask(self, question, **given):
        case = given.get("case")
        if question == "turn":
            case = self.cases[given["number"]]
        if question in ("product", "turn"):
            Backend.log.append((self.backend, case))
        error = Backend.broken.get((self.backend, question, case and case.work))
        if error is not None:
            self.alive = not isinstance(error, Failed) or "ended" not in str(error)
            raise error
        return getattr(self, question)(**given)

    def start(self, device, threads, precision):
        assert device == self.device == "cpu"
        return {"version": "1.2", "keras": "3.4", "device": f"{threads} CPU cores"}

    def check(self, sources):
        for source in sources:
            if source.name not in MACS:
                raise ValueError(f"Unknown. Received: {source.name!r}")

    def memory(self, case):
        return 1_000_000 * case.batch

    def make(self, case):
        self.cases.append(case)
        return {
            "number": len(self.cases) - 1,
            "parameters": 7,
            "macs": MACS[case.source.name],
            "image_size": (8, 16),
            "first_call_seconds": 0.5,
        }

    def turn(self, number):
        # The machine is half as fast in every other round.
        own = [k for k in Backend.log if k == (self.backend, self.cases[number])]
        return SPEEDS[self.backend] / (1 + len(own) % 2)

    def product(self):
        self.turns += 1
        return PRODUCTS[self.backend] / (1 + self.turns % 2)


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    Backend.log, Backend.open, Backend.broken = [], 0, {}
    monkeypatch.setattr(backends, "installed", lambda name: True)


def timed(names=("small", "large"), chosen=("tensorflow", "jax", "torch"), **options):
    sources = [Source(name) for name in names]
    options = {"rounds": 4, "device": "cpu", "worker": Backend, **options}
    return benchmark_backends(sources, chosen, **options)


def test_everything_takes_its_turn_in_every_round():
    lines = []
    found = timed(progress=lines.append)
    assert Backend.open == 0
    assert len(found.speeds) == 2 * 2 * 4  # TensorFlow with and without XLA
    turns = len(found.speeds) + 3  # and the products
    assert len(Backend.log) == 4 * turns
    rounds = [Backend.log[i * turns : (i + 1) * turns] for i in range(4)]
    assert all(len(set(one)) == turns for one in rounds)
    assert len({tuple(one) for one in rounds}) == 4
    # Backends are mixed, none works off what it has.
    assert any(a[0] != b[0] for a, b in zip(rounds[0], rounds[0][1:]))
    assert lines[-1] == ""
    assert "round 4 of 4" in lines


def test_shares_are_of_the_best_product_of_the_round():
    found = timed()
    for speed in found.speeds:
        # Both halve in the same rounds, so that every ratio is the same.
        work = PASSES[speed.work] * MACS[speed.network]
        expected = SPEEDS[speed.backend] * work / 4000
        assert speed.share == pytest.approx(expected)
        assert sorted(speed.rounds) == [SPEEDS[speed.backend] / k for k in (2, 2, 1, 1)]
        assert speed.images_per_second == SPEEDS[speed.backend] * 0.75
        assert speed.memory == 8_000_000
        assert (speed.image_size, speed.parameters) == ((8, 16), 7)
    peaks = {name: about["peak"] for name, about in found.backends.items()}
    assert peaks == PRODUCTS


def test_each_backend_does_what_it_can():
    ways = {(s.backend, s.xla) for s in timed().speeds}
    assert ways == {
        ("tensorflow", False),
        ("tensorflow", True),
        ("jax", True),
        ("torch", False),
    }
    without = timed(xla=(False,))
    assert {(s.backend, s.xla) for s in without.speeds} == {
        ("tensorflow", False),
        ("torch", False),
    }
    assert "--xla on" in without.missing["jax"]
    with_xla = timed(xla=(True,))
    assert {s.backend for s in with_xla.speeds} == {"tensorflow", "jax"}
    assert "--xla off" in with_xla.missing["torch"]


@pytest.mark.parametrize("question", ["memory", "make", "turn"])
def test_what_fails_is_named_and_the_others_go_on(question):
    error = Failed("ResourceExhausted: no room")
    Backend.broken = {("jax", question, "training"): error}
    found = timed()
    left = {(s.network, s.backend, s.work) for s in found.speeds}
    for name in MACS:
        label = f"{name}, training, batch 8, jax"
        assert found.missing[label] == "ResourceExhausted: no room"
        assert (name, "jax", "training") not in left
        assert (name, "jax", "inference") in left
    assert len(found.missing) == 2
    assert all(len(s.rounds) == 4 for s in found.speeds)
    assert Backend.open == 0


@pytest.mark.parametrize("question", ["start", "make", "turn", "product"])
def test_a_backend_that_ends_is_named_and_the_others_go_on(question):
    work = "inference" if question in ("make", "turn") else None
    Backend.broken = {("jax", question, work): Failed("its process ended: why")}
    found = timed(memory=False)
    assert found.missing == {"jax": "its process ended: why"}
    assert {s.backend for s in found.speeds} == {"tensorflow", "torch"}
    assert all(len(s.rounds) == 4 for s in found.speeds)
    # The best product is that of those who are left.
    if question == "start":
        for one in found.speeds:
            expected = SPEEDS[one.backend] * PASSES[one.work] * MACS[one.network] / 2000
            assert one.share == pytest.approx(expected)
    assert "jax" not in found.backends
    assert Backend.open == 0


def test_without_memory_or_product():
    Backend.broken = {(name, "product", None): Failed("no room") for name in PRODUCTS}
    found = timed(memory=False, chosen=("torch",))
    assert {(s.share, s.memory) for s in found.speeds} == {(None, None)}
    assert found.missing == {"torch, matrix product": "no room"}
    assert "no room" in str(found)
    assert "products" not in str(found)


def test_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda name: name != "torch")
    found = timed()
    assert {s.backend for s in found.speeds} == {"tensorflow", "jax"}
    assert "pip install torch" in found.missing["torch"]
    with pytest.raises(ValueError, match=r"Nothing could be measured: torch: PyTorch"):
        timed(chosen=("torch",))


def test_a_wrong_network_ends_it():
    with pytest.raises(ValueError, match="Received: 'middle'"):
        timed(names=("small", "middle"))
    assert Backend.open == 0


def test_an_interrupt_ends_all_processes():
    Backend.broken = {("torch", "turn", "inference"): KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        timed()
    assert Backend.open == 0


@pytest.mark.parametrize(
    ("work", "precision", "policy"),
    [
        ("inference", "float32", "float32"),
        ("inference", "bfloat16", "bfloat16"),
        ("training", "float32", "float32"),
        ("training", "float16", "mixed_float16"),
    ],
)
def test_training_keeps_its_weights_in_float32(work, precision, policy):
    assert Case(Source("x"), work, False, 1, precision).policy == policy


def speed(**changes):
    values = {
        "network": "net",
        "image_size": (224, 160),
        "work": "inference",
        "backend": "jax",
        "xla": True,
        "batch": 8,
        "rounds": (10.0, 40.0, 20.0, 30.0, 50.0),
        "share": 0.256,
        "memory": 123_456_789,
        "parameters": 9_021_000,
        "macs": 2_400_000_000,
        "first_call_seconds": 1.5,
    }
    return Speed(**{**values, **changes})


ABOUT = {"version": "0.9", "keras": "3.15", "device": "2 CPU cores", "peak": 5e10}


def test_findings_as_text_rows_and_json():
    speeds = (speed(), speed(work="training", memory=None, share=None, rounds=(4.0,)))
    missing = {"torch": "is not installed"}
    found = Findings("cpu", 2, "float32", {"jax": ABOUT}, speeds, missing)
    assert from_data(json.loads(json.dumps(found.as_data()))) == found
    assert (speeds[0].images_per_second, speeds[0].quartiles) == (30.0, (20.0, 40.0))
    assert speeds[1].quartiles == (4.0, 4.0)
    lines = str(found).splitlines()
    assert lines[0] == (
        "jax 0.9, Keras 3.15, 2 CPU cores, float32: products at 100 GFLOP/s"
    )
    assert lines[1].split("  ")[0] == HEADER[0]
    assert lines[2].split() == [
        *("net", "inference", "jax", "on", "8", "30.0", "20.0-40.0", "26%"),
        *("123", "9.02"),
    ]
    assert lines[-2:] == ["not measured:", "  torch: is not installed"]
    row = dict(zip(COLUMNS, found.rows()[0], strict=True))
    assert row["images_per_second"] == statistics.median(speeds[0].rounds)
    assert (row["image_height"], row["image_width"]) == (224, 160)
    assert (row["xla"], row["peak_memory_bytes"]) == ("on", 123_456_789)
    assert dict(zip(COLUMNS, found.rows()[1]))["peak_memory_bytes"] is None
