"""Compare FC kernels before and after Locality Injection."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from kmlp import algebra
from kmlp.analysis.spatial import SpatialKernel, check_share_set, spatial_kernels
from kmlp.console import aligned
from kmlp.errors import InputError
from kmlp.layers.layer import host

# The paper's: third stage, tenth block, (6, 6), counted from 0.
STAGE, BLOCK, POSITION = 3, 10, 6


@dataclasses.dataclass(frozen=True)
class KernelPair:
    """Weights that one output position reads by, without and with the local branches.

    Attributes:
        name: Name of the layer.
        share_set: Index of the share-set.
        position: Output position `(row, column)`, from 0.
        footprint: Place `(top, left, height, width)` of the largest branch's kernel
            around it, as far as it lies on the map.
        before, after: Weights `(h, w)`.
        smallest: Smallest magnitude that is not zero in the whole matrix, of all
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
    def log_before(self) -> np.ndarray:
        """Return `log(|before| / smallest)`; NaN where a weight is zero."""
        return self._log(self.before)

    @property
    def log_after(self) -> np.ndarray:
        """Return `log(|after| / smallest)`; NaN where a weight is zero."""
        return self._log(self.after)

    @property
    def inside_before(self) -> float:
        """Share of the sum of magnitudes that lies in the footprint, before."""
        return self._inside(self.before)

    @property
    def inside_after(self) -> float:
        """Share of the sum of magnitudes that lies in the footprint, after."""
        return self._inside(self.after)

    @property
    def reaching(self) -> int:
        """Count the positions outside the footprint that outweigh its least one, after.

        The paper's dashed rectangles: what is far away still counts.
        """
        magnitudes = np.abs(self.after)
        least = magnitudes[self._footprint].min()
        magnitudes[self._footprint] = 0
        return int((magnitudes > least).sum())

    @property
    def _footprint(self):
        top, left, height, width = self.footprint
        return slice(top, top + height), slice(left, left + width)

    def _log(self, weights):
        weights = np.where(weights == 0, np.nan, np.abs(weights))
        return np.log(weights / self.smallest)

    def _inside(self, weights):
        magnitudes = np.abs(weights)
        return _share(magnitudes[self._footprint].sum(), magnitudes.sum())


class Injection:
    """A layer's FC kernels without and with its local branches.

    Before, the norm after the FC is folded into the kernel already: what is added then
    is exactly the branches, with theirs. That scales each share-set by one number, so
    a picture of the logarithm of the raw kernel is the same but for a constant.

    Args:
        kernel: Kernel with local branches.

    Attributes:
        before, after: Kernels `(S, h*w, h*w)`, float64, output position first.
        footprint: Size `(kh, kw)`: height and width of the largest branches.

    Raises:
        InputError: If the layer has no local branches.
    """

    def __init__(self, kernel: SpatialKernel):
        check_branches([kernel], kernel.name)
        self.kernel = kernel
        self.before = kernel.layer.equivalent_kernel(host, local=False)[0]
        self.after = kernel.layer.equivalent_kernel(host)[0]
        self.footprint = tuple(max(sizes) for sizes in zip(*kernel.branches))

    @functools.cached_property
    def smallest(self) -> float:
        """Return the smallest nonzero magnitude before or after."""
        magnitudes = np.abs([self.before, self.after])
        return float(np.min(magnitudes, initial=np.inf, where=magnitudes > 0))

    def at(self, share_set: int, position: Sequence[int]) -> KernelPair:
        """Return the pair of a share-set and an output position `(row, column)`.

        Raises:
            InputError: If there is no such share-set or position.
        """
        check_share_set(self.kernel, share_set)
        (height, width), (row, column) = grid, position = self.kernel.grid, position
        if not (0 <= row < height and 0 <= column < width):
            raise InputError(
                f"{self.kernel.name} is over {times(grid)} positions: row 0 to "
                f"{height - 1}, column 0 to {width - 1}. "
                f"Received: position={tuple(position)}"
            )
        index = row * width + column
        return KernelPair(
            name=self.kernel.name,
            share_set=share_set,
            position=(row, column),
            footprint=clipped((row, column), self.footprint, grid),
            before=self.before[share_set, index].reshape(grid),
            after=self.after[share_set, index].reshape(grid),
            smallest=self.smallest,
        )

    def inside(self) -> tuple[float, float, float]:
        """Return the shares of all magnitudes' sum that lie in the footprints.

        Returns:
            By chance (of equal weights), before and after.
        """
        ones = np.ones((*self.footprint, 1))
        mask = algebra.conv_to_fc(ones, self.kernel.grid)[0] > 0
        before, after = (
            _share(np.abs(kernel[:, mask]).sum(), np.abs(kernel).sum())
            for kernel in (self.before, self.after)
        )
        return float(mask.mean()), before, after


def kernel_before_after(
    kernel: SpatialKernel, share_set: int = 0, position: Sequence[int] | None = None
) -> KernelPair:
    """Return what an output position reads before and after Locality Injection.

    Args:
        kernel: Kernel with local branches, from `injected_kernels(model)`.
        share_set: Index of the share-set.
        position: Output position `(row, column)` from 0; `None` for the paper's (6, 6)
            or the middle of a small map.

    Returns:
        A `KernelPair`; for several of a layer, `Injection(kernel).at(…)`.

    Raises:
        InputError: If there are no local branches, or no such share-set or position.

    Reference: RepMLPNet (Ding et al., 2022), Appendix A, Fig. 3.
    """
    position = default_position(kernel.grid) if position is None else position
    return Injection(kernel).at(share_set, position)


def injected_kernels(model: keras.Model) -> list[SpatialKernel]:
    """Return the kernels of a model that have local branches.

    Raises:
        InputError: If there are none.
    """
    return check_branches(spatial_kernels(model), model.name)


def check_branches(kernels: Iterable[SpatialKernel], name: str) -> list[SpatialKernel]:
    """Return those of some kernels with local branches.

    Raises:
        InputError: If there are none; `name` says of what.
    """
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


def default_kernel(kernels: Iterable[SpatialKernel]) -> SpatialKernel:
    """Return the paper's kernel, in the third stage the tenth block, or the next best.

    A stage is a run of blocks over the same grids. Where there are fewer stages or
    blocks, the last one is taken.
    """
    blocks: dict[float, list[SpatialKernel]] = {}
    stages: dict[tuple, list[SpatialKernel]] = {}
    for kernel in kernels:
        blocks.setdefault(kernel.depth, []).append(kernel)
    for block in blocks.values():
        grids = tuple(kernel.grid for kernel in block)
        stages.setdefault(grids, []).append(block[0])
    return list(stages.values())[:STAGE][-1][:BLOCK][-1]


def default_position(grid: Sequence[int]) -> tuple[int, ...]:
    """Return the paper's (6, 6), or the middle of an axis of up to eight positions."""
    return tuple(POSITION if size > 8 else size // 2 for size in grid)


def clipped(
    position: Sequence[int], size: Sequence[int], grid: Sequence[int]
) -> tuple[int, int, int, int]:
    """Return `(top, left, height, width)` of a kernel around a position of a grid."""
    top, left = (max(p - s // 2, 0) for p, s in zip(position, size))
    bottom, right = (min(p + s // 2 + 1, g) for p, s, g in zip(position, size, grid))
    return top, left, bottom - top, right - left


def _share(part, whole):
    return float(part / whole) if whole else 0.0


def times(size: Iterable[int]) -> str:
    """Return `3×5` of `(3, 5)`."""
    return "×".join(map(str, size))


COLUMNS = (
    *("depth", "layer", "height", "width", "share_sets"),
    *("footprint_height", "footprint_width"),
    *("inside_by_chance", "inside_before", "inside_after"),
)


@dataclasses.dataclass(frozen=True)
class LayerLocality:
    """The share of a layer's FC kernels that lies where its local branches are.

    Attributes:
        name, depth: As of the `SpatialKernel`.
        grid: Size `(h, w)` of its positions.
        share_sets: Number of kernels.
        footprint: Size `(kh, kw)` of the largest branches.
        chance: Share of a matrix that the footprints cover.
        before, after: Share of the sum of magnitudes in them.
    """

    name: str
    depth: float
    grid: tuple[int, int]
    share_sets: int
    footprint: tuple[int, ...]
    chance: float
    before: float
    after: float


@dataclasses.dataclass(frozen=True)
class Locality:
    """All layers with local branches, in the model's order; printed, a table."""

    layers: tuple[LayerLocality, ...]

    def rows(self) -> list[tuple]:
        """Return a tuple per layer, of what `COLUMNS` names; shares are in 0…1."""
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


def locality(model: keras.Model) -> Locality:
    """Measure the share of the FC kernels' weight in the branches' footprints.

    Args:
        model: Built `keras.Model` in train form.

    Raises:
        InputError: If there are no kernels over positions, or no local branches beside
            them.
    """
    return Locality(tuple(map(_measured, injected_kernels(model))))


def _measured(kernel):
    injection = Injection(kernel)
    place = kernel.name, kernel.depth, kernel.grid, kernel.share_sets
    return LayerLocality(*place, injection.footprint, *injection.inside())
