"""Recognise the network of a published state by its names and shapes alone.

The readers of structures take `{path of our variable: shape}`, paths as `Scheme.ours`
gives them and shapes in PyTorch's layouts, output channels first.
"""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kmlp.errors import InputError
from kmlp.models.convmlp import ConvMLP
from kmlp.models.focal import FocalTransformer
from kmlp.models.msmlp import MSMLP
from kmlp.models.registry import VARIANTS, create_model
from kmlp.models.repmlpnet import RepMLPNet
from kmlp.models.resmlp import ResMLP
from kmlp.models.smlpnet import SMLPNet
from kmlp.models.swin import SwinTransformer
from kmlp.typing import Config
from kmlp.weights.renamings import SCHEMES
from kmlp.weights.scheme import derived

Shapes = Mapping[str, tuple[int, ...]]

# What does not make a variant: head, size, and whether locality is injected yet.
_FREE = ("num_classes", "include_top", "input_shape", "locality_injected")
# Of relative positions; other tables' names begin with it.
_TABLE = "stage{}_block0_attention/relative_position_bias_table"


@dataclasses.dataclass(frozen=True)
class Recognised:
    """The network that a state seems to be of.

    Attributes:
        architecture: Name of `kmlp.list_models()`, or `None` where no variant fits.
        family: Class of the network.
        scheme: Owner of the state's names: `"published"` (the authors), `"timm"`,
            `"mmpretrain"` or `"mmcls"`.
        arguments: Arguments of `kmlp.create_model(architecture, …)` or, where no
            variant fits, of `family(…)`. `num_classes` is 0 where there is no
            classifier; `input_shape` is left out where no array depends on it.
        structure: All arguments of `family` that the shapes tell.
    """

    architecture: str | None
    family: type
    scheme: str
    arguments: Config
    structure: Config

    def build(self, **changes: Any) -> keras.Model:
        """Return the model with fresh weights, with `changes` to its arguments."""
        arguments = {**self.arguments, **changes}
        if self.architecture is None:
            return self.family(**arguments)
        return create_model(self.architecture, **arguments)

    def __str__(self):
        what = self.architecture
        if what is None:
            parameters = inspect.signature(self.family).parameters
            own = {
                name: value
                for name, value in self.structure.items()
                if name not in _FREE and value != parameters[name].default
            }
            what = f"{self.family.__name__}({as_options(own)})"
        return f"{what} ({self.scheme} names)"


def as_options(arguments: Config) -> str:
    """Write arguments as a person does."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def recognise(state: Mapping[str, Any]) -> Recognised:
    """Find out what a published state is: family, naming, variant and arguments.

    Only names and shapes are read, and no model is built. What shapes do not tell
    (the initial layer scale, shift distances, …) keeps its default.

    Args:
        state: Weights as `{published name: array}`.

    Raises:
        InputError: If its names are of no known family.
    """
    shapes = {name: np.shape(a) for name, a in state.items() if not derived(name)}
    tables = [
        (family, scheme, scheme.ours(shapes))
        for family, schemes in SCHEMES.items()
        for scheme in schemes
    ]
    # Families share some names: the one that shares most is meant.
    for family, scheme, ours in sorted(tables, key=lambda table: -len(table[2])):
        if 2 * len(ours) <= len(shapes):
            break
        told = structure(family, {path: shapes[name] for name, path in ours.items()})
        if told is not None:
            name = _variant(family, told)
            arguments = {k: v for k, v in told.items() if name is None or k in _FREE}
            return Recognised(name, family, scheme.name, arguments, told)
    raise InputError(
        "The state is of no family that kmlp knows: its names are neither the authors' "
        f"nor timm's nor mmpretrain's. Received: {len(state)} arrays, such as "
        f"{', '.join(sorted(map(str, state))[:3]) or 'none'}"
    )


def _variant(family, told):
    """Return the name of the variant with such a structure, `None` for none."""
    parameters = inspect.signature(family).parameters

    def own(name: str, argument: str) -> Any:
        return VARIANTS[name][1].get(argument, parameters[argument].default)

    names = [
        name
        for name, (variant_family, _) in VARIANTS.items()
        if variant_family == family.__name__
        and all(own(name, k) == v for k, v in told.items() if k not in _FREE)
    ]
    # Some differ in their size alone; any size is of the first otherwise.
    shape = told.get("input_shape")
    return min(names, key=lambda name: own(name, "input_shape") != shape, default=None)


def structure(family: type, shapes: Shapes) -> Config | None:
    """Read the arguments of a family from the shapes of its arrays.

    Args:
        family: Class of the network.
        shapes: Shapes as `{path: shape}`.

    Returns:
        Arguments as `{argument: value}`, or `None` where the shapes make no such
        network.
    """
    try:
        found = _READERS[family](shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None
    values = keras.tree.flatten(found)
    if not all(v for v in values if v is not None and not isinstance(v, bool)):
        return None
    head = shapes.get("head/dense/kernel")
    found["num_classes"] = head[0] if head else 0
    if not any(path.startswith("head/") for path in shapes):
        found["include_top"] = False
    return found


def _count(shapes, template):
    """Return how many of a numbered kind there are, `{}` being the number."""
    numbers = itertools.takewhile(
        lambda n: template.format(n) in shapes, itertools.count()
    )
    return sum(1 for _ in numbers)


def _blocks(shapes, mlp="mlp/fc1"):
    """Return the blocks per stage, and the MLP ratio of each stage.

    Args:
        shapes: Shapes as `{path: shape}`.
        mlp: Path of a block's first layer of channels, (hidden, channels).
    """
    stages = range(_count(shapes, f"stage{{}}_block0_{mlp}/kernel"))
    depths = [_count(shapes, f"stage{s}_block{{}}_{mlp}/kernel") for s in stages]
    ratios = [_ratio(shapes[f"stage{s}_block0_{mlp}/kernel"]) for s in stages]
    return tuple(depths), tuple(ratios)


def _ratio(shape):
    """Return the hidden channels per channel of a Dense (hidden, channels)."""
    ratio = shape[0] / shape[1]
    return int(ratio) if ratio.is_integer() else ratio


def _patches(stem):
    """Return what a patch embedding (width, channels, size, size) tells."""
    return {"width": stem[0], "patch_size": stem[2]}


def _square(length, stem):
    """Return `input_shape` for a grid of `length` tokens, `{}` if it is no square."""
    side = math.isqrt(length)
    if side * side != length:
        return {}
    return {"input_shape": (side * stem[2], side * stem[2], stem[1])}


def _repmlpnet(shapes):
    stem = shapes["stem/dense/kernel"]
    depths, ratios = _blocks(shapes, "ffn/fc1")
    embeds = [shapes[f"embed{e}/dense/kernel"] for e in range(len(depths) - 1)]
    # (S·hw, hw, 1, 1) per stage
    kernels = [
        shapes[f"stage{s}_block0_channel_perceptron/kernel"] for s in range(len(depths))
    ]
    injected = "stage0_block0_channel_perceptron/bias" in shapes
    gate = shapes.get("stage0_block0_global_perceptron/fc1/kernel")
    sizes = {
        path.rpartition("local_")[2].partition("x")[0]
        for path in shapes
        if "/local_" in path
    }
    width = stem[0]
    return {
        "depths": depths,
        "widths": (width, *(embed[0] for embed in embeds)),
        "share_sets": tuple(kernel[0] // kernel[1] for kernel in kernels),
        # Injected kernels do not tell what lies in them.
        **({} if injected else {"local_kernels": tuple(sorted(map(int, sizes)))}),
        "patch_size": stem[2],
        **({"gate_reduction": width // gate[0]} if gate else {}),
        "global_perceptron": gate is not None,
        "mlp_ratio": ratios[0],
        "locality_injected": injected,
        **_square(kernels[0][1], stem),
    }


def _resmlp(shapes):
    stem = shapes["patch_embed/dense/kernel"]
    is_mixer = "block0_cross_patch/fc2/kernel" in shapes
    mix = "block{}_cross_patch/" + ("fc2/kernel" if is_mixer else "mix/kernel")
    positions = shapes[mix.format(0)]
    mixer = {
        "norm": "layer",
        "layer_scale": None,
        "mixing_width": positions[-1],
        "epsilon": 1e-6,
    }
    return {
        **_patches(stem),
        "depth": _count(shapes, mix),
        "mlp_ratio": _ratio(shapes["block0_cross_channel/fc1/kernel"]),
        "mixing": "mlp" if is_mixer else "linear",
        **(mixer if is_mixer else {}),
        **_square(positions[0], stem),
    }


def _convmlp(shapes):
    depths, ratios = _blocks(shapes, "mlp1/fc1")
    stages = range(len(depths))
    return {
        "stem_width": shapes["tokenizer_conv2/conv/kernel"][0],
        "conv_blocks": _count(shapes, "conv_block{}_conv0/conv/kernel"),
        "widths": tuple(shapes[f"stage{s}_block0_mlp1/fc1/kernel"][1] for s in stages),
        "depths": depths,
        "mlp_ratios": ratios,
    }


def _attention(shapes):
    """Return what Swin and Focal transformers share, and sides of their windows."""
    depths, ratios = _blocks(shapes)
    tables = [shapes[_TABLE.format(s)] for s in range(len(depths))]
    found = {
        **_patches(shapes["patch_embed/dense/kernel"]),
        "depths": depths,
        "heads": tuple(table[1] for table in tables),
        "mlp_ratio": ratios[0],
    }
    sides = [(math.isqrt(table[0]) + 1) // 2 for table in tables]
    return {**found, "window_size": sides[0]}, sides


def _focal(shapes):
    found, sides = _attention(shapes)
    pooled, seen = (
        [shapes.get(f"{_TABLE.format(s)}_to_{kind}") for s in range(len(sides))]
        for kind in ("windows", "neighbors")
    )
    found["focal_windows"] = tuple(
        math.isqrt(table[1]) - side + 1 if table else 1
        for table, side in zip(pooled, sides)
    )
    found["focal_levels"] = tuple(2 if table else 1 for table in pooled)
    if seen[0]:
        # So many neighbours, 4 (w^2 - (w - e)^2), has an expansion e.
        found["expansion"] = sides[0] - math.isqrt(sides[0] ** 2 - seen[0][-1] // 4)
        # A map without neighbours is a window; else there are two windows at least.
        covered = [s for s in range(len(sides)) if not seen[s]]
        last = covered[0] if covered else len(sides) - 1
        side = sides[last] * (1 if covered else 2) * found["patch_size"] * 2**last
        found["input_shape"] = (side, side, shapes["patch_embed/dense/kernel"][1])
    return found


def _msmlp(shapes):
    depths, ratios = _blocks(shapes)

    def regions(stage: int) -> tuple[int, ...]:
        path = f"stage{stage}_block0_mix_shift/horizontal_{{}}/kernel"
        groups = range(_count(shapes, path))
        return tuple(shapes[path.format(group)][2] for group in groups)

    return {
        **_patches(shapes["patch_embed/dense/kernel"]),
        "depths": depths,
        "regions": tuple(map(regions, range(len(depths)))),
        "mlp_ratio": ratios[0],
    }


def _smlpnet(shapes):
    embeds = [
        shapes[f"embed{e}/dense/kernel"]
        for e in range(_count(shapes, "embed{}/dense/kernel"))
    ]
    units = range(_count(shapes, "unit{}_sparse_mlp/fuse/kernel"))
    widths = [shapes[f"unit{u}_sparse_mlp/fuse/kernel"][0] for u in units]
    _, channels, patch_size, _ = embeds[0]
    sides = [
        shapes[f"unit0_sparse_mlp/mix_{axis}/kernel"][0] * patch_size
        for axis in ("height", "width")
    ]
    return {
        **_patches(embeds[0]),
        "depths": tuple(widths.count(embed[0]) for embed in embeds),
        "mlp_ratio": _ratio(shapes["unit0_ffn/fc1/kernel"]),
        "input_shape": (*sides, channels),
    }


def _swin(shapes):
    return _attention(shapes)[0]


_READERS: dict[type, Callable[[Shapes], Config]] = {
    RepMLPNet: _repmlpnet,
    ResMLP: _resmlp,
    ConvMLP: _convmlp,
    FocalTransformer: _focal,
    MSMLP: _msmlp,
    SMLPNet: _smlpnet,
    SwinTransformer: _swin,
}
