"""The published PyTorch network that a Keras model of ours corresponds to."""

import inspect

from kmlp import pytorch

# What has no bearing on the network's operations in inference.
_INDIFFERENT = {"drop_path_rate", "layer_scale", "name", "trainable", "dtype"}


def counterpart(model, **overrides):
    """A PyTorch network of a model's configuration, with fresh weights.

    Args:
        model: of one of the five families, in its train form.
        **overrides: of the PyTorch constructor, such as `deploy=True` of RepMLPNet.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: no family of ours, or an option that the published code lacks.
    """
    family = type(model).__name__
    if not type(model).__module__.startswith("kmlp.") or family not in _TRANSLATIONS:
        raise ValueError(
            f"there is no published PyTorch network of this kind. Received: {family}"
        )
    translate, translated = _TRANSLATIONS[family]
    config = model.get_config()
    _check(type(model), config, {"num_classes", "input_shape", *translated.split()})
    return pytorch.build(
        family.lower(), **translate(config, *config["input_shape"][:2]), **overrides
    )


def _check(family, config, translated):
    """Raises `ValueError` where an option beyond the published ones is in use."""
    defaults = inspect.signature(family).parameters
    for name, value in config.items():
        if name in translated | _INDIFFERENT:
            continue
        default = defaults[name].default
        # Sequences come back from a checkpoint as lists.
        if _plain(value) != _plain(default):
            raise ValueError(
                f"the published {family.__name__} has no such option. "
                f"Received: {name}={value!r}"
            )


def _plain(value):
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def _square(height, width):
    if height != width or height is None:
        raise ValueError(
            f"the published network takes square images. Received: {height}x{width}"
        )
    return height


def _repmlpnet(config, height, width):
    grid = config["block_size"] or [s // config["patch_size"] for s in (height, width)]
    sides = [[side // 2**i for i in range(len(config["depths"]))] for side in grid]
    return {
        "channels": config["widths"],
        "hs": sides[0],
        "ws": sides[1],
        "num_blocks": config["depths"],
        "sharesets_nums": config["share_sets"],
        "reparam_conv_k": config["local_kernels"],
        "patch_size": config["patch_size"],
        "num_class": config["num_classes"],
    }


def _resmlp(config, height, width):
    return {
        "img_size": _square(height, width),
        "patch_size": config["patch_size"],
        "embed_dim": config["width"],
        "depth": config["depth"],
        "num_classes": config["num_classes"],
    }


def _convmlp(config, height, width):
    return {
        "blocks": config["depths"],
        "dims": config["widths"],
        "mlp_ratios": config["mlp_ratios"],
        "channels": config["stem_width"],
        "n_conv_blocks": config["conv_blocks"],
        "num_classes": config["num_classes"],
    }


def _msmlp(config, height, width):
    return {
        "embed_dim": config["width"],
        "depths": config["depths"],
        "mix_size": config["regions"],
        "num_classes": config["num_classes"],
    }


def _smlpnet(config, height, width):
    return {
        "dim": config["width"],
        "alpha": config["mlp_ratio"],
        "depths": config["depths"],
        "image_size": _square(height, width),
        "patch_size": config["patch_size"],
        "num_classes": config["num_classes"],
    }


# Class -> (translation, the options that it translates).
_TRANSLATIONS = {
    "RepMLPNet": (
        _repmlpnet,
        "depths widths share_sets local_kernels patch_size block_size",
    ),
    "ResMLP": (_resmlp, "patch_size width depth"),
    "ConvMLP": (_convmlp, "stem_width conv_blocks widths depths mlp_ratios"),
    "MSMLP": (_msmlp, "width depths regions"),
    "SMLPNet": (_smlpnet, "width depths mlp_ratio patch_size"),
}
