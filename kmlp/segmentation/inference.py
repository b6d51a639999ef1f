"""Segmentation of pictures of any size: whole, by windows, at several scales."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.layers.feature_pyramid import resize_bilinear
from kmlp.typing import Tensor

MODES = ("whole", "slide")


def segment(
    model: Callable[[np.ndarray], Tensor],
    image: np.ndarray,
    *,
    mode: str = "whole",
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> np.ndarray:
    """Compute the class scores of every pixel of a picture.

    Args:
        model: A segmenter, merged or not, or any function of images `(1, H, W, 3)`
            to logits `(1, H, W, K)`; one of a fixed size has `input_shape`.
        image: Image `(H, W, 3)`, float, prepared as in training; any size and aspect.
        mode: Mode. `"whole"`: the picture at once; where the model's size is fixed,
            shrunk or enlarged to lie in it, with zeros below and to the right.
            `"slide"`: windows that overlap, their logits averaged.
        window: Window `(h, w)` of `"slide"`; `None`: the model's size.
        stride: Stride `(y, x)` from window to window; `None`: two thirds of the window.
        scales: Factors of the picture's sides, at each of which it is scored.
        flip: Whether it is scored mirrored too.

    Returns:
        Scores `(H, W, K)`, float32. Of one scale without mirroring: logits; else the
        mean of the softmax of each, as the "MS mIoU" of the papers is taken.

    Raises:
        InputError: If the mode is unknown or the windows do not fit.
    """
    image = np.asarray(image, "float32")
    if image.ndim != 3:
        raise InputError(
            f"`image` is (height, width, channels). Received: shape {image.shape}"
        )
    if mode not in MODES:
        raise InputError(f"`mode` must be 'whole' or 'slide'. Received: mode={mode!r}")
    fixed = _fixed_size(model)
    if mode == "slide":
        window = tuple(window or fixed or ())
        if len(window) != 2:
            raise InputError(
                "`window` must be given where the model takes any size. "
                f"Received: window={window or None}"
            )
        if fixed and window != fixed:
            raise InputError(
                f"This model takes {fixed[0]}x{fixed[1]}: leave `window` out. "
                f"Received: window={window}"
            )
        stride = tuple(stride or (max(1, 2 * size // 3) for size in window))
    if not scales or min(scales) <= 0:
        raise InputError(f"`scales` are above 0. Received: scales={scales}")

    def logits_of(picture: np.ndarray) -> np.ndarray:
        if mode == "slide":
            return _slide(model, picture, window, stride)
        return _whole(model, picture, fixed)

    size = image.shape[:2]
    views = []
    for scale in scales:
        scaled = _resized(image, [max(1, round(s * scale)) for s in size])
        views.append(_resized(logits_of(scaled), size))
        if flip:
            mirrored = logits_of(scaled[:, ::-1])
            views.append(_resized(mirrored[:, ::-1], size))
    if len(views) == 1:
        return views[0]
    return np.mean([_softmax(view) for view in views], axis=0, dtype="float32")


def _fixed_size(model):
    """Return `(H, W)` that the model demands; `None`: any."""
    shape = getattr(model, "input_shape", None)
    if shape is None or isinstance(shape, list) or None in shape[1:3]:
        return None
    return tuple(shape[1:3])


def _run(model, picture):
    return np.asarray(ops.convert_to_numpy(model(picture[None])), "float32")[0]


def _whole(model, picture, fixed):
    if fixed is None or picture.shape[:2] == fixed:
        return _run(model, picture)
    size = picture.shape[:2]
    scale = min(f / s for f, s in zip(fixed, size))
    fitted = [min(f, max(1, round(s * scale))) for f, s in zip(fixed, size)]
    canvas = np.zeros((*fixed, picture.shape[2]), "float32")
    canvas[: fitted[0], : fitted[1]] = _resized(picture, fitted)
    return _resized(_run(model, canvas)[: fitted[0], : fitted[1]], size)


def _slide(model, picture, window, stride):
    height, width = picture.shape[:2]
    # A picture smaller than a window lies in its corner.
    padded = [max(0, w - s) for w, s in zip(window, (height, width))]
    picture = np.pad(picture, [(0, padded[0]), (0, padded[1]), (0, 0)])
    total, count = 0.0, np.zeros((*picture.shape[:2], 1), "float32")
    for top in _places(picture.shape[0], window[0], stride[0]):
        for left in _places(picture.shape[1], window[1], stride[1]):
            part = np.s_[top : top + window[0], left : left + window[1]]
            logits = _run(model, picture[part])
            if isinstance(total, float):
                total = np.zeros((*picture.shape[:2], logits.shape[-1]), "float32")
            total[part] += logits
            count[part] += 1
    return (total / count)[:height, :width]


def _places(size, window, stride):
    """Return where windows begin; the last ends where the picture does."""
    steps = max(math.ceil((size - window) / stride), 0)
    return [min(i * stride, size - window) for i in range(steps + 1)]


def _resized(values, size):
    if tuple(values.shape[:2]) == tuple(size):
        return values
    values = np.ascontiguousarray(values, "float32")[None]
    return np.asarray(ops.convert_to_numpy(resize_bilinear(values, tuple(size))))[0]


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
