"""All forms of one network in one run, and what follows from it."""

import tempfile
from collections.abc import Callable, Sequence

import keras
import numpy as np

from kmlp.benchmarking.findings import FORMS, Benchmark, verdicts
from kmlp.benchmarking.int8_reasons import why_not_twice
from kmlp.benchmarking.measuring import CLOCKS, matmul_peak, measure
from kmlp.benchmarking.network_forms import Network
from kmlp.console import first_line, quiet
from kmlp.errors import InputError


def benchmark(
    model: keras.Model,
    *,
    name: str | None = None,
    forms: Sequence[str] = tuple(FORMS),
    batches: Sequence[int] = (1, 8),
    rounds: int = 10,
    threads: int = 2,
    clock: str = "wall",
    input_shape: Sequence[int] | None = None,
    progress: Callable[[str], object] | None = None,
) -> Benchmark:
    """Time a network in all its forms.

    Args:
        model: Model in its train form. Variables that are all zero, as fresh biases
            are, are filled: graph optimisers remove what adds nothing.
        name: Name in the report; `None`: the model's.
        forms: Names from `FORMS`.
        batches: Batch sizes.
        rounds: Interleaved rounds.
        threads: Threads of the TFLite interpreter and of PyTorch; TensorFlow's are set
            by `use_threads`.
        clock: `"wall"`, or on a machine that others use `"cpu"`, for one thread.
        input_shape: `(H, W, C)`, for models of unknown height and width.
        progress: Function that is called with a line about what is being done, an
            empty one at the end; or `None`.

    Raises:
        ImportError: If Keras is not on TensorFlow.
        InputError: If none of the forms exists of this network, or for another clock.
    """
    check_clock(clock, threads)
    import kmlp.export  # noqa: F401, says what it needs

    say = progress or (lambda line: None)
    _fill_zeros(model)
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
                lambda number: say(f"round {number} of {rounds}"),
                CLOCKS[clock],
            )
            found = verdicts(timings, local=_has_local_branches(model))
            reasons = {
                v.batch: why_not_twice(
                    [network.tflite_file(f, v.batch) for f in ("float32", "int8")],
                    threads,
                    CLOCKS[clock],
                )
                for v in found
                if v.faster == FORMS["int8"] and not v.met
            }
    say("")
    return Benchmark(
        name=name or model.name,
        input_shape=network.input_shape,
        threads=threads,
        clock=clock,
        timings=tuple(timings),
        verdicts=found,
        reasons=reasons,
        missing=missing,
    )


def check_clock(clock: str, threads: int) -> None:
    """Raise `InputError` where a clock does not tell the speed of the threads."""
    if clock not in CLOCKS or (clock == "cpu" and threads != 1):
        raise InputError(
            "The clock is 'wall', or 'cpu' for one thread, as threads that wait for "
            f"each other use CPU too. Received: {clock!r}, threads={threads}"
        )


def _has_local_branches(model):
    """Return whether merging puts convolutions into fully connected layers."""
    return any(getattr(layer, "local_kernels", None) for layer in model.layers)


def _fill_zeros(model):
    """Give random values to trainable variables that are all zero."""
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if not np.any(np.asarray(weight)):
            weight.assign(generator.normal(0, 0.02, weight.shape))
