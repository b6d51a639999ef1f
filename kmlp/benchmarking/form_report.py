"""What a benchmark found, as text."""

from kmlp.benchmarking.form_benchmark import Benchmark
from kmlp.benchmarking.measuring import PEAK, PEAK_SIZE, Timing
from kmlp.benchmarking.verdicts import Verdict
from kmlp.console import aligned


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
