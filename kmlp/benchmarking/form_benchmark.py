"""All forms of one network in one run, and what follows from it."""

import dataclasses
import tempfile

import numpy as np

from kmlp.benchmarking.measuring import CLOCKS, Timing, matmul_peak, measure
from kmlp.benchmarking.network_forms import FORMS, Network
from kmlp.benchmarking.reasons import why_not_twice
from kmlp.benchmarking.verdicts import Verdict, verdicts
from kmlp.console import first_line
from kmlp.errors import InputError
from kmlp.quiet import quiet


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
