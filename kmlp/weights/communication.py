"""RepMLPNet's weights for dense prediction, where embeddings see across blocks."""

import numpy as np

from kmlp.errors import InputError
from kmlp.layers.layer import assign, host
from kmlp.models.repmlpnet import DOWNSAMPLINGS


def communicating(model, downsample):
    """A RepMLPNet whose 2×2 embeddings became convolutions, as near as they come.

    Of each output the C×4 kernel of the embedding becomes its nearest product of one
    weight per channel, of the 1×1 convolution, and one per position, of the depthwise
    one; positions outside the old patch begin at zero. Everything else is kept.

    Args:
        model: RepMLPNet in train form with `downsample="patch"`; it is left untouched.
        downsample: `"conv3"` or `"conv5"`.

    Returns:
        The new model, and the share of the embeddings' squared weights that is kept,
        in 0…1.

    Raises:
        InputError: another family, or embeddings that are convolutions already.

    Reference: RepMLPNet, Appendix B, has the structure; the published embeddings
    cannot be mapped onto it exactly.
    """
    own = getattr(model, "downsample", None)
    if own != "patch" or downsample not in DOWNSAMPLINGS:
        raise InputError(
            "A RepMLPNet with 2x2 embeddings becomes one with conv3 or conv5. "
            f"Received: downsample={downsample!r} for {model.name!r} with {own!r}"
        )
    twin = type(model).from_config({**model.get_config(), "downsample": downsample})
    kept = whole = 0.0
    ours = {layer.name: layer for layer in twin.layers}
    for layer in model.layers:
        if layer.name in ours:
            ours[layer.name].set_weights(layer.get_weights())
            continue
        expand = ours[f"{layer.name}_expand"]
        reduce = ours[f"{layer.name}_reduce"]
        kernel = host(layer.dense.kernel)
        channels, positions = _factors(kernel)
        # Positions have the norm 1: the channels' is that of the product.
        kept += float(np.sum(np.square(channels)))
        whole += float(np.sum(np.square(kernel)))
        assign(expand.conv, kernel=channels[None, None])
        size = DOWNSAMPLINGS[downsample]
        spread = np.zeros((size, size, positions.shape[-1], 1))
        centre = size // 2
        spread[centre : centre + 2, centre : centre + 2, :, 0] = positions
        assign(reduce.conv, kernel=spread)
        reduce.normalize.set_weights(layer.normalize.get_weights())
    twin.preprocessing, twin.weights_source = model.preprocessing, model.weights_source
    return twin, kept / max(whole, 1e-30)


def _factors(kernel):
    """`(4C, O)` as `(C, O)` weights of channels and `(2, 2, O)` of positions."""
    outputs = kernel.shape[-1]
    # (2·2·C, O) -> (O, 4, C)
    matrices = kernel.reshape(4, -1, outputs).transpose(2, 0, 1)
    left, values, right = np.linalg.svd(matrices, full_matrices=False)
    positions, channels = left[:, :, 0], right[:, 0] * values[:, :1]
    # Of the two signs the one with which positions add up.
    sign = np.where(positions.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    positions, channels = positions * sign, channels * sign
    return channels.T, positions.T.reshape(2, 2, outputs)
