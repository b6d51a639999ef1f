"""What a benchmark of backends found: figures, tables, files."""

import dataclasses
import json
import statistics

from kmlp.benchmarking.measuring import quartiles
from kmlp.console import table
from kmlp.errors import InputError

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
        network: its name.
        image_size: `(height, width)`.
        work: `"inference"`, of the merged form, or `"training"`, of the train form.
        backend: `"tensorflow"`, `"jax"` or `"torch"`.
        xla: whether XLA compiled it.
        batch: images per call.
        rounds: images per second of each round.
        share: of the multiply-adds per second that the best matrix product of any
            backend reached in the same round, the median of the rounds' ratios;
            training counts three times the multiply-adds of a forward pass; `None`
            where no product could be measured.
        memory: bytes that it needs at its peak; `None`: not measured.
        parameters: trainable ones of the form that is timed.
        macs: its multiply-adds for one image's forward pass.
        first_call_seconds: of the call that traces and compiles.
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
    def images_per_second(self):
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self):
        """Lower and upper quartile of the rounds."""
        return quartiles(self.rounds)


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a run found.

    Attributes:
        device: `"cpu"` or `"gpu"`.
        threads: of the CPU.
        precision: `"float32"`, `"bfloat16"` or `"float16"`.
        backends: `{backend: {"version", "keras", "device", "peak"}}`, the peak being
            the multiply-adds per second of its matrix product, the best round's.
        speeds: a `Speed` per network, work, batch, backend and XLA.
        missing: `{what: why}` of what could not be measured.
    """

    device: str
    threads: int
    precision: str
    backends: dict[str, dict]
    speeds: tuple[Speed, ...]
    missing: dict[str, str]

    def __str__(self):
        lines = [self.about(), table(HEADER, [_cells(s) for s in self.speeds])]
        if self.missing:
            lines += ["", "not measured:"]
            lines += [f"  {what}: {why}" for what, why in self.missing.items()]
        return "\n".join(lines)

    def about(self):
        """What ran where, a line per backend."""
        lines = []
        for name, about in self.backends.items():
            peak = f": products at {2 * about['peak'] / 1e9:,.0f} GFLOP/s"
            lines.append(
                f"{name} {about['version']}, Keras {about['keras']}, "
                f"{about['device']}, {self.precision}" + peak * bool(about["peak"])
            )
        return "\n".join(lines)

    def rows(self):
        """A row of raw values per speed, in the order of `COLUMNS`."""
        return [
            (s.network, *s.image_size, s.work, s.backend, "on" if s.xla else "off")
            + (s.batch, self.precision, self.backends[s.backend]["device"])
            + (s.images_per_second, *s.quartiles, s.share, s.memory)
            + (s.parameters, s.macs, s.first_call_seconds)
            for s in self.speeds
        ]

    def as_data(self):
        """What JSON can hold; `from_data` takes it."""
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


def from_data(data):
    """The `Findings` of what `as_data` gave.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    speeds = tuple(
        Speed(
            **{
                **speed,
                "image_size": tuple(speed["image_size"]),
                "rounds": tuple(map(float, speed["rounds"])),
            }
        )
        for speed in data["speeds"]
    )
    if not all(s.rounds and s.backend in data["backends"] for s in speeds):
        raise ValueError("a speed without rounds or backend")
    own = {name: v for name, v in data.items() if name not in ("kind", "speeds")}
    return Findings(**own, speeds=speeds)


def read(path):
    """What a benchmark's file holds.

    Returns:
        The `Findings` of a benchmark of backends; or of one of forms a tuple of
        `Benchmark`s, one per network.

    Raises:
        InputError: it is no such file, or a damaged one.
        OSError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        if isinstance(data, dict) and data["kind"] == KIND:
            return from_data(data)
        if isinstance(data, list) and data:
            from kmlp.benchmarking.form_benchmark import from_data as form_from_data

            return tuple(form_from_data(one) for one in data)
        raise ValueError("something else")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "This is no file that `kmlp benchmark … --json FILE` has written, or a "
            f"damaged one. Received: {str(path)!r} ({type(error).__name__}: {error})"
        ) from error
