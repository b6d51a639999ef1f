"""How much of an FC kernel's weight lies where its local branches are."""

import dataclasses

from kmlp.analysis.injection import Injection, injected_kernels, times
from kmlp.console import aligned

COLUMNS = (
    *("depth", "layer", "height", "width", "share_sets"),
    *("footprint_height", "footprint_width"),
    *("inside_by_chance", "inside_before", "inside_after"),
)


@dataclasses.dataclass(frozen=True)
class LayerLocality:
    """How much of a layer's FC kernels lies where its local branches are.

    Attributes:
        name, depth: of the layer.
        grid: `(h, w)` of its positions.
        share_sets: number of kernels.
        footprint: `(kh, kw)` of the largest branches.
        chance: share of a matrix that the footprints cover.
        before, after: share of the sum of magnitudes in them.
    """

    name: str
    depth: float
    grid: tuple[int, int]
    share_sets: int
    footprint: tuple[int, int]
    chance: float
    before: float
    after: float


@dataclasses.dataclass(frozen=True)
class Locality:
    """All layers with local branches, in the model's order; printed, a table."""

    layers: tuple[LayerLocality, ...]

    def rows(self):
        """A tuple per layer, of what `COLUMNS` names; shares are in 0…1."""
        return [
            (f"{row.depth:g}", row.name, *row.grid, row.share_sets, *row.footprint)
            + (row.chance, row.before, row.after)
            for row in self.layers
        ]

    def __str__(self):
        header = ("layer", "depth", "grid", "share-sets", "footprint")
        header += ("by chance", "before", "after")
        rows = [
            (row.name, f"{row.depth:g}", times(row.grid), str(row.share_sets))
            + (times(row.footprint),)
            + tuple(f"{s:.1%}" for s in (row.chance, row.before, row.after))
            for row in self.layers
        ]
        return aligned([header, *rows])


def locality(model):
    """The share of the FC kernels' weight in the footprints of the local branches.

    Args:
        model: a built `keras.Model` in train form.

    Returns:
        A `Locality`.

    Raises:
        InputError: no kernels over positions, or no local branches beside them.
    """
    return Locality(tuple(map(_measured, injected_kernels(model))))


def _measured(kernel):
    injection = Injection(kernel)
    place = kernel.name, kernel.depth, kernel.grid, kernel.share_sets
    return LayerLocality(*place, injection.footprint, *injection.inside())
