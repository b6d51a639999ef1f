"""Convert published arrays to ours: PyTorch's names and layouts, one by one."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

# Our layer, the published module, and the kind of both.
Row = tuple[str, str, str]
Layout = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]

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
_TABLE = "relative_position_bias_table"

# Kind of module -> {our variable: (published parameter, function (array, shape))}.
KINDS: dict[str, dict[str, tuple[str, Layout]]] = {
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
    "attention": {_TABLE: (_TABLE, _same)},
    # Focal attention's biases; those of pooled windows are a list, of one level.
    "focal": {name: (name, _same) for name in (_TABLE, f"{_TABLE}_to_neighbors")},
    "focal_windows": {f"{_TABLE}_to_windows": ("0", _same)},
    # A parameter of the published block itself.
    "parameter": {"gamma": ("", _same)},
}


# What PyTorch counts, and what Swin and Focal transformers compute when they are made:
# nothing of it was learned. These, and only these, may be left over.
_DERIVED = re.compile(
    r"num_batches_tracked|attn_mask|relative_position_index\w*|valid_ind_\w+"
)


def converted(array: Any, variable: Any, convert: Layout) -> np.ndarray | None:
    """Return an array in our layout, or `None` where it does not have the shape."""
    array = np.asarray(array)
    try:
        array = convert(array, tuple(variable.shape))
    except (ValueError, IndexError):
        return None
    return array if array.shape == tuple(variable.shape) else None


def derived(name: str) -> bool:
    """Return whether a name is that of a buffer that was computed, not learned."""
    return bool(_DERIVED.fullmatch(name.rsplit(".", 1)[-1]))


@dataclasses.dataclass(frozen=True)
class Scheme:
    """One publisher's names for the parameters of a family.

    Attributes:
        name: Owner of the names, as messages call them.
        rows: Table of names, or a function of the model's blocks per stage to one; it
            takes `None` where they are not known.
    """

    name: str
    rows: Sequence[Row] | Callable[[Any], Sequence[Row]]

    def table(self, depths: Sequence[int] | None = None) -> Sequence[Row]:
        """Return the rows for a model with `depths` blocks per stage."""
        return self.rows(depths) if callable(self.rows) else self.rows

    def theirs(
        self, paths: Iterable[str], depths: Sequence[int] | None = None
    ) -> dict[str, tuple[str, Layout]]:
        """Return the published names of our variables.

        Args:
            paths: Paths of variables, such as `"stem/dense/kernel"`.
            depths: Blocks per stage; `None`: our paths count as `table(None)` does.

        Returns:
            Dictionary `{path: (published name, function (array, shape) -> array)}`;
            paths that the scheme does not name are left out.
        """
        rows = [(_pattern(o), t, KINDS[kind]) for o, t, kind in self.table(depths)]
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

    def ours(
        self, names: Iterable[str], depths: Sequence[int] | None = None
    ) -> dict[str, str]:
        """Return our variables' paths of published names; the inverse of `theirs`.

        Args:
            names: Published names.
            depths: Blocks per stage, as in `theirs`.

        Returns:
            Dictionary `{published name: path}`; names that the scheme does not have are
            left out.
        """
        rows = [
            (_pattern(module), f"{ours}/{leaf}", parameter)
            for ours, module, kind in self.table(depths)
            for leaf, (parameter, _) in KINDS[kind].items()
        ]
        found = {}
        for name in names:
            module, _, last = name.rpartition(".")
            for pattern, path, parameter in rows:
                # A parameter of the block itself has no name of its own.
                inner = name if not parameter else module
                if parameter in ("", last) and (match := pattern.fullmatch(inner)):
                    found[name] = path.format(**match.groupdict())
        return found


@functools.cache
def _pattern(template):
    """Compile a template; a field that returns is the same number."""
    seen: set[str] = set()

    def group(match: re.Match) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return rf"(?P<{name}>\d+)"

    return re.compile(re.sub(r"\{(\w)\}", group, template.replace(".", r"\.")))
