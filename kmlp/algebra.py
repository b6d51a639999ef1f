"""The equations of merging, as pure functions.

Each function takes NumPy arrays or backend tensors and gives back the same
kind: merging runs them in float64 on the host, training runs them on tensors so
that gradients flow through the equivalent kernel. Linear kernels have their
output on the last axis (Dense, convolutions); FC kernels over positions are
`(share_sets, out, in)`.

References:
    RepMLPNet (Ding et al., 2022), Sect. 3: Locality Injection, Eqs. 7-13, and
    the fusion of BatchNorm, Eqs. 14-15.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def batch_norm_affine(
    gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float
) -> tuple[Any, Any]:
    """Return BatchNorm in inference mode as `scale * x + shift`.

    Reference: RepMLPNet, Eq. 14 (`scale` is gamma / sigma).
    """
    scale = gamma / (variance + epsilon) ** 0.5
    return scale, beta - mean * scale


def fold_after(kernel: Any, bias: Any, scale: Any, shift: Any = 0.0) -> tuple[Any, Any]:
    """Return a linear map followed by `scale * y + shift`, as one linear map.

    `kernel` has its output on the last axis; `scale` and `shift` are vectors
    over the output or scalars; `bias` may be `None`.

    Reference: RepMLPNet, Eq. 15.
    """
    folded_bias = shift if bias is None else bias * scale + shift
    return kernel * scale, folded_bias


def fold_after_sets(kernel: Any, bias: Any, scale: Any, shift: Any) -> tuple[Any, Any]:
    """Fold a norm over the share-sets after FC kernels `(S, out, in)`."""
    shift = repeat_bias(shift, kernel.shape[1])
    bias = shift if bias is None else bias * scale[:, None] + shift
    return kernel * scale[:, None, None], bias


def repeat_bias(bias: Any, length: int) -> Any:
    """Repeat a bias per share-set `(S,)` at `length` positions: `(S, length)`."""
    repeat = np.repeat if isinstance(bias, np.ndarray) else keras.ops.repeat
    return repeat(bias[:, None], length, axis=1)


def fold_before(kernel: Any, bias: Any, scale: Any, shift: Any) -> tuple[Any, Any]:
    """Return `scale * x + shift` followed by a matrix `(in, out)`, as one map.

    The columns of `W` weigh the scaled input, and the shift passes through `W`:
    `(scale * x + shift) W + b = x (diag(scale) W) + (shift W + b)`.
    """
    through = shift @ kernel
    return kernel * scale[:, None], through if bias is None else bias + through


def pad_kernel(kernel: Any, size: Sequence[int]) -> Any:
    """Zero-pad a `(kh, kw, …)` convolution kernel to `size`, centred.

    With same padding the padded kernel computes the same map, so kernels of
    several sizes can be summed (RepMLPNet, Sect. 4.2).
    """
    widths = [((t - k) // 2, (t - k) // 2) for t, k in zip(size, kernel.shape[:2])]
    widths += [(0, 0)] * (len(kernel.shape) - 2)
    pad = np.pad if isinstance(kernel, np.ndarray) else keras.ops.pad
    return pad(kernel, widths)


def conv_to_fc(
    kernel: Any,
    grid: tuple[int, int],
    groups: int = 1,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Sequence[tuple[int, int]] | None = None,
    dilation: tuple[int, int] = (1, 1),
) -> Any:
    """Return a convolution's kernel as the kernels of an FC.

    RepMLPNet obtains the matrix by convolving an identity (Eq. 13). A stride-1
    convolution from one channel to one is a sum over taps of products of two shifts,
    one along the height and one along the width, so the same matrix is
    `sum_ij kernel[i, j] * kron(shift_i, shift_j)`: exact, differentiable, and
    without `hw` images in memory.

    Args:
        kernel: Depthwise kernel `(kh, kw, S)`, or one that mixes channels,
            `(kh, kw, C / groups, O)` as Keras has it; of odd sizes without `padding`.
        grid: Size `(h, w)` of the map that the convolution ran on.
        groups: Groups of channels of a kernel that mixes them.
        strides, dilation: Values along both axes.
        padding: Zeros `(before, after)` along both axes; `None`: the map keeps its
            size at stride 1, as in the paper.

    Returns:
        Kernel `(S, h'*w', h*w)`, output position before input position; or
        `(groups, O / groups * h'*w', C / groups * h*w)`, rows and columns ordered
        (channel, row, column) as the paper flattens maps.

    Reference: RepMLPNet Sect. 3, Eqs. 11-13.
    """
    height, width = grid
    if kernel.ndim == 3:
        groups, kernel = kernel.shape[-1], kernel[:, :, None]
    kh, kw, inputs, outputs = kernel.shape
    rows, columns = map(
        _shifts, grid, (kh, kw), strides, padding or (None, None), dilation
    )
    split = (kh, kw, inputs, groups, outputs // groups)
    area = rows.shape[1] * columns.shape[1]
    shape = (groups, outputs // groups * area, inputs * height * width)
    if isinstance(kernel, np.ndarray):
        terms = kernel.reshape(split), rows, columns
        dense = np.einsum("ijcgo,iab,jde->goadcbe", *terms, optimize=True)
        return dense.reshape(shape)
    rows, columns = (keras.ops.cast(m, kernel.dtype) for m in (rows, columns))
    kernel = keras.ops.reshape(kernel, split)
    partial = keras.ops.einsum("ijcgo,iab->cgojab", kernel, rows)
    dense = keras.ops.einsum("cgojab,jde->goadcbe", partial, columns)
    return keras.ops.reshape(dense, shape)


def resize_matrix(
    source: int, target: int, method: str = "linear", step: float | None = None
) -> np.ndarray:
    """Return the interpolation of `source` positions at `target` ones, as a matrix.

    Positions are centres of equal cells of one interval (half-pixel centres). Each
    output is a mean of inputs under a filter as wide as the cells of the coarser of
    the two grids: shrinking is antialiased. Rows sum to 1, so a constant stays what
    it is; equal sizes give the identity.

    Args:
        source: Number of positions given.
        target: Number of positions wanted.
        method: Interpolation, `"linear"` (a triangle) or `"cubic"` (Keys' kernel with a
            = -1/2, which blurs less).
        step: Cells of the source that one of the target covers; `None`:
            `source / target`. It is another where the last cell of either reaches
            beyond the interval.

    Returns:
        Matrix `(target, source)`, float64.

    Reference: Keys, Cubic convolution interpolation for digital image processing,
    1981, Eq. 15.
    """
    if source == target:
        return np.eye(source)
    step = source / target if step is None else step
    centres = (np.arange(target) + 0.5) * step
    distances = np.abs(np.arange(source) + 0.5 - centres[:, None]) / max(step, 1.0)
    weights = _FILTERS[method](distances)
    return weights / weights.sum(axis=1, keepdims=True)


def _triangle(x):
    return np.maximum(1 - x, 0)


def _cubic(x):
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_FILTERS = {"linear": _triangle, "cubic": _cubic}


def resize_kernel(
    kernel: np.ndarray,
    source: tuple[int, int],
    target: tuple[int, int],
    method: str = "linear",
    steps: Sequence[float | None] = (None, None),
) -> np.ndarray:
    """Return FC kernels over a grid as kernels over another, `W' = Up W Down`.

    A map on the `target` grid is resized to `source`, mixed there and resized back,
    along each axis by `resize_matrix`. A kernel that keeps constants goes on keeping
    them.

    Args:
        kernel: Array `(S, h*w, h*w)`, output position before input position.
        source: Size `(h, w)` before.
        target: Size `(h, w)` after.
        method: As in `resize_matrix`.
        steps: Values of `step` of `resize_matrix` along each axis.

    Returns:
        Kernel `(S, h'*w', h'*w')`.
    """
    up = _resize_matrices(source, target, method, steps)
    down = _resize_matrices(target, source, method, [s and 1 / s for s in steps])
    resized = np.einsum(
        "ah,bw,shwij,ic,jd->sabcd",
        *up,
        kernel.reshape(-1, *source, *source),
        *down,
        optimize=True,
    )
    length = target[0] * target[1]
    return resized.reshape(-1, length, length)


def resize_map(
    values: np.ndarray,
    source: tuple[int, int],
    target: tuple[int, int],
    method: str = "linear",
    steps: Sequence[float | None] = (None, None),
) -> np.ndarray:
    """Return values per position `(S, h*w)`, such as a bias, on another grid."""
    up = _resize_matrices(source, target, method, steps)
    resized = np.einsum("ah,bw,shw->sab", *up, values.reshape(-1, *source))
    return resized.reshape(-1, target[0] * target[1])


def resize_inputs(
    kernel: np.ndarray,
    source: tuple[int, int],
    target: tuple[int, int],
    method: str = "linear",
    steps: Sequence[float | None] = (None, None),
) -> np.ndarray:
    """Return weights of positions `(units, h*w)` for another grid, `W Down`.

    A map on the `target` grid is resized to `source` and weighed there. Each unit's
    weights keep their sum.
    """
    down = _resize_matrices(target, source, method, [s and 1 / s for s in steps])
    resized = np.einsum("uij,ic,jd->ucd", kernel.reshape(-1, *source), *down)
    return resized.reshape(-1, target[0] * target[1])


def _resize_matrices(source, target, method, steps):
    axes = zip(source, target, steps)
    return [resize_matrix(s, t, method, step) for s, t, step in axes]


def _shifts(length, taps, stride=1, padding=None, step=1):
    """Return `(taps, outputs, length)`: 1 where a tap of an output reads an input."""
    before, after = padding or (taps // 2, taps - 1 - taps // 2)
    last = length + before + after - step * (taps - 1)
    read = np.arange(0, last, stride) - before + step * np.arange(taps)[:, None]
    return (read[..., None] == np.arange(length)).astype("float64")
