"""How published arrays become ours: PyTorch's layouts, parameter by parameter."""

import numpy as np

# Side of the regions that detectors classify.
_REGION = 7


def _dense(array, shape):
    # (out, in) or a 1×1 convolution (out, in, 1, 1)
    return array.reshape(array.shape[:2]).T


def _region(array, shape):
    # (out, in·s·s) of a region's s×s features, channels first -> (s·s·in, out)
    array = array.reshape(array.shape[0], -1, _REGION, _REGION)
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def _conv(array, shape):
    # (out, in, kh, kw) -> (kh, kw, in, out), and transposed ones the other way round
    return array.transpose(2, 3, 1, 0)


def _patch(array, shape):
    # (out, in, p, p) -> (p·p·in, out)
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def _merged(array, shape):
    # 2×2 neighbours side by side as channels: column before row, ours the other way.
    array = array.reshape(*array.shape[:-1], 2, 2, -1)
    return array.swapaxes(-3, -2).reshape(*array.shape[:-3], -1)


def _merging(array, shape):
    return _merged(array, shape).T  # (out, 4·in) -> (4·in, out)


def _depthwise(array, shape):
    return array.transpose(2, 3, 0, 1)  # (C, 1, kh, kw) -> (kh, kw, C, 1)


def _local(array, shape):
    return array[:, 0].transpose(1, 2, 0)  # (S, 1, kh, kw) -> (kh, kw, S)


def _same(array, shape):
    # A spatial kernel (S·out, in, 1, 1) is (S, out, in); timm has Aff as (1, 1, C).
    return array.reshape(shape)


_VECTOR = ("bias", _same)

# Kind of module -> {our variable: (published parameter, function (array, shape))}.
KINDS = {
    "dense": {"kernel": ("weight", _dense), "bias": _VECTOR},
    "conv": {"kernel": ("weight", _conv), "bias": _VECTOR},
    "region": {"kernel": ("weight", _region), "bias": _VECTOR},
    "patch": {"kernel": ("weight", _patch), "bias": _VECTOR},
    "depthwise": {"kernel": ("weight", _depthwise), "bias": _VECTOR},
    "merging": {"kernel": ("weight", _merging)},
    "merging_norm": {"gamma": ("weight", _merged), "beta": ("bias", _merged)},
    "local": {"kernel": ("weight", _local)},
    "positions": {"kernel": ("weight", _same), "bias": _VECTOR},
    "norm": {
        "gamma": ("weight", _same),
        "beta": _VECTOR,
        "moving_mean": ("running_mean", _same),
        "moving_variance": ("running_var", _same),
    },
    "affine": {"alpha": ("alpha", _same), "beta": ("beta", _same)},
    "attention": {
        "relative_position_bias_table": ("relative_position_bias_table", _same)
    },
    # Focal attention's biases; those of pooled windows are a list, of one level.
    "focal": {
        name: (name, _same)
        for name in (
            "relative_position_bias_table",
            "relative_position_bias_table_to_neighbors",
        )
    },
    "focal_windows": {"relative_position_bias_table_to_windows": ("0", _same)},
    # A parameter of the published block itself.
    "parameter": {"gamma": ("", _same)},
}


def converted(array, variable, convert):
    """An array in our layout, or `None` where it does not have the shape."""
    array = np.asarray(array)
    try:
        array = convert(array, tuple(variable.shape))
    except (ValueError, IndexError):
        return None
    return array if array.shape == tuple(variable.shape) else None
