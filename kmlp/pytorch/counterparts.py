"""The published PyTorch network that a Keras model of ours corresponds to."""

import inspect

from kmlp import pytorch
from kmlp.errors import InputError

# What has no bearing on the network's operations in inference.
_INDIFFERENT = {"drop_path_rate", "layer_scale", "name", "trainable", "dtype"}


def counterpart(model, *, num_classes=None, **overrides):
    """A PyTorch network of a model's configuration, with fresh weights.

    Args:
        model: of one of the families, not merged.
        num_classes: of the classifier; `None`: the model's.
        **overrides: of the PyTorch constructor, such as `deploy=True` of RepMLPNet;
            they take precedence over what follows from the model.

    Raises:
        ImportError: PyTorch is not installed.
        InputError: no family of ours, or an option that the published code lacks.
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
    further = {"RepMLPNet": {"block_size"}, "FocalTransformer": {"expansion"}}
    _check(
        type(model),
        config,
        {"input_shape", *names.values()} | further.get(family, set()),
    )
    arguments = {name: config[ours] for name, ours in names.items()}
    if sizes is not None:
        arguments |= sizes(config, *config["input_shape"][:2])
    (name,) = (n for n, (_, cls) in pytorch.FAMILIES.items() if cls == family)
    return pytorch.build(name, **{**arguments, **overrides})


def _is_mixer(config):
    return all(config.get(name, "") == value for name, value in _MIXER.items())


def _check(family, config, translated):
    """Raises `ValueError` where an option beyond the published ones is in use."""
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
# Class -> {option of the published code: ours}.
_NAMES = {
    "RepMLPNet": {
        "channels": "widths",
        "num_blocks": "depths",
        "sharesets_nums": "share_sets",
        "reparam_conv_k": "local_kernels",
        "patch_size": "patch_size",
        "num_class": "num_classes",
        "deploy": "locality_injected",
    },
    "ResMLP": {
        "patch_size": "patch_size",
        "embed_dim": "width",
        "depth": "depth",
        "num_classes": "num_classes",
    },
    "MLPMixer": {
        "patch_size": "patch_size",
        "embed_dim": "width",
        "num_blocks": "depth",
        "tokens_dim": "mixing_width",
        "mlp_ratio": "mlp_ratio",
        "num_classes": "num_classes",
    },
    "ConvMLP": {
        "blocks": "depths",
        "dims": "widths",
        "mlp_ratios": "mlp_ratios",
        "channels": "stem_width",
        "n_conv_blocks": "conv_blocks",
        "num_classes": "num_classes",
    },
    "FocalTransformer": {
        "patch_size": "patch_size",
        "embed_dim": "width",
        "depths": "depths",
        "num_heads": "heads",
        "window_size": "window_size",
        "mlp_ratio": "mlp_ratio",
        "focal_levels": "focal_levels",
        "focal_windows": "focal_windows",
        "num_classes": "num_classes",
    },
    "MSMLP": {
        "embed_dim": "width",
        "depths": "depths",
        "mix_size": "regions",
        "num_classes": "num_classes",
    },
    "SMLPNet": {
        "dim": "width",
        "alpha": "mlp_ratio",
        "depths": "depths",
        "patch_size": "patch_size",
        "num_classes": "num_classes",
    },
    "SwinTransformer": {
        "embed_dim": "width",
        "depths": "depths",
        "num_heads": "heads",
        "window_size": "window_size",
        "patch_size": "patch_size",
        "num_classes": "num_classes",
    },
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
