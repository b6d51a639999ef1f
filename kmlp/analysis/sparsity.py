"""How sparse linear layers are."""

import dataclasses
import gzip
import math
from pathlib import Path

import numpy as np

from kmlp.analysis.linear import KINDS, linear_layers


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """One linear layer.

    Attributes:
        name, kind: as in `kmlp.analysis.linear.LinearLayer`.
        size: number of weights.
        small: share of them below the threshold.
        zero: share of them that is zero.
    """

    name: str
    kind: str
    size: int
    small: float
    zero: float


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """The sparsity of all linear layers of a model.

    Attributes:
        threshold: share of a layer's largest weight below which weights are small.
        layers: a `LayerSparsity` each, in the model's order.
    """

    threshold: float
    layers: tuple[LayerSparsity, ...]

    def by_kind(self):
        """`{kind: LayerSparsity}` over all weights of a kind."""
        groups = {
            kind: [layer for layer in self.layers if layer.kind == kind]
            for kind in KINDS
        }
        return {kind: _total(kind, group) for kind, group in groups.items() if group}

    def __str__(self):
        header = ("layer", "kind", "weights", f"below {self.threshold:.0%}", "zero")
        total = _total("all", self.layers)
        rows = [*self.layers, *self.by_kind().values(), total]
        cells = [header] + [
            (row.name, row.kind, f"{row.size:,}", f"{row.small:.1%}", f"{row.zero:.1%}")
            for row in rows
        ]
        widths = [max(map(len, column)) for column in zip(*cells)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths))
            )
            for row in cells
        )


def sparsity(model, threshold=0.05):
    """The share of small weights in each linear layer of a model.

    Small is what lies below a share of the layer's largest magnitude. ResMLP's text
    and the appendix take 5 %, the caption of its Fig. 3 says 1 %. Positions are
    measured as they are mixed in inference: local branches count as part of the
    kernel that they merge into.

    Args:
        model: a built `keras.Model`, train form or merged.
        threshold: in (0, 1).

    Returns:
        A `Sparsity`; printed, a table.

    Raises:
        ValueError: a model without weights or linear layers, or another threshold.

    Reference: ResMLP (Touvron et al., 2021), Sect. 3.3, Figs. 3 and B.2.
    """
    if not 0 < threshold < 1:
        raise ValueError(
            f"`threshold` is a share in (0, 1). Received: threshold={threshold!r}"
        )
    rows = tuple(_measured(layer, threshold) for layer in linear_layers(model))
    if not rows:
        raise ValueError(f"There is no linear layer. Received: {model.name!r}")
    return Sparsity(threshold, rows)


def gzip_bytes(path):
    """Size of a file, compressed by gzip at its best."""
    return len(gzip.compress(Path(path).read_bytes(), compresslevel=9, mtime=0))


def _measured(linear, threshold):
    weights = np.abs(linear.matrix())
    return LayerSparsity(
        name=linear.name,
        kind=linear.kind,
        size=weights.size,
        small=float((weights < threshold * weights.max()).mean()),
        zero=float((weights == 0).mean()),
    )


def _total(kind, layers):
    size = sum(layer.size for layer in layers)

    def mean(field):
        return math.fsum(getattr(row, field) * row.size for row in layers) / size

    return LayerSparsity("total", kind, size, mean("small"), mean("zero"))
