"""All forms of one network in one run, and what follows from it."""

import dataclasses
import tempfile

import numpy as np

from kmlp.benchmarking.measuring import (
    CLOCKS,
    PEAK,
    PEAK_SIZE,
    Timing,
    matmul_peak,
    measure,
)
from kmlp.benchmarking.network_forms import FORMS, Network
from kmlp.benchmarking.verdicts import Verdict, verdicts, why_not_twice
from kmlp.console import aligned, first_line, quiet
from kmlp.errors import InputError


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What a run found.

    Attributes:
        name: of the network.
        input_shape: `(H, W, C)`.
        threads: that everything ran on.
        clock: whose seconds were counted, `"wall"` or `"cpu"`.
        timings: a `Timing` per form and batch, the matrix product first.
        verdicts: a `Verdict` per comparison and batch.
        reasons: `{batch: lines}` where int8 missed its bar, from the files.
        missing: `{label: reason}` of the forms that do not exist here.
    """

    name: str
    input_shape: tuple[int, int, int]
    threads: int
    clock: str
    timings: tuple[Timing, ...]
    verdicts: tuple[Verdict, ...]
    reasons: dict[int, tuple[str, ...]]
    missing: dict[str, str]


def benchmark(
    model,
    *,
    name=None,
    forms=tuple(FORMS),
    batches=(1, 8),
    rounds=10,
    threads=2,
    clock="wall",
    input_shape=None,
    progress=None,
):
    """Times a network in all its forms.

    Args:
        model: a `keras.Model` in its train form. Variables that are all zero, as
            fresh biases are, are filled: graph optimisers remove what adds nothing.
        name: in the report; `None`: the model's.
        forms: names from `FORMS`.
        batches: batch sizes.
        rounds: interleaved rounds.
        threads: of the TFLite interpreter and of PyTorch; TensorFlow's are set by
            `use_threads`.
        clock: `"wall"`, or on a machine that others use `"cpu"`, for one thread.
        input_shape: `(H, W, C)`, for models of unknown height and width.
        progress: called with a line about what is being done, an empty one at the
            end; or `None`.

    Returns:
        A `Benchmark`.

    Raises:
        ImportError: Keras is not on TensorFlow.
        InputError: none of the forms exists of this network, or another clock.
    """
    check_clock(clock, threads)
    import kmlp.export  # noqa: F401, says what it needs

    say = progress or (lambda line: None)
    fill_zeros(model)
    with tempfile.TemporaryDirectory() as folder:
        network = Network(model, folder, threads, input_shape)
        contenders, missing = [], {}
        for form in forms:
            for batch in batches:
                say(f"making {FORMS[form]}, batch {batch}")
                try:
                    with quiet():
                        contenders.append(network.contender(form, batch))
                except (ImportError, ValueError, RuntimeError) as error:
                    missing[FORMS[form]] = first_line(error)
                    break
        if not contenders:
            raise InputError(
                "None of the forms exists of this network: "
                + "; ".join(f"{form}: {reason}" for form, reason in missing.items())
            )
        with quiet():  # XLA and the delegates announce themselves
            timings = measure(
                [matmul_peak(), *contenders],
                rounds,
                lambda turn: say(f"round {turn} of {rounds}"),
                CLOCKS[clock],
            )
            found = verdicts(timings, local=has_local_branches(network))
            reasons = {
                v.batch: why_not_twice(
                    network.tflite_file("float32", v.batch),
                    network.tflite_file("int8", v.batch),
                    threads,
                    CLOCKS[clock],
                )
                for v in found
                if v.faster == FORMS["int8"] and not v.met
            }
    say("")
    shape = network.input_shape
    return Benchmark(
        name or model.name,
        shape,
        threads,
        clock,
        tuple(timings),
        found,
        reasons,
        missing,
    )


def check_clock(clock, threads):
    """Raises `ValueError` where a clock does not tell the speed of the threads."""
    if clock not in CLOCKS or (clock == "cpu" and threads != 1):
        raise InputError(
            "The clock is 'wall', or 'cpu' for one thread, as threads that wait for "
            f"each other use CPU too. Received: {clock!r}, threads={threads}"
        )


def has_local_branches(network):
    """Whether merging puts convolutions into fully connected layers."""
    return any(getattr(layer, "local_kernels", None) for layer in network.model.layers)


def fill_zeros(model):
    """Random values for trainable variables that are all zero."""
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if not np.any(np.asarray(weight)):
            weight.assign(generator.normal(0, 0.02, weight.shape))


def report(found):
    """The table of a `Benchmark`, the verdicts and the reasons below it."""
    size = "x".join(map(str, found.input_shape[:2]))
    plural = "s" * (found.threads > 1)
    clock = ", CPU seconds" * (found.clock == "cpu")
    lines = [
        f"{found.name} at {size}, {found.threads} thread{plural}{clock}",
        table(found.timings),
    ]
    if found.missing:
        lines += ["", "not measured:"]
        lines += [f"  {form}: {reason}" for form, reason in found.missing.items()]
    if found.verdicts:
        lines += ["", "ratios of images/s within a round: median (quartiles)"]
        lines += [f"  {verdict}" for verdict in found.verdicts]
    for batch, reasons in found.reasons.items():
        lines += ["", f"int8 at batch {batch} is not twice as fast as float32:"]
        lines += [f"  {reason}" for reason in reasons]
    return "\n".join(lines)


def table(timings):
    """Timings as aligned text."""
    rows = [("", "batch", "images/s", "share of matmul")]
    for timing in timings:
        if timing.name == PEAK:
            gigaflops = 2 * PEAK_SIZE**3 * timing.images_per_second / 1e9
            rows.append((f"{PEAK} {PEAK_SIZE}", "", f"{gigaflops:.0f} GFLOP/s", ""))
            continue
        share = "" if timing.share is None else f"{timing.share:.0%}"
        speed = f"{timing.images_per_second:.1f}"
        rows.append((timing.name, str(timing.batch), speed, share))
    return aligned(rows)


def as_data(found):
    """A `Benchmark` as what JSON can hold."""
    return {
        "name": found.name,
        "input_shape": list(found.input_shape),
        "threads": found.threads,
        "clock": found.clock,
        "timings": [vars(timing) for timing in found.timings],
        "verdicts": [{**vars(v), "met": v.met} for v in found.verdicts],
        "reasons": found.reasons,
        "missing": found.missing,
    }


def from_data(data):
    """The `Benchmark` of what `as_data` gave.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is something else.
    """
    timings = tuple(
        Timing(**{**t, "rounds": tuple(t["rounds"])}) for t in data["timings"]
    )
    verdicts = [{k: x for k, x in v.items() if k != "met"} for v in data["verdicts"]]
    return Benchmark(
        **{
            **data,
            "input_shape": tuple(data["input_shape"]),
            "timings": timings,
            "verdicts": tuple(Verdict(**verdict) for verdict in verdicts),
            "reasons": {int(b): tuple(lines) for b, lines in data["reasons"].items()},
        }
    )
