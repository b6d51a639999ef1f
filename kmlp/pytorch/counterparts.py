"""Find the published PyTorch network that a Keras model of ours corresponds to."""

import inspect
from typing import Any

from kmlp import pytorch
from kmlp.errors import InputError

# Class -> options that `_SIZES` translates beside the images' size.
_FURTHER = {"RepMLPNet": {"block_size"}, "FocalTransformer": {"expansion"}}
# Arguments without any effect on inference.
_INDIFFERENT = {"drop_path_rate", "layer_scale", "name", "trainable", "dtype"}


def counterpart(model: Any, *, num_classes: int | None = None, **overrides: Any) -> Any:
    """Build the PyTorch network of a model's configuration, with fresh weights.

    Args:
        model: Keras model of one of the families, not merged.
        num_classes: Outputs of the classifier; `None` takes the model's.
        **overrides: Arguments of the PyTorch constructor, such as `deploy=True` of
            RepMLPNet; they take precedence over what follows from the model.

    Returns:
        An `nn.Module`.

    Raises:
        ImportError: If PyTorch is not installed.
        InputError: If the model is of no family of ours, or has an option that the
            published code lacks.
    """
    family = type(model).__name__
    if not type(model).__module__.startswith("kmlp.") or family not in _NAMES:
        raise InputError(
            f"there is no published PyTorch network of this kind. Received: {family}"
        )
    config = model.get_config()
    if _is_mixer(config):
        family = "MLPMixer"
        config = {k: v for k, v in config.items() if k not in _MIXER}
    names, sizes = _NAMES[family], _SIZES.get(family)
    if num_classes is not None:
        config["num_classes"] = num_classes
    _check(
        type(model), config, {"input_shape", *names.values(), *_FURTHER.get(family, ())}
    )
    arguments = {name: config[ours] for name, ours in names.items()}
    if sizes is not None:
        arguments |= sizes(config, *config["input_shape"][:2])
    (name,) = (n for n, (_, cls) in pytorch.FAMILIES.items() if cls == family)
    return pytorch.build(name, **{**arguments, **overrides})


def _is_mixer(config):
    return all(config.get(name, "") == value for name, value in _MIXER.items())


def _check(family, config, translated):
    """Refuse options beyond the published ones that are in use."""
    defaults = inspect.signature(family).parameters
    for name, value in config.items():
        if name in translated | _INDIFFERENT:
            continue
        default = defaults[name].default
        # Sequences come back from a checkpoint as lists.
        if _plain(value) != _plain(default):
            raise InputError(
                f"the published {family.__name__} has no such option. "
                f"Received: {name}={value!r}"
            )


def _plain(value):
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def _square(height, width):
    if height != width or height is None:
        raise InputError(
            f"the published network takes square images. Received: {height}x{width}"
        )
    return height


def _focal_sizes(config, height, width):
    expansions = [config["expansion"]] * len(config["depths"])
    return {"img_size": (height, width), "expand_sizes": expansions}


def _block_sides(config, height, width):
    grid = config["block_size"] or [s // config["patch_size"] for s in (height, width)]
    halvings = 2 ** (len(config["depths"]) - 1)
    for size, side in zip((height, width), grid):
        if size % (config["patch_size"] * side) or side % halvings:
            raise InputError(
                "the published network takes images of whole blocks, which halve "
                f"exactly. Received: {height}x{width}, block_size={tuple(grid)}"
            )
    sides = [[side // 2**i for i in range(len(config["depths"]))] for side in grid]
    return {"hs": sides[0], "ws": sides[1]}


# A ResMLP with these options is an MLP-Mixer.
_MIXER = {"mixing": "mlp", "norm": "layer", "layer_scale": None, "epsilon": 1e-6}


def _names(*alike, **renamed):
    return {**{name: name for name in alike}, **renamed}


# Class -> {option of the published code: ours}.
_NAMES = {
    "RepMLPNet": _names(
        "patch_size",
        channels="widths",
        num_blocks="depths",
        sharesets_nums="share_sets",
        reparam_conv_k="local_kernels",
        num_class="num_classes",
        deploy="locality_injected",
    ),
    "ResMLP": _names("patch_size", "depth", "num_classes", embed_dim="width"),
    "MLPMixer": _names(
        *("patch_size", "mlp_ratio", "num_classes"),
        embed_dim="width",
        num_blocks="depth",
        tokens_dim="mixing_width",
    ),
    "ConvMLP": _names(
        *("mlp_ratios", "num_classes"),
        blocks="depths",
        dims="widths",
        channels="stem_width",
        n_conv_blocks="conv_blocks",
    ),
    "FocalTransformer": _names(
        *("patch_size", "depths", "window_size", "mlp_ratio", "focal_levels"),
        *("focal_windows", "num_classes"),
        embed_dim="width",
        num_heads="heads",
    ),
    "MSMLP": _names("depths", "num_classes", embed_dim="width", mix_size="regions"),
    "SMLPNet": _names(
        *("depths", "patch_size", "num_classes"), dim="width", alpha="mlp_ratio"
    ),
    "SwinTransformer": _names(
        *("depths", "window_size", "patch_size", "num_classes"),
        embed_dim="width",
        num_heads="heads",
    ),
}
# Class -> what of the published code follows from the images' size.
_SIZES = {
    "FocalTransformer": _focal_sizes,
    "RepMLPNet": _block_sides,
    "ResMLP": lambda _, height, width: {"img_size": _square(height, width)},
    "MLPMixer": lambda _, height, width: {"img_size": _square(height, width)},
    "SMLPNet": lambda _, height, width: {"image_size": _square(height, width)},
    "SwinTransformer": lambda _, height, width: {
        "img_size": (height, width) if height and width else None
    },
}
