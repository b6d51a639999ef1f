"""How published arrays become ours: PyTorch's layouts, parameter by parameter."""

import dataclasses
import functools
import re
from collections.abc import Callable

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


# What PyTorch counts, and what Swin and Focal transformers compute when they are made:
# nothing of it was learned. These, and only these, may be left over.
_DERIVED = re.compile(
    r"num_batches_tracked|attn_mask|relative_position_index\w*|valid_ind_\w+"
)


def derived(name):
    """Whether a name is that of a buffer that was computed, not learned."""
    return bool(_DERIVED.fullmatch(name.rsplit(".", 1)[-1]))


_FIELD = re.compile(r"\{(\w)\}")


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How somebody names the parameters of a family.

    Attributes:
        name: whose names they are, as messages say it.
        rows: function that gives the table; its argument is the model's blocks per
            stage, or `None` where they are not known.
    """

    name: str
    rows: Callable

    def theirs(self, paths, depths=None):
        """Published names of our variables.

        Args:
            paths: of variables, such as `"stem/dense/kernel"`.
            depths: blocks per stage; `None`: our paths count as `rows(None)` does.

        Returns:
            `{path: (published name, function (array, shape) -> array)}`; paths that
            the scheme does not name are left out.
        """
        rows = [(_pattern(o), t, KINDS[kind]) for o, t, kind in self.rows(depths)]
        found = {}
        for path in paths:
            layer, _, leaf = path.rpartition("/")
            for pattern, module, parameters in rows:
                match = pattern.fullmatch(layer)
                if match and leaf in parameters:
                    parameter, convert = parameters[leaf]
                    module = module.format(**match.groupdict())
                    found[path] = f"{module}.{parameter}".rstrip("."), convert
                    break
        return found

    def ours(self, names, depths=None):
        """Our variables' paths of published names; the inverse of `theirs`.

        Returns:
            `{published name: path}`; names that the scheme does not have are left out.
        """
        rows = [
            (_pattern(module), ours, {theirs: leaf for leaf, (theirs, _) in kind})
            for ours, module, kind in (
                (o, t, KINDS[kind].items()) for o, t, kind in self.rows(depths)
            )
        ]
        found = {}
        for name in names:
            ends = [(name, "")]
            if "." in name:
                ends.append(tuple(name.rsplit(".", 1)))
            for pattern, ours, leaves in rows:
                for module, parameter in ends:
                    if parameter not in leaves:
                        continue
                    if match := pattern.fullmatch(module):
                        layer = ours.format(**match.groupdict())
                        found[name] = f"{layer}/{leaves[parameter]}"
        return found


@functools.cache
def _pattern(template):
    """A regular expression for a template; a field that returns is one number."""
    seen = set()

    def group(match):
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return rf"(?P<{name}>\d+)"

    escaped = re.sub(r"[.]", r"\\.", template)
    return re.compile(_FIELD.sub(group, escaped))
