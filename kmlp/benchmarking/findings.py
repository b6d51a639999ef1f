"""Findings of benchmarks of forms and of backends: figures, tables, files."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from kmlp.benchmarking.measuring import PEAK_SIZE, PEAKS, Timing, quartiles
from kmlp.console import table
from kmlp.errors import InputError
from kmlp.typing import Config, PathLike

# Form -> label in the tables.
FORMS = {
    "train": "train form, graph",
    "train-xla": "train form, XLA",
    "merged": "merged, graph",
    "merged-xla": "merged, XLA",
    "saved-model": "SavedModel",
    "float32": "TFLite float32",
    "float16": "TFLite float16",
    "dynamic": "TFLite dynamic",
    "int8": "TFLite int8",
    "saved-model-bfloat16": "SavedModel bfloat16",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-bfloat16": "OpenVINO bfloat16",
    "openvino-int8": "OpenVINO int8",
    "torch": "PyTorch",
    "torch-merged": "PyTorch, merged",
    "torch-compile": "PyTorch, compiled",
    "torch-onnx": "PyTorch's in ONNX Runtime",
    "torch-openvino": "PyTorch's in OpenVINO",
}
# The published network, whatever runs it.
ALTERNATIVES = tuple(form for form in FORMS if form.startswith("torch"))
# Forms that compute in another precision than float32.
LOW = {
    "dynamic": "int8",
    "int8": "int8",
    "saved-model-bfloat16": "bfloat16",
    "openvino-bfloat16": "bfloat16",
    "openvino-int8": "int8",
}
# Our forms of float32.
OURS = tuple(
    form
    for form in FORMS
    if form not in ALTERNATIVES and form not in LOW and not form.startswith("train")
)
# Faster form, slower form, and how much the first should gain.
COMPARISONS = (
    ("merged", "train", 1.0),
    ("merged-xla", "train-xla", 1.0),
    ("saved-model", "train", 1.0),
    ("int8", "float32", 2.0),
    ("merged", "torch", None),
    ("torch-merged", "torch", None),
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One form against another.

    Attributes:
        faster, slower: Labels of the forms, the first expected to be the faster.
        batch: Images per call.
        ratio: Ratio of their images per second, the median of the rounds' ratios.
        low, high: Quartiles of the rounds' ratios.
        bar: What the ratio should reach; `None`: it is only reported.
        clear: Whether the bar is to be passed beyond the spread.
    """

    faster: str
    slower: str
    batch: int
    ratio: float
    low: float
    high: float
    bar: float | None
    clear: bool = False

    @property
    def met(self) -> bool | None:
        """Return whether the bar is met; `None` without one.

        A form that must not be slower fails where the spread lies below the bar, one
        that must be clearly faster where it reaches down to it.
        """
        if self.bar is None:
            return None
        if self.clear:
            return self.low > self.bar
        return (self.high if self.bar == 1 else self.ratio) >= self.bar

    def __str__(self):
        bar = ""
        if self.bar is not None:
            wanted = "above 1" if self.clear else f"at least {self.bar:g}"
            bar = f"  {'met' if self.met else 'MISSED'}: {wanted}"
        return (
            f"{self.faster} / {self.slower}, batch {self.batch}: {self.ratio:.2f} "
            f"({self.low:.2f}-{self.high:.2f}){bar}"
        )


def verdicts(timings: Sequence[Timing], *, local: bool = False) -> tuple[Verdict, ...]:
    """Compare the forms that were timed in one run.

    Args:
        timings: Timings from `measure`, with their rounds.
        local: Whether local branches merge, which must show: the merged form is to be
            faster beyond the spread.
    """
    found = {(timing.name, timing.batch): timing for timing in timings}
    batches = dict.fromkeys(timing.batch for timing in timings)
    pairs = [
        (found.get((FORMS[faster], batch)), found.get((FORMS[slower], batch)), bar)
        for faster, slower, bar in COMPARISONS
        for batch in batches
    ]
    pairs += [
        (_best(found, OURS, batch), _best(found, ALTERNATIVES, batch), None)
        for batch in batches
    ]
    return tuple(
        Verdict(a.name, b.name, a.batch, *ratio(a, b), bar, local and bar == 1)
        for a, b, bar in dict.fromkeys(pairs)
        if a is not None and b is not None
    )


def _best(found, forms, batch):
    """Return the timing of the fastest of some forms, `None` where there is none."""
    timings = [found.get((FORMS[form], batch)) for form in forms]
    return max(
        filter(None, timings), key=lambda one: one.images_per_second, default=None
    )


def ratio(one: Timing, other: Timing) -> tuple[float, float, float]:
    """Return median and quartiles of two timings' ratios within a round."""
    ratios = [a / b for a, b in zip(one.rounds, other.rounds, strict=True)]
    return statistics.median(ratios), *quartiles(ratios)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The findings of a benchmark of a network's forms.

    Attributes:
        name: Name of the network.
        input_shape: Shape `(H, W, C)`.
        threads: Threads that everything ran on.
        clock: Clock whose seconds were counted, `"wall"` or `"cpu"`.
        timings: A `Timing` per form and batch, the matrix product first.
        verdicts: A `Verdict` per comparison and batch.
        reasons: Reasons `{batch: lines}` why int8 missed its bar, from the files.
        missing: Reasons `{label: reason}` for the forms that do not exist here.
        processor: Processor, from `measuring.processor`.
    """

    name: str
    input_shape: tuple[int, int, int]
    threads: int
    clock: str
    timings: tuple[Timing, ...]
    verdicts: tuple[Verdict, ...]
    reasons: dict[int, tuple[str, ...]]
    missing: dict[str, str]
    processor: str = ""

    def __str__(self):
        size = "x".join(map(str, self.input_shape[:2]))
        plural = "s" * (self.threads > 1)
        clock = ", CPU seconds" * (self.clock == "cpu")
        lines = [
            f"{self.name} at {size}, {self.threads} thread{plural}{clock}",
            *filter(None, [self.processor]),
            timings_table(self.timings),
            *_not_measured(self.missing),
        ]
        if self.verdicts:
            lines += ["", "ratios of images/s within a round: median (quartiles)"]
            lines += [f"  {verdict}" for verdict in self.verdicts]
        for batch, reasons in self.reasons.items():
            lines += ["", f"int8 at batch {batch} is not twice as fast as float32:"]
            lines += [f"  {reason}" for reason in reasons]
        return "\n".join(lines)

    def as_data(self) -> Config:
        """Return what JSON can hold."""
        met = [{**dataclasses.asdict(v), "met": v.met} for v in self.verdicts]
        return {**dataclasses.asdict(self), "verdicts": met}


def timings_table(timings: Iterable[Timing]) -> str:
    """Return timings as aligned text."""
    rows = []
    for timing in timings:
        if timing.name in PEAKS.values():
            gigaflops = 2 * PEAK_SIZE**3 * timing.images_per_second / 1e9
            speed = f"{gigaflops:.0f} G{'' if 'int8' in timing.name else 'FL'}OP/s"
            rows.append((f"{timing.name} {PEAK_SIZE}", "", speed, ""))
            continue
        share = "" if timing.share is None else f"{timing.share:.0%}"
        speed = f"{timing.images_per_second:.1f}"
        rows.append((timing.name, str(timing.batch), speed, share))
    return table(("", "batch", "images/s", "share of matmul"), rows)


def _not_measured(missing):
    """Return lines that name what is missing, and why."""
    lines = [f"  {what}: {why}" for what, why in missing.items()]
    return ["", "not measured:", *lines] if lines else []


KIND = "kmlp benchmark of backends"
HEADER = (
    *("network", "work", "backend", "XLA", "batch", "images/s", "quartiles"),
    *("share of peak", "peak memory (MB)", "parameters (M)"),
)
COLUMNS = (
    *("network", "image_height", "image_width", "work", "backend", "xla", "batch"),
    *("precision", "device", "images_per_second", "lower_quartile", "upper_quartile"),
    *("share_of_peak", "peak_memory_bytes", "parameters", "multiply_adds"),
    "first_call_seconds",
)


@dataclasses.dataclass(frozen=True)
class Speed:
    """A network's speed at one kind of work on one backend.

    Attributes:
        network: Name.
        image_size: Size `(height, width)`.
        work: Timed work: `"inference"` of the merged form or `"training"` of the train
            form.
        backend: Keras backend, `"tensorflow"`, `"jax"` or `"torch"`.
        xla: Whether XLA compiled it.
        batch: Images per call.
        rounds: Images per second of each round.
        share: Share of the multiply-adds per second that the best matrix product of
            any backend reached in the same round, the median of the rounds' ratios;
            training counts three times the multiply-adds of a forward pass; `None`
            where no product could be measured.
        memory: Bytes that it needs at its peak; `None`: not measured.
        parameters: Trainable parameters of the form that is timed.
        macs: Multiply-adds of that form for one image's forward pass.
        first_call_seconds: Seconds of the call that traces and compiles.
    """

    network: str
    image_size: tuple[int, int]
    work: str
    backend: str
    xla: bool
    batch: int
    rounds: tuple[float, ...]
    share: float | None
    memory: int | None
    parameters: int
    macs: int
    first_call_seconds: float

    @property
    def images_per_second(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile of the rounds."""
        return quartiles(self.rounds)


@dataclasses.dataclass(frozen=True)
class Findings:
    """The findings of a benchmark of backends.

    Attributes:
        device: Device, `"cpu"` or `"gpu"`.
        threads: Threads of the CPU.
        precision: Compute precision, `"float32"`, `"bfloat16"` or `"float16"`.
        backends: Backends `{backend: {"version", "keras", "device", "peak"}}`, the peak
            being the multiply-adds per second of its matrix product, the best round's.
        speeds: A `Speed` per network, work, batch, backend and XLA.
        missing: Reasons `{what: why}` for what could not be measured.
    """

    device: str
    threads: int
    precision: str
    backends: dict[str, dict]
    speeds: tuple[Speed, ...]
    missing: dict[str, str]

    def __str__(self):
        lines = [self.about(), table(HEADER, map(_cells, self.speeds))]
        return "\n".join([*lines, *_not_measured(self.missing)])

    def about(self) -> str:
        """Return what ran where, a line per backend."""
        lines = []
        for name, about in self.backends.items():
            peak = f": products at {2 * about['peak'] / 1e9:,.0f} GFLOP/s"
            lines.append(
                f"{name} {about['version']}, Keras {about['keras']}, "
                f"{about['device']}, {self.precision}" + peak * bool(about["peak"])
            )
        return "\n".join(lines)

    def rows(self) -> list[tuple]:
        """Return a row of raw values per speed, in the order of `COLUMNS`."""
        return [
            (s.network, *s.image_size, s.work, s.backend, "on" if s.xla else "off")
            + (s.batch, self.precision, self.backends[s.backend]["device"])
            + (s.images_per_second, *s.quartiles, s.share, s.memory)
            + (s.parameters, s.macs, s.first_call_seconds)
            for s in self.speeds
        ]

    def as_data(self) -> Config:
        """Return what JSON can hold."""
        return {"kind": KIND, **dataclasses.asdict(self)}


def _cells(speed):
    low, high = speed.quartiles
    memory = "" if speed.memory is None else f"{speed.memory / 1e6:,.0f}"
    return (
        *(speed.network, speed.work, speed.backend, "on" if speed.xla else "off"),
        *(speed.batch, f"{speed.images_per_second:.1f}", f"{low:.1f}-{high:.1f}"),
        "" if speed.share is None else f"{speed.share:.0%}",
        *(memory, f"{speed.parameters / 1e6:.2f}"),
    )


def from_data(data: Any) -> Findings | tuple[Benchmark, ...]:
    """Return the findings whose `as_data` a file holds, of forms one per network.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: If it is something else.
    """
    data = _with_tuples(data)
    if isinstance(data, dict) and data.pop("kind") == KIND:
        speeds = tuple(Speed(**speed) for speed in data["speeds"])
        if all(s.rounds and s.backend in data["backends"] for s in speeds):
            return Findings(**{**data, "speeds": speeds})
        raise ValueError("a speed without rounds or backend")
    if not isinstance(data, tuple) or not data:
        raise ValueError("something else")
    for one in data:
        for verdict in one["verdicts"]:
            del verdict["met"]
        one["verdicts"] = tuple(Verdict(**verdict) for verdict in one["verdicts"])
        one["timings"] = tuple(Timing(**timing) for timing in one["timings"])
        one["reasons"] = {int(batch): why for batch, why in one["reasons"].items()}
    return tuple(Benchmark(**one) for one in data)


def _with_tuples(value):
    """Return what JSON gave with tuples for its lists, as findings have them."""
    if isinstance(value, dict):
        return {key: _with_tuples(part) for key, part in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def read(path: PathLike) -> Findings | tuple[Benchmark, ...]:
    """Return what a benchmark's file holds.

    Returns:
        The findings of a benchmark of backends; or of one of forms a `Benchmark` per
        network.

    Raises:
        InputError: If it is no such file, or a damaged one.
        OSError: If it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return from_data(json.load(file))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "This is no file that `kmlp benchmark … --json FILE` has written, or a "
            f"damaged one. Received: {str(path)!r} ({type(error).__name__}: {error})"
        ) from error
