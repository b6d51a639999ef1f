"""Small backbones of the four hierarchical families, for dense models."""

import keras
import numpy as np

import kmlp

SIZE = (64, 96, 3)
BACKBONES = {
    "convmlp": (
        kmlp.ConvMLP,
        {"stem_width": 8, "conv_blocks": 1, "widths": (16, 24, 32)}
        | {"depths": (1, 1, 1)},
    ),
    "msmlp": (
        kmlp.MSMLP,
        {"width": 10, "depths": (1, 1, 1, 1), "layer_scale": 0.5},
    ),
    "repmlpnet": (
        kmlp.RepMLPNet,
        {"widths": (8, 16, 32, 64), "depths": (1, 1, 1, 1)}
        | {"share_sets": (1, 4, 8, 16), "block_size": (8, 8), "downsample": "conv3"},
    ),
    "smlpnet": (
        kmlp.SMLPNet,
        {"width": 8, "depths": (1, 1, 1, 1), "mlp_ratio": 1, "block_size": (16, 16)},
    ),
}
ANY_SIZE = ("convmlp", "msmlp")


def backbone(family, input_shape=SIZE, **changes):
    """A backbone without classifier."""
    cls, arguments = BACKBONES[family]
    arguments = {"drop_path_rate": 0.0, **arguments, **changes}
    return cls(input_shape=input_shape, include_top=False, **arguments)


def images(count=2, size=SIZE, seed=0):
    """Normalised noise with large and small structure."""
    draws = np.random.default_rng(seed)
    coarse = draws.normal(size=(count, 8, 8, 3)).astype("float32")
    fine = draws.normal(size=(count, *size)).astype("float32")
    rows = np.arange(size[0]) * 8 // size[0]
    columns = np.arange(size[1]) * 8 // size[1]
    return coarse[:, rows][:, :, columns] + 0.3 * fine


def randomised(model, seed=0):
    """The model with random norm statistics, scales and shifts."""
    draws = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(draws.uniform(0.5, 1.5, shape))
            layer.beta.assign(draws.normal(0, 0.3, shape))
            layer.moving_mean.assign(draws.normal(0, 0.3, shape))
            layer.moving_variance.assign(draws.uniform(0.5, 1.5, shape))
        elif isinstance(layer, keras.layers.LayerNormalization):
            if layer.gamma is not None:
                layer.gamma.assign(draws.uniform(0.5, 1.5, layer.gamma.shape))
            if layer.beta is not None:
                layer.beta.assign(draws.normal(0, 0.3, layer.beta.shape))
    return model


def relative(found, wanted):
    """Largest difference over largest magnitude."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return np.abs(found - wanted).max() / np.abs(wanted).max()
