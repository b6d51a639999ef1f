"""How sparse linear layers are."""

import dataclasses
import gzip
import math
from pathlib import Path

import numpy as np

from kmlp.analysis.linear import KINDS, PARTS, linear_layers
from kmlp.console import aligned
from kmlp.errors import InputError

COLUMNS = ("depth", "layer", "kind", "part", "weights", "threshold", "below", "zero")


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """One linear layer, or the sum of several.

    Attributes:
        name, kind, part, depth: as in `kmlp.analysis.linear.LinearLayer`; of a sum the
            part is `""` and the depth `None` where they differ.
        size: number of weights.
        small: share of them below the threshold.
        zero: share of them that is zero.
    """

    name: str
    kind: str
    size: int
    small: float
    zero: float
    part: str = ""
    depth: float | None = None

    @property
    def series(self):
        """What it is drawn with: its kind, and which layer of an MLP it is."""
        return f"{self.kind}, {self.part}" if self.part else self.kind


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
        return {kind: _total(group, kind) for kind, group in groups.items() if group}

    def by_depth(self):
        """`{series: (LayerSparsity, …)}`, one over all of a series at each depth.

        The series are kinds, those of MLPs told apart by their two layers, in the
        order of `KINDS` and `PARTS`.
        """
        return {
            self.layers_of(kind, part)[0].series: tuple(
                _total(group, kind, part, depth)
                for depth, group in _grouped(self.layers_of(kind, part))
            )
            for kind in KINDS
            for part in ("", *PARTS)
            if self.layers_of(kind, part)
        }

    def totals(self):
        """A `LayerSparsity` per kind; where it has parts, these and then `"all"`."""
        kinds, found = self.by_kind(), []
        for kind, whole in kinds.items():
            parts = [self.layers_of(kind, part) for part in ("", *PARTS)]
            parts = [part for part in parts if part]
            if len(parts) > 1:
                found += [_total(part, kind, part[0].part) for part in parts]
                whole = dataclasses.replace(whole, part="all")
            found.append(whole)
        return found

    def layers_of(self, kind, part):
        """The layers of a kind that are that part of an MLP, `""` for no part."""
        return [row for row in self.layers if (row.kind, row.part) == (kind, part)]

    def rows(self):
        """A tuple per layer, of what `COLUMNS` names; shares are in 0…1."""
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
        A `Sparsity`; printed, a table. The paper's matrix A is of the kind `"patch
        mixing"`, B and C are the two layers of the kind `"channel"`: expansion and
        projection.

    Raises:
        InputError: a model without weights or linear layers, or another threshold.

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


def gzip_bytes(path):
    """Size of a file, compressed by gzip at its best."""
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


def _grouped(layers):
    """`(depth, layers)` by rising depth."""
    depths = sorted({layer.depth for layer in layers})
    return [(d, [layer for layer in layers if layer.depth == d]) for d in depths]


def _total(layers, kind, part="", depth=None):
    size = sum(layer.size for layer in layers)

    def mean(field):
        return math.fsum(getattr(row, field) * row.size for row in layers) / size

    shares = mean("small"), mean("zero")
    return LayerSparsity("total", kind, size, *shares, part=part, depth=depth)
