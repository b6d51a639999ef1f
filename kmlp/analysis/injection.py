"""FC kernels before and after Locality Injection."""

import dataclasses
import functools

import numpy as np

from kmlp import algebra
from kmlp.analysis.spatial import check_share_set, spatial_kernels
from kmlp.console import aligned
from kmlp.errors import InputError
from kmlp.layers.layer import host

# The paper's: third stage, tenth block, (6, 6), counted from 0.
STAGE, BLOCK, POSITION = 3, 10, 6


@dataclasses.dataclass(frozen=True)
class KernelPair:
    """What one output position reads, without and with the local branches.

    Attributes:
        name: of the layer.
        share_set: index of the share-set.
        position: `(row, column)` of the output position, from 0.
        footprint: `(top, left, height, width)` of the largest branch's kernel around
            it, as far as it lies on the map.
        before, after: `(h, w)` weights.
        smallest: the smallest magnitude that is not zero in the whole matrix, of all
            share-sets and positions, before or after: one number for both, so that a
            weight that no branch reaches has the same logarithm in both.
    """

    name: str
    share_set: int
    position: tuple[int, int]
    footprint: tuple[int, int, int, int]
    before: np.ndarray
    after: np.ndarray
    smallest: float

    @property
    def log_before(self):
        """`log(|before| / smallest)`; NaN where a weight is zero."""
        return self._log(self.before)

    @property
    def log_after(self):
        """`log(|after| / smallest)`; NaN where a weight is zero."""
        return self._log(self.after)

    @property
    def inside_before(self):
        """Share of the sum of magnitudes that lies in the footprint, before."""
        return self._inside(self.before)

    @property
    def inside_after(self):
        """Share of the sum of magnitudes that lies in the footprint, after."""
        return self._inside(self.after)

    @property
    def reaching(self):
        """How many positions outside of the footprint weigh more than its least, after.

        The paper's dashed rectangles: what is far away still counts.
        """
        top, left, height, width = self.footprint
        magnitudes = np.abs(self.after)
        least = magnitudes[top : top + height, left : left + width].min()
        magnitudes[top : top + height, left : left + width] = 0
        return int((magnitudes > least).sum())

    def _log(self, weights):
        weights = np.where(weights == 0, np.nan, np.abs(weights))
        return np.log(weights / self.smallest)

    def _inside(self, weights):
        top, left, height, width = self.footprint
        part = weights[top : top + height, left : left + width]
        return _share(np.abs(part).sum(), np.abs(weights).sum())


class Injection:
    """A layer's FC kernels without and with its local branches.

    Before, the norm after the FC is folded into the kernel already: what is added then
    is exactly the branches, with theirs. That scales each share-set by one number, so
    a picture of the logarithm of the raw kernel is the same but for a constant.

    Args:
        kernel: a `SpatialKernel` with local branches.

    Attributes:
        before, after: `(S, h*w, h*w)` float64 arrays, output position first.
        footprint: `(kh, kw)`, height and width of the largest branches.

    Raises:
        InputError: the layer has no local branches.
    """

    def __init__(self, kernel):
        check_branches([kernel], kernel.name)
        self.kernel = kernel
        self.before = kernel.layer.equivalent_kernel(host, local=False)[0]
        self.after = kernel.layer.equivalent_kernel(host)[0]
        self.footprint = tuple(max(sizes) for sizes in zip(*kernel.branches))

    @functools.cached_property
    def smallest(self):
        """The smallest magnitude before or after that is not zero."""
        return min(_smallest(self.before), _smallest(self.after))

    def at(self, share_set, position):
        """A `KernelPair` of a share-set and an output position `(row, column)`.

        Raises:
            ValueError: no such share-set or position.
        """
        check_share_set(self.kernel, share_set)
        grid, position = self.kernel.grid, tuple(position)
        check_position(self.kernel, position)
        index = position[0] * grid[1] + position[1]
        return KernelPair(
            name=self.kernel.name,
            share_set=share_set,
            position=position,
            footprint=clipped(position, self.footprint, grid),
            before=self.before[share_set, index].reshape(grid),
            after=self.after[share_set, index].reshape(grid),
            smallest=self.smallest,
        )

    def inside(self):
        """Shares of the sum of all magnitudes that lie in the footprints.

        Returns:
            By chance (of equal weights), before and after.
        """
        ones = np.ones((*self.footprint, 1))
        mask = algebra.conv_to_fc(ones, self.kernel.grid)[0] > 0
        return (
            float(mask.mean()),
            *(
                _share(np.abs(kernel[:, mask]).sum(), np.abs(kernel).sum())
                for kernel in (self.before, self.after)
            ),
        )


def kernel_before_after(kernel, share_set=0, position=None):
    """What an output position reads before and after Locality Injection.

    Args:
        kernel: a `SpatialKernel`, from `injected_kernels(model)`.
        share_set: index of the share-set.
        position: `(row, column)` from 0; `None`: the paper's (6, 6) or the middle of a
            small map.

    Returns:
        A `KernelPair`; for several of a layer, `Injection(kernel).at(…)`.

    Raises:
        InputError: no local branches, or no such share-set or position.

    Reference: RepMLPNet (Ding et al., 2022), Appendix A, Fig. 3.
    """
    position = default_position(kernel.grid) if position is None else position
    return Injection(kernel).at(share_set, position)


def injected_kernels(model):
    """The `SpatialKernel`s of a model that have local branches.

    Raises:
        InputError: there are none.
    """
    return check_branches(spatial_kernels(model), model.name)


def check_branches(kernels, name):
    """Those of some kernels with local branches; `ValueError` without any."""
    found = [kernel for kernel in kernels if kernel.branches]
    if not found:
        raise InputError(
            "No local branches beside the FC kernels, so nothing is injected: they "
            "were trained without, or are merged already. It takes the train form of a "
            "network trained with such branches (`--local-kernels 1,3`); `kmlp plot "
            "rows` draws the kernels of any. "
            f"Received: {name!r}"
        )
    return found


def check_position(kernel, position):
    """Raises `ValueError` where a kernel has no such position."""
    height, width = kernel.grid
    row, column = position
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"{kernel.name} is over {times(kernel.grid)} positions: row 0 to "
            f"{height - 1}, column 0 to {width - 1}. Received: position={position}"
        )


def default_kernel(kernels):
    """The paper's, in the third stage the tenth block, or the next best.

    A stage is a run of blocks over the same grids. Where there are fewer stages or
    blocks, the last one is taken.
    """
    blocks, stages = {}, {}
    for kernel in kernels:
        blocks.setdefault(kernel.depth, []).append(kernel)
    for block in blocks.values():
        stages.setdefault(tuple(kernel.grid for kernel in block), []).append(block)
    stage = list(stages.values())[:STAGE][-1]
    return stage[:BLOCK][-1][0]


def default_position(grid):
    """The paper's (6, 6), or the middle along an axis of eight positions or less."""
    return tuple(POSITION if size > 8 else size // 2 for size in grid)


def clipped(position, size, grid):
    """`(top, left, height, width)` of a kernel around a position, within the grid."""
    starts = [max(p - s // 2, 0) for p, s in zip(position, size)]
    ends = [min(p + s // 2 + 1, g) for p, s, g in zip(position, size, grid)]
    return (*starts, *(end - start for start, end in zip(starts, ends)))


def _smallest(weights):
    magnitudes = np.abs(weights)
    return float(np.min(magnitudes, initial=np.inf, where=magnitudes > 0))


def _share(part, whole):
    return float(part / whole) if whole else 0.0


def times(size):
    """`3×5` of `(3, 5)`."""
    return "×".join(map(str, size))


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
