"""The kernels that are fully connected over the positions of a map."""

import dataclasses

import numpy as np

from kmlp.analysis.linear import MIXING, LinearLayer, linear_layers
from kmlp.errors import InputError
from kmlp.layers.set_sharing import SetSharingLinear

WIDTH, HEIGHT = "along the width", "along the height"
CENTRAL = 6


@dataclasses.dataclass(frozen=True)
class SpatialKernel:
    """A linear layer whose inputs or outputs are the positions of a map.

    Attributes:
        linear: the `kmlp.analysis.linear.LinearLayer`.
        grid: `(h, w)` of the positions; of a partitioned map those of a block.
        outputs: `(rows, columns)` of the output positions, where inputs and outputs
            are positions; else `None`.
        share_sets: number of kernels.
    """

    linear: LinearLayer
    grid: tuple[int, int]
    outputs: tuple[int, int] | None
    share_sets: int

    @property
    def name(self):
        """Names of the layers on the way to it, with slashes between them."""
        return self.linear.name

    @property
    def depth(self):
        """Number of its block, from 1."""
        return self.linear.depth

    @property
    def layer(self):
        """The `SetSharingLinear` or `PositionLinear` itself."""
        return self.linear.layer

    @property
    def branches(self):
        """Sizes of the local branches beside it, `()` for none."""
        return getattr(self.layer, "local_kernels", ())

    @property
    def along(self):
        """`WIDTH` or `HEIGHT` where it mixes along one axis only, else `""`."""
        return along(self.grid)

    @property
    def label(self):
        """What tells it from the model's others, in a few letters."""
        which = self.along.rpartition(" ")[2] or self.linear.part
        return " ".join(
            part for part in (self.linear.block or self.name, which) if part
        )


def along(grid):
    """`WIDTH` or `HEIGHT` where a grid is one line, else `""`."""
    height, width = grid
    if height == width == 1:
        return ""
    return WIDTH if height == 1 else HEIGHT if width == 1 else ""


def spatial_kernels(model):
    """The kernels over positions of a built model, in its order.

    Channel and Local Perceptron of RepMLPNet, ResMLP's and Mixer's cross-patch
    layers, the axes of sMLPNet, class layers, nested ones too.

    Args:
        model: a `keras.Model`, train form or merged.

    Returns:
        A list of `SpatialKernel`.

    Raises:
        InputError: the model has none, or no weights.
    """
    found = [_spatial(linear) for linear in linear_layers(model)]
    kernels = [kernel for kernel in found if kernel is not None]
    if not kernels:
        raise InputError(
            "No layer of this network is fully connected over the positions of a map: "
            "its patches are mixed by convolution, shift or attention. RepMLPNet, "
            f"ResMLP, sMLPNet and MLP-Mixer have such layers. Received: {model.name!r}"
        )
    return kernels


def _spatial(linear):
    layer = linear.layer
    if linear.kind != MIXING:
        return None
    if isinstance(layer, SetSharingLinear):
        block = layer.partition.block_size
        return SpatialKernel(linear, block, block, layer.share_sets)
    grid = layer.input_grid or layer.output_grid
    if grid is None:
        return None
    return SpatialKernel(linear, tuple(grid), None, 1)


@dataclasses.dataclass(frozen=True)
class KernelRows:
    """Rows of a kernel's matrix as images.

    Attributes:
        name, depth, label, along: of the `SpatialKernel`.
        what: which rows, in words.
        images: `(rows, columns, h, w)`: what each output position of a part of the grid
            reads from the map; of an axis `(w, 1, 1, w)` or `(1, h, h, 1)`.
        share_set: index of the share-set; `None` where there is one only.
    """

    name: str
    depth: float
    label: str
    along: str
    what: str
    images: np.ndarray
    share_set: int | None


def kernel_rows(kernel, share_set=0, central=CENTRAL):
    """Rows of the matrix A, each as an image of the map that it reads.

    Of a layer with norm or local branches it is the matrix that they merge into. Of an
    axis, all rows are taken: images of one line, one for each position on it. Layers
    of a mixing MLP have hidden units on one side: of `fc1` an image shows what a unit
    reads, of `fc2` where a unit writes.

    Args:
        kernel: a `SpatialKernel`.
        share_set: index of the share-set.
        central: the n of the n×n output positions in the middle of the grid (of hidden
            units: the first n²); `None`: all of them.

    Returns:
        A `KernelRows`.

    Raises:
        InputError: no such share-set.

    Reference: ResMLP (Touvron et al., 2021), Figs. 2 and B.1: the central 6×6 patches.
    """
    check_share_set(kernel, share_set)
    matrix = kernel.linear.matrix()
    if kernel.outputs is None:
        images, what = _units(kernel, matrix, central)
    else:
        matrix = matrix[share_set]
        # (hw, hw) -> (h, w, h, w), output positions first
        images = matrix.reshape(*kernel.outputs, *kernel.grid)
        if kernel.along:
            # Lines lie across the axis that they are of: together, the matrix.
            images, what = images.transpose(1, 0, 2, 3), "all positions"
        else:
            images, what = _central(images, central)
    return KernelRows(
        name=kernel.name,
        depth=kernel.depth,
        label=kernel.label,
        along=kernel.along,
        what=what,
        images=images,
        share_set=share_set if kernel.share_sets > 1 else None,
    )


def check_share_set(kernel, share_set):
    """Raises `ValueError` where a kernel has no such share-set."""
    if not 0 <= share_set < kernel.share_sets:
        raise InputError(
            f"{kernel.name} has {_counted(kernel.share_sets)}. "
            f"Received: share_set={share_set}"
        )


def _counted(share_sets):
    if share_sets == 1:
        return "one share-set, of index 0"
    return f"share-sets 0 to {share_sets - 1}"


def _central(images, central):
    rows, columns = images.shape[:2]
    if central is None or central >= max(rows, columns):
        return images, "all positions"
    counts = [min(central, size) for size in (rows, columns)]
    starts = [(size - count) // 2 for size, count in zip((rows, columns), counts)]
    (top, left), (height, width) = starts, counts
    part = images[top : top + height, left : left + width]
    return part, f"central {height}×{width} positions"


def _units(kernel, matrix, central):
    """Images of hidden units in a nearly square arrangement, spare places empty."""
    reads = kernel.layer.input_grid is not None
    units = matrix if reads else matrix.T
    count = len(units) if central is None else min(central**2, len(units))
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    images = np.full((rows * columns, *kernel.grid), np.nan)
    images[:count] = units[:count].reshape(-1, *kernel.grid)
    which = "all" if count == len(units) else f"first {count} of {len(units)}"
    what = f"{which} hidden units, {'what they read' if reads else 'where they write'}"
    if len(units) == 1:
        what = "what the class token reads"
    return images.reshape(rows, columns, *kernel.grid), what
