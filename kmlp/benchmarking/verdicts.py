"""What one run says about the forms: ratios of speeds within a round."""

import dataclasses
import statistics

from kmlp.benchmarking.network_forms import FORMS

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
        faster, slower: labels of the forms, the first expected to be the faster.
        batch: images per call.
        ratio: of their images per second, median of the rounds' ratios.
        low, high: the quartiles of these.
        bar: what the ratio should reach; `None`: it is only reported.
        clear: whether the bar is to be passed beyond the spread.
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
    def met(self):
        """Whether the bar is met; `None` without one.

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


def verdicts(timings, *, local=False):
    """Compares the forms that were timed in one run.

    Args:
        timings: from `measure`, with their rounds.
        local: whether local branches merge, which must show: the merged form is to be
            faster beyond the spread.

    Returns:
        A tuple of `Verdict`.
    """
    found = {(timing.name, timing.batch): timing for timing in timings}
    batches = dict.fromkeys(timing.batch for timing in timings)
    pairs = [
        (FORMS[faster], FORMS[slower], bar, local and bar == 1)
        for faster, slower, bar in COMPARISONS
    ]
    return tuple(
        Verdict(
            faster,
            slower,
            batch,
            *ratio(found[faster, batch], found[slower, batch]),
            bar,
            clear,
        )
        for faster, slower, bar, clear in pairs
        for batch in batches
        if (faster, batch) in found and (slower, batch) in found
    )


def ratio(one, other):
    """Median and quartiles of two timings' ratios within a round."""
    ratios = [a / b for a, b in zip(one.rounds, other.rounds, strict=True)]
    if len(ratios) == 1:
        return (ratios[0],) * 3
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return median, low, high
