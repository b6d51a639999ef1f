"""Relate accuracy to what it costs, as papers report it and as it is counted here."""

import dataclasses
import gc
from collections.abc import Iterable, Iterator

from kmlp.analysis.complexity import profile, shapes_only
from kmlp.errors import InputError
from kmlp.models.papers import Row, reported
from kmlp.models.registry import create_model


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """Percent of top-1 for each unit of cost.

    Attributes:
        per_gmac: Percent for a billion multiply-adds.
        per_mparam: Percent for a million parameters.

    Reference: ConvMLP, Table 3 (Acc/GMACs, Acc/MParams).
    """

    per_gmac: float
    per_mparam: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network and the accuracy that it reaches.

    Attributes:
        name: Name of an architecture, an ablation or a run.
        image_size: Size `(height, width)` that it is counted at.
        parameters: Number of trainable ones.
        macs: Multiply-adds for one image.
        activations: Values that linear maps and convolutions put out for one image;
            `None` where they are not counted.
        top1: Percent, or `None`.
        data: What `top1` is on.
        reported: What the paper prints, or `None`.
    """

    name: str
    image_size: tuple[int, int]
    parameters: int
    macs: int
    activations: int | None
    top1: float | None
    data: str
    reported: Row | None = None

    @property
    def efficiency(self) -> Efficiency | None:
        """Return top-1 per counted cost, an `Efficiency`; `None` without top-1."""
        if self.top1 is None:
            return None
        return efficiency(self.top1, self.macs, self.parameters)

    @property
    def reported_efficiency(self) -> Efficiency | None:
        """Return the `Efficiency` by the paper's rounded figures, or `None`."""
        row = self.reported
        if self.top1 is None or not (row and row.macs and row.parameters):
            return None
        return efficiency(self.top1, float(row.macs) * 1e9, float(row.parameters) * 1e6)


def efficiency(top1: float, macs: float, parameters: float) -> Efficiency:
    """Return top-1 for each billion multiply-adds and for each million parameters.

    Args:
        top1: Percent.
        macs: Number of multiply-adds.
        parameters: Number of parameters.

    Raises:
        InputError: If there is nothing to divide by.
    """
    if not (macs > 0 and parameters > 0):
        raise InputError(
            "A network without multiply-adds or without parameters has no efficiency. "
            f"Received: macs={macs}, parameters={parameters}"
        )
    return Efficiency(top1 / (macs / 1e9), top1 / (parameters / 1e6))


def cost(name: str) -> Cost:
    """Count an architecture in its train form, beside what its paper prints.

    Args:
        name: Name of `kmlp.list_models()` or `kmlp.list_ablations()`.

    Raises:
        InputError: If the name is unknown; the message has the nearest.
    """
    # Costs need shapes only; drawing weights would take most of the time.
    with shapes_only():
        model = create_model(name)
        counted, row = profile(model), reported(name)
    return Cost(
        name=name,
        image_size=tuple(model.inputs[0].shape[1:3]),
        parameters=counted.trainable,
        macs=counted.macs,
        activations=counted.activations,
        top1=row.top1 if row else None,
        data=row.data if row else "",
        reported=row,
    )


def costs(names: Iterable[str]) -> Iterator[Cost]:
    """Count architectures one after another, each as `cost` does.

    Args:
        names: Names of `kmlp.list_models()` or `kmlp.list_ablations()`.

    Yields:
        A `Cost` for each.
    """
    for name in names:
        # A network is many objects in cycles: searching them for garbage while they
        # grow takes a third of the time. Once it is counted, all of them go.
        searched = gc.isenabled()
        gc.disable()
        try:
            one = cost(name)
            gc.collect(0)
        finally:
            if searched:
                gc.enable()
        yield one
