"""Find the kernels that are fully connected over the positions of a map."""

import dataclasses

import keras
import numpy as np

from kmlp.analysis.linear import MIXING, LinearLayer, linear_layers
from kmlp.errors import InputError
from kmlp.layers.perceptrons import SetSharingLinear

CENTRAL = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpatialKernel(LinearLayer):
    """A linear layer whose inputs or outputs are the positions of a map.

    Attributes:
        grid: Size `(h, w)` of the positions; of a partitioned map those of a block.
        outputs: Size `(rows, columns)` of the output positions, where inputs and
            outputs are positions; else `None`.
        share_sets: Number of kernels.
    """

    grid: tuple[int, int]
    outputs: tuple[int, int] | None
    share_sets: int

    @property
    def branches(self) -> tuple[tuple[int, int], ...]:
        """Return the sizes of the local branches beside it, `()` for none."""
        return getattr(self.layer, "local_kernels", ())

    @property
    def along(self) -> str:
        """Return `"width"` or `"height"` if it mixes along one axis only, else `""`."""
        height, width = self.grid
        return "width" * (height == 1 < width) or "height" * (width == 1 < height)

    @property
    def label(self) -> str:
        """Return a short label that tells it from the model's other kernels."""
        which = self.along or self.part
        return " ".join(part for part in (self.block or self.name, which) if part)


def spatial_kernels(model: keras.Model) -> list[SpatialKernel]:
    """Return the kernels over positions of a built model, in its order.

    Channel and Local Perceptron of RepMLPNet, ResMLP's and Mixer's cross-patch
    layers, the axes of sMLPNet, class layers, nested ones too.

    Args:
        model: Keras model in train form or merged.

    Raises:
        InputError: If the model has none, or no weights.
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
        grid = outputs = layer.partition.block_size
        share_sets = layer.share_sets
    else:
        grid, outputs, share_sets = layer.input_grid or layer.output_grid, None, 1
    if grid is None:
        return None
    return SpatialKernel(
        **vars(linear), grid=tuple(grid), outputs=outputs, share_sets=share_sets
    )


@dataclasses.dataclass(frozen=True)
class KernelRows:
    """Rows of a kernel's matrix as images.

    Attributes:
        label: What tells the kernel from the model's others, in a few letters.
        what: Which rows, in words.
        images: Images `(rows, columns, h, w)`: what each output position of a part of
            the grid reads from the map; of an axis `(w, 1, 1, w)` or `(1, h, h, 1)`.
        share_set: Index of the share-set; `None` where there is one only.
    """

    label: str
    what: str
    images: np.ndarray
    share_set: int | None


def kernel_rows(
    kernel: SpatialKernel, share_set: int = 0, central: int | None = CENTRAL
) -> KernelRows:
    """Return rows of the matrix A, each as an image of the map that it reads.

    Of a layer with norm or local branches it is the matrix that they merge into. Of an
    axis, all rows are taken: images of one line, one for each position on it. Layers
    of a mixing MLP have hidden units on one side: of `fc1` an image shows what a unit
    reads, of `fc2` where a unit writes.

    Args:
        kernel: Kernel over positions.
        share_set: Index of the share-set.
        central: Side n of the n×n output positions in the middle of the grid (of hidden
            units: the first n²); `None` for all of them.

    Raises:
        InputError: If there is no such share-set.

    Reference: ResMLP (Touvron et al., 2021), Figs. 2 and B.1: the central 6×6 patches.
    """
    check_share_set(kernel, share_set)
    matrix = kernel.matrix()
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
    shown = share_set if kernel.share_sets > 1 else None
    return KernelRows(kernel.label, what, images, shown)


def check_share_set(kernel: SpatialKernel, share_set: int) -> None:
    """Refuse a share-set that a kernel does not have."""
    if not 0 <= share_set < kernel.share_sets:
        last = kernel.share_sets - 1
        known = f"share-sets 0 to {last}" if last else "one share-set, of index 0"
        raise InputError(f"{kernel.name} has {known}. Received: share_set={share_set}")


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
    """Arrange images of hidden units nearly in a square, spare places empty."""
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
