"""The benchmark's bookkeeping and its report; speeds themselves are no test."""

import importlib.util
import json
import os
import subprocess
import sys

import cases
import keras
import numpy as np
import pytest

import kmlp
from kmlp.benchmarking.findings import (
    FORMS,
    Benchmark,
    ratio,
    timings_table,
    verdicts,
)
from kmlp.benchmarking.form_benchmark import benchmark, chosen_forms
from kmlp.benchmarking.int8_reasons import Operations, operations, reasons
from kmlp.benchmarking.measuring import PEAK, PEAKS, Contender, Timing, measure
from kmlp.benchmarking.published_runs import RUNS
from kmlp.commands import main
from kmlp.pytorch.counterparts import counterpart

TRAIN, MERGED, FLOAT32, INT8 = (
    FORMS[form] for form in ("train", "merged", "float32", "int8")
)


def test_a_share_is_of_the_product_of_its_own_precision():
    """What is multiplied in int8 is held against int8."""
    products = {"float32": 1.0, "bfloat16": 0.5, "int8": 0.25}  # seconds
    now = 0.0

    def taking(seconds):
        def run():
            nonlocal now
            now += seconds

        return run

    contenders = [
        Contender(PEAKS[name], 1, 1000, taking(seconds), peak=PEAKS[name])
        for name, seconds in products.items()
    ]
    contenders += [
        Contender(name, 1, 1000, taking(1.0), peak=PEAKS[name]) for name in products
    ]
    timings = measure(contenders, rounds=2, clock=lambda: now)
    assert [t.share for t in timings] == [1, 1, 1, 1, 0.5, 0.25]
    shown = timings_table(timings)
    assert all(f"{label} 2048" in shown for label in PEAKS.values())


def test_medians_and_shares_follow_the_time_taken():
    now = 0.0

    def taking(*seconds):
        """Takes so long in turn, the last for ever."""
        left = list(seconds)

        def run():
            nonlocal now
            now += left.pop(0) if len(left) > 1 else left[0]

        return run

    contenders = [
        Contender(PEAK, 1, 1000, taking(9, 0.125)),  # its first call compiles
        Contender("half", 1, 500, taking(9, 0.125)),
        Contender("batched", 4, 1000, taking(9, 0.25, 0.25, 0.5, 0.25)),
        Contender("short", 1, None, taking(0.01)),
    ]
    rounds = []
    timings = measure(contenders, rounds=3, progress=rounds.append, clock=lambda: now)
    assert rounds == [1, 2, 3]
    assert [t.name for t in timings] == [PEAK, "half", "batched", "short"]
    assert [t.share for t in timings] == [1.0, 0.5, 2.0, None]
    assert timings[2].rounds == (16.0, 8.0, 16.0)
    assert timings[2].images_per_second == 16.0
    assert abs(timings[3].images_per_second - 100) < 1e-6
    assert "batched" in timings_table(timings)


def timing(name, *rounds, batch=1):
    return Timing(name, batch, sorted(rounds)[len(rounds) // 2], None, rounds)


def test_ratios_are_taken_within_a_round():
    # Both forms slow down together: other work came.
    one, other = timing("a", 100, 50, 10, 30), timing("b", 50, 25, 5, 10)
    assert ratio(one, other) == (2.0, 2.0, 2.25)
    assert ratio(timing("a", 6), timing("b", 3)) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("local", "rounds", "met"),
    [
        (False, (101, 103, 99), True),
        (False, (99, 97, 101), True),  # within the spread
        (False, (90, 92, 91), False),
        (True, (110, 112, 111), True),
        (True, (99, 103, 102), True),
        (True, (99, 101, 99), False),  # not clearly
    ],
)
def test_the_merged_form_must_not_be_slower(local, rounds, met):
    timings = [timing(TRAIN, 100, 100, 100), timing(MERGED, *rounds)]
    (verdict,) = verdicts(timings, local=local)
    assert (verdict.faster, verdict.slower, verdict.met) == (MERGED, TRAIN, met)
    assert verdict.clear == local
    assert ("MISSED" in str(verdict)) == (not met)


def test_verdicts_are_per_batch_and_of_what_was_timed():
    timings = [
        timing(PEAK, 9.0),
        timing(FLOAT32, 100.0),
        timing(INT8, 250.0),
        timing(FLOAT32, 200.0, batch=8),
        timing(INT8, 300.0, batch=8),
        timing(FORMS["torch"], 20.0, batch=8),
    ]
    found = verdicts(timings)
    assert [(v.faster, v.batch, v.ratio, v.met) for v in found] == [
        (INT8, 1, 2.5, True),
        (INT8, 8, 1.5, False),
        (FLOAT32, 8, 10.0, None),  # the best of each against the published
    ]
    (against,) = verdicts([timing(MERGED, 60.0), timing(FORMS["torch"], 20.0)])
    assert (against.ratio, against.met) == (3.0, None)
    assert "MISSED" not in str(against)


def kind(seconds, count=10, floats=0, outside=0):
    return Operations(count, floats, outside, seconds)


def test_the_reasons_follow_from_the_operations():
    float32 = {"matrix products": kind(60, 10, 10), "DEPTHWISE_CONV_2D": kind(20)}
    int8 = {
        "matrix products": kind(20),
        "DEPTHWISE_CONV_2D": kind(25),
        "SQUARED_DIFFERENCE": kind(5, 7, 0, 7),
        "TRANSPOSE": kind(0.1, 24),
        "NEG": kind(0.1, 5, 5),
        "DEQUANTIZE": kind(0.1, 5, 5),
    }
    lines = reasons(float32, int8, {"sse2", "avx512_vnni"})
    assert lines == (
        "the CPU multiplies bytes with avx512_vnni",
        "DEPTHWISE_CONV_2D (10): 50% of int8's time, 0.8x as fast as in float32",
        "SQUARED_DIFFERENCE (7, 7 of them outside XNNPACK): 10% of int8's time, "
        "absent in float32",
        "all other operations are 3.0x as fast in int8",
        "operations that stay float in the int8 file: NEG 5",
        "operations that int8 adds to move values: DEQUANTIZE 5, TRANSPOSE 24",
    )
    assert "no instruction" in reasons(float32, int8, {"sse2"})[0]
    assert "CPU" not in reasons(float32, int8)[0]
    quick = {"matrix products": kind(60), "ADD": kind(1)}
    assert reasons(quick, {"matrix products": kind(20), "ADD": kind(0.4)}) == ()


@pytest.mark.long
def test_operations_are_those_of_the_file(tmp_path):
    model = cases.build("convmlp")
    paths = [tmp_path / "float32.tflite", tmp_path / "int8.tflite"]
    kmlp.export.tflite(model, paths[0])
    kmlp.export.tflite(
        model, paths[1], quantize="int8", representative_data=cases.images(model, 8)
    )
    for path, found in zip(paths, operations(paths, 1, rounds=1), strict=True):
        counts = dict(kmlp.export.audit(path))
        counts["matrix products"] = counts.pop("FULLY_CONNECTED")
        assert {name: o.count for name, o in found.items()} == counts
        assert all(o.seconds > 0 for o in found.values())
        # The delegate takes the convolutions; GELU has no int8 form there.
        assert found["CONV_2D"].outside == 0
        quantised = path is paths[1]
        assert (found["GELU"].outside > 0) == quantised
        assert (found["CONV_2D"].floats == 0) == quantised


def test_the_report_names_what_is_missing_and_why():
    timings = (timing(PEAK, 9.0), timing(FLOAT32, 100.0), timing(INT8, 120.0))
    found = Benchmark(
        "tiny",
        (8, 16, 3),
        2,
        "wall",
        timings,
        verdicts(timings),
        {1: ("the CPU is old",)},
        {"PyTorch": "is not installed"},
    )
    text = str(found)
    for words in ("tiny at 8x16, 2 threads", "PyTorch: is not", "1.20", "CPU is old"):
        assert words in text


@pytest.mark.parametrize(
    ("names", "forms"),
    [
        (["all"], list(FORMS)),
        (["int8", "train"], ["train", "int8"]),
        (["xla", "merged"], ["train-xla", "merged", "merged-xla"]),
        (["tflite", "int8"], ["float32", "float16", "dynamic", "int8"]),
    ],
)
def test_forms_are_chosen_by_name_or_group(names, forms):
    assert chosen_forms(names) == forms


def test_a_form_that_does_not_exist_is_told_and_the_rest_is_timed():
    model = cases.build("resmlp_local")
    found = benchmark(
        model, forms=("merged", "torch", "torch-merged"), batches=(1,), rounds=1
    )
    assert [t.name for t in found.timings] == [PEAK, MERGED]
    assert set(found.missing) == {FORMS["torch"], FORMS["torch-merged"]}
    with pytest.raises(ValueError, match=r"None of the forms.*merged form"):
        benchmark(model, forms=("torch-merged",), rounds=1)


@pytest.mark.long
def test_the_command(tmp_path):
    """One real run, in a process of its own, which sets its threads."""
    figures = tmp_path / "figures.json"
    checkpoint = tmp_path / "1" / "trained.keras"
    checkpoint.parent.mkdir()
    keras.utils.set_random_seed(0)
    family, arguments = cases.CASES["repmlpnet"]
    family(10, **{**arguments, "input_shape": (32, 32, 3)}).save(checkpoint)
    # XLA and PyTorch's compiler take minutes to make a small network fast.
    forms = [form for form in FORMS if not form.endswith(("xla", "compile"))]
    command = [sys.executable, "-m", "kmlp", "benchmark", str(tmp_path)]
    options = {"batch": 2, "threads": 1, "clock": "cpu", "rounds": 2, "json": figures}
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    command += ["--forms", *forms]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads(figures.read_text())
    expected = [FORMS[form] for form in forms]
    needed = {"PyTorch": "torch", "OpenVINO": "openvino", "ONNX": "onnxruntime"}
    for word, package in needed.items():
        if not importlib.util.find_spec(package):
            expected = [name for name in expected if word not in name]
    peaks = list(PEAKS.values())
    assert [t["name"] for t in found["timings"]] == [*peaks, *expected]
    assert found["processor"]
    assert all(len(t["rounds"]) == 2 for t in found["timings"])
    assert all(t["share"] for t in found["timings"] if "PyTorch" not in t["name"])
    compared = [(v["faster"], v["slower"]) for v in found["verdicts"]]
    assert (MERGED, TRAIN) in compared
    assert (INT8, FLOAT32) in compared
    for words in (
        f"{tmp_path} at 32x32, 1 thread, CPU",
        *expected,
        "matmul 2048",
        "ratios",
    ):
        assert words in done.stdout
    (verdict,) = (v for v in found["verdicts"] if v["faster"] == INT8)
    assert verdict["met"] == ("is not twice as fast" not in done.stdout)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["resmlp_s13"], ["resmlp_s12", "Received"]),
        (["resmlp_s12", "--forms", "int9"], ["int8", "Received: 'int9'"]),
        (["resmlp_s12", "--batch", "0"], ["--batch", "positive"]),
        (["resmlp_s12", "--rounds", "none"], ["--rounds", "positive"]),
        (["resmlp_s12", "--threads", "-1"], ["--threads", "positive"]),
        (["resmlp_s12", "--clock", "cpu"], ["one thread", "threads=2"]),
        (["resmlp_s12", "--set", "depth"], ["OPTION=VALUE", "'depth'"]),
        (["resmlp_s12", "--set", "widht=3"], ["width", "Received: 'widht'"]),
        (["resmlp_s12", "convmlp_s", "--image-size", "225"], ["224 or 240", "225"]),
        (["resmlp_s12", "--json", "/nowhere/x.json"], ["--json", "'/nowhere/x.json'"]),
        (["missing.keras"], ["does not exist", "missing.keras"]),
        (["."], ["run's folder", "Received"]),
        ([os.devnull], ["empty", os.devnull]),
        ([os.devnull, "--set", "depth=1"], ["--set", "architecture"]),
        ([], ["NAME|FILE"]),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # TensorFlow's threads are fixed once it has run, as it has in this process.
    monkeypatch.setattr("kmlp.benchmarking.measuring.use_threads", lambda threads: None)
    try:
        code = main.main(["benchmark", *argv])
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1)
    for word in words:
        assert word in captured.err


CONFIGURED = [
    "convmlp",
    "focal",
    "msmlp",
    "repmlpnet",
    "repmlpnet_partitioned",
    "resmlp",
    "smlpnet",
    "swin",
]


@pytest.mark.parametrize("case", CONFIGURED)
def test_the_pytorch_network_has_the_models_configuration(case, tmp_path):
    pytest.importorskip("torch")
    # The published code takes squares, and rounds down what no patch divides.
    square = case in ("resmlp", "smlpnet", "msmlp")
    size = {"input_shape": (64, 64, 3)} if square else {}
    model = cases.build(case, num_classes=7, **size)
    network = counterpart(model).eval()
    trainable = sum(parameter.numel() for parameter in network.parameters())
    assert trainable == kmlp.profile(model).trainable
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    kmlp.load_published(model, state)  # strict: every array, every variable
    images = cases.images(model)
    expected = cases.run(model, images, training=False)
    ways = {"torch"}
    if case == "resmlp":
        ways |= {"torch-onnx", "torch-openvino"} & set(_installed())
    for way in ways:
        found = RUNS[way](network, images, 1, tmp_path)()
        (found,) = found.values() if isinstance(found, dict) else [found]
        assert cases.relative_error(np.asarray(found), expected) < 1e-4


def _installed():
    for way, package in (("torch-onnx", "onnxruntime"), ("torch-openvino", "openvino")):
        if importlib.util.find_spec(package):
            yield way


@pytest.mark.parametrize(
    ("case", "received"),
    [
        ("resmlp_local", "local_kernels"),
        ("resmlp_batch_norm", "norm='batch'"),
        ("msmlp_mix_shift", "shifts"),
        ("repmlpnet_no_gate", "global_perceptron=False"),
    ],
)
def test_options_beyond_the_published_code_are_refused(case, received):
    with pytest.raises(ValueError, match=f"no such option. Received: {received}"):
        counterpart(cases.build(case))


def test_blocks_that_do_not_tile_the_image_are_refused():
    with pytest.raises(ValueError, match=r"whole blocks.*38x50, block_size=\(8, 8\)"):
        counterpart(cases.build("repmlpnet_padded"))


def test_kmlp_and_its_pytorch_package_import_without_pytorch():
    code = (
        "import sys\n"
        "import kmlp.benchmarking.form_benchmark, kmlp.pytorch.counterparts\n"
        "from kmlp import pytorch\n"
        "assert 'torch' not in sys.modules and len(pytorch.VARIANTS) == 27\n"
        "sys.modules['torch'] = None\n"
        "assert not pytorch.installed()\n"
        "try:\n    pytorch.build('resmlp_s12')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "pip install torch" in done.stdout
