"""Measure how sparse linear layers are."""

import dataclasses
import gzip
import itertools
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.analysis.linear import KINDS, PARTS, linear_layers
from kmlp.console import aligned
from kmlp.errors import InputError
from kmlp.typing import PathLike

COLUMNS = ("depth", "layer", "kind", "part", "weights", "threshold", "below", "zero")


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """One linear layer, or the sum of several.

    Attributes:
        name, kind, part, depth: As in `kmlp.analysis.linear.LinearLayer`; of a sum the
            part is `""` and the depth `None` where they differ.
        size: Number of weights.
        small: Share of them below the threshold.
        zero: Share of them that is zero.
    """

    name: str
    kind: str
    size: int
    small: float
    zero: float
    part: str = ""
    depth: float | None = None

    @property
    def series(self) -> str:
        """Return the series it is drawn in: its kind and its layer of an MLP."""
        return f"{self.kind}, {self.part}" if self.part else self.kind


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """The sparsity of all linear layers of a model.

    Attributes:
        threshold: Share of a layer's largest weight below which weights are small.
        layers: Measured layers, in the model's order.
    """

    threshold: float
    layers: tuple[LayerSparsity, ...]

    def by_kind(self) -> dict[str, LayerSparsity]:
        """Return `{kind: LayerSparsity}` over all weights of a kind."""
        groups = {k: [row for row in self.layers if row.kind == k] for k in KINDS}
        return {kind: _total(group, kind) for kind, group in groups.items() if group}

    def by_depth(self) -> dict[str, tuple[LayerSparsity, ...]]:
        """Return `{series: (LayerSparsity, …)}`, one over a series at each depth.

        The series are kinds, those of MLPs told apart by their two layers, in the
        order of `KINDS` and `PARTS`.
        """
        found = {}
        for (kind, part), rows in self._groups().items():
            groups: dict[Any, list] = {d: [] for d in sorted({r.depth for r in rows})}
            for row in rows:
                groups[row.depth].append(row)
            totals = [_total(rows, kind, part, d) for d, rows in groups.items()]
            found[rows[0].series] = tuple(totals)
        return found

    def totals(self) -> list[LayerSparsity]:
        """Return one for each kind; where it has parts, these and then `"all"`."""
        found = []
        for kind, whole in self.by_kind().items():
            parts = {p: rows for (k, p), rows in self._groups().items() if k == kind}
            if len(parts) > 1:
                found += [_total(rows, kind, part) for part, rows in parts.items()]
                whole = dataclasses.replace(whole, part="all")
            found.append(whole)
        return found

    def _groups(self):
        """Return `{(kind, part): layers}`, in the order of `KINDS` and `PARTS`."""
        found = {key: [] for key in itertools.product(KINDS, ("", *PARTS))}
        for row in self.layers:
            found[row.kind, row.part].append(row)
        return {key: rows for key, rows in found.items() if rows}

    def rows(self) -> list[tuple]:
        """Return a tuple per layer, of what `COLUMNS` names; shares are in 0…1."""
        return [
            (f"{row.depth:g}", row.name, row.kind, row.part, row.size)
            + (self.threshold, row.small, row.zero)
            for row in self.layers
        ]

    def __str__(self):
        threshold = f"below {100 * self.threshold:g}%"
        header = ("layer", "kind", "depth", "weights", threshold, "zero")
        rows = [*self.layers, *self.totals(), _total(self.layers, "all")]
        cells = [
            (row.name, row.series, "" if row.depth is None else f"{row.depth:g}")
            + (f"{row.size:,}", f"{row.small:.1%}", f"{row.zero:.1%}")
            for row in rows
        ]
        return aligned([header, *cells], left=2)


def sparsity(model: keras.Model, threshold: float = 0.05) -> Sparsity:
    """Measure the share of small weights in each linear layer of a model.

    Small is what lies below a share of the layer's largest magnitude. ResMLP's text
    and the appendix take 5 %, the caption of its Fig. 3 says 1 %. Positions are
    measured as they are mixed in inference: local branches count as part of the
    kernel that they merge into.

    Args:
        model: Built `keras.Model`, train form or merged.
        threshold: Share in (0, 1).

    Returns:
        A `Sparsity`; printed, a table. The paper's matrix A is of the kind `"patch
        mixing"`, B and C are the two layers of the kind `"channel"`: expansion and
        projection.

    Raises:
        InputError: If the model has no weights or no linear layers, or `threshold` is
            out of range.

    Reference: ResMLP (Touvron et al., 2021), Sect. 3.3, Figs. 3 and B.2.
    """
    if not 0 < threshold < 1:
        raise InputError(
            f"`threshold` is a share in (0, 1). Received: threshold={threshold!r}"
        )
    rows = tuple(_measured(layer, threshold) for layer in linear_layers(model))
    if not rows:
        raise InputError(f"There is no linear layer. Received: {model.name!r}")
    return Sparsity(threshold, rows)


def gzip_bytes(path: PathLike) -> int:
    """Return the size of a file, compressed by gzip at its best."""
    return len(gzip.compress(Path(path).read_bytes(), compresslevel=9, mtime=0))


def _measured(linear, threshold):
    weights = np.abs(linear.matrix())
    zeros = weights == 0
    return LayerSparsity(
        name=linear.name,
        kind=linear.kind,
        size=weights.size,
        # A layer of zeros alone has no weight below its largest.
        small=float(((weights < threshold * weights.max()) | zeros).mean()),
        zero=float(zeros.mean()),
        part=linear.part,
        depth=linear.depth,
    )


def _total(layers, kind, part="", depth=None):
    size = sum(layer.size for layer in layers)

    def _mean(field):
        return math.fsum(getattr(row, field) * row.size for row in layers) / size

    shares = _mean("small"), _mean("zero")
    return LayerSparsity("total", kind, size, *shares, part=part, depth=depth)
