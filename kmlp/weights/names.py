"""Names of published parameters, as tables from our variables' paths.

A family's function lists `(our layer, published module, kind)`: the first pattern
that matches a variable's path names its module, the kind its parameters and how
their arrays turn into ours. A family can have several naming schemes.
"""

import re

import numpy as np

from kmlp.models import MSMLP, ConvMLP, RepMLPNet, ResMLP, SMLPNet


def _dense(array, shape):
    # (out, in) or a 1×1 convolution (out, in, 1, 1)
    return array.reshape(array.shape[:2]).T


def _conv(array, shape):
    return array.transpose(2, 3, 1, 0)  # (out, in, kh, kw) -> (kh, kw, in, out)


def _patch(array, shape):
    # (out, in, p, p) -> (p·p·in, out)
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def _depthwise(array, shape):
    return array.transpose(2, 3, 0, 1)  # (C, 1, kh, kw) -> (kh, kw, C, 1)


def _local(array, shape):
    return array[:, 0].transpose(1, 2, 0)  # (S, 1, kh, kw) -> (kh, kw, S)


def _same(array, shape):
    # A spatial kernel (S·out, in, 1, 1) is (S, out, in); timm has Aff as (1, 1, C).
    return array.reshape(shape)


_VECTOR = ("bias", _same)
_NORM = {
    "gamma": ("weight", _same),
    "beta": _VECTOR,
    "moving_mean": ("running_mean", _same),
    "moving_variance": ("running_var", _same),
}
_KINDS = {
    "dense": {"kernel": ("weight", _dense), "bias": _VECTOR},
    "conv": {"kernel": ("weight", _conv), "bias": _VECTOR},
    "patch": {"kernel": ("weight", _patch), "bias": _VECTOR},
    "depthwise": {"kernel": ("weight", _depthwise), "bias": _VECTOR},
    "local": {"kernel": ("weight", _local)},
    "positions": {"kernel": ("weight", _same), "bias": _VECTOR},
    "norm": _NORM,
    "affine": {"alpha": ("alpha", _same), "beta": ("beta", _same)},
    # A parameter of the published block itself.
    "parameter": {"gamma": ("", _same)},
}


def repmlpnet(model):
    """RepMLPNet's authors' names, train form."""
    unit, block = r"stage(\d+)_block(\d+)", r"stages.\1.\2"
    return [
        ("stem/dense", "conv_embedding.conv", "patch"),
        ("stem/norm", "conv_embedding.bn", "norm"),
        (r"embed(\d+)/dense", r"embeds.\1.conv", "patch"),
        (r"embed(\d+)/norm", r"embeds.\1.bn", "norm"),
        (f"{unit}_norm", f"{block}.prebn1", "norm"),
        (f"{unit}_global_perceptron/fc(.)", rf"{block}.repmlp_block.gp.fc\3", "dense"),
        (f"{unit}_channel_perceptron", f"{block}.repmlp_block.fc3", "positions"),
        (f"{unit}_channel_perceptron/norm", f"{block}.repmlp_block.fc3_bn", "norm"),
        (
            rf"{unit}_channel_perceptron/local_(\d+)x\3",
            rf"{block}.repmlp_block.repconv\3.conv",
            "local",
        ),
        (
            rf"{unit}_channel_perceptron/local_(\d+)x\3/norm",
            rf"{block}.repmlp_block.repconv\3.bn",
            "norm",
        ),
        (f"{unit}_ffn/norm", f"{block}.prebn2", "norm"),
        (f"{unit}_ffn/fc(.)", rf"{block}.ffn_block.ffn_fc\3.conv", "dense"),
        (f"{unit}_ffn/norm(.)", rf"{block}.ffn_block.ffn_fc\3.bn", "norm"),
        ("head/norm", "head_norm", "norm"),
        ("head/dense", "head", "dense"),
    ]


def resmlp(model):
    """ResMLP's authors' names."""
    return _resmlp("patch_embed", "attn", "gamma_", "mlp")


def resmlp_timm(model):
    """timm's names of ResMLP."""
    return _resmlp("stem", "linear_tokens", "ls", "mlp_channels")


def _resmlp(stem, mixing, scale, mlp):
    block, patches, channels = (
        r"blocks.\1",
        r"block(\d+)_cross_patch",
        r"block(\d+)_cross_channel",
    )
    return [
        ("patch_embed/dense", f"{stem}.proj", "patch"),
        (f"{patches}/norm", f"{block}.norm1", "affine"),
        (f"{patches}/mix", f"{block}.{mixing}", "positions"),
        (patches, f"{block}.{scale}1", "parameter"),
        (f"{channels}/norm", f"{block}.norm2", "affine"),
        (f"{channels}/fc(.)", rf"{block}.{mlp}.fc\2", "dense"),
        (channels, f"{block}.{scale}2", "parameter"),
        ("head/norm", "norm", "affine"),
        ("head/dense", "head", "dense"),
    ]


def convmlp(model):
    """ConvMLP's authors' names."""
    unit, block = r"stage(\d+)_block(\d+)", r"stages.\1.blocks.\2"
    # Their sequences count convolution, norm and ReLU.
    sequences = [
        (f"{ours}{index}/{part}", f"{theirs}.{3 * index + offset}", kind)
        for ours, theirs in (
            ("tokenizer_conv", "tokenizer.block"),
            (r"conv_block(\d+)_conv", r"conv_stages.conv_blocks.\1"),
        )
        for index in range(3)
        for part, offset, kind in (("conv", 0, "conv"), ("norm", 1, "norm"))
    ]
    return [
        *sequences,
        ("conv_downsample/conv", "conv_stages.downsample", "conv"),
        (f"{unit}_mlp(.)/norm", rf"{block}.norm\3", "norm"),
        (f"{unit}_mlp(.)/fc(.)", rf"{block}.channel_mlp\3.fc\4", "dense"),
        (f"{unit}_connect/norm", f"{block}.connect_norm", "norm"),
        (f"{unit}_connect/conv", f"{block}.connect", "depthwise"),
        (
            r"stage(\d+)_downsample/conv",
            r"stages.\1.downsample_mlp.downsample",
            "conv",
        ),
        ("head/norm", "norm", "norm"),
        ("head/dense", "head", "dense"),
    ]


def msmlp(model):
    """MS-MLP's authors' names."""
    unit, block = r"stage(\d+)_block(\d+)", r"layers.\1.blocks.\2"
    return [
        ("patch_embed/dense", "patch_embed.proj", "patch"),
        ("patch_embed/norm", "patch_embed.norm", "norm"),
        (r"downsample(\d+)/dense", r"layers.\1.downsample.proj", "patch"),
        (r"downsample(\d+)/norm", r"layers.\1.downsample.norm", "norm"),
        (
            rf"{unit}_mix_shift/horizontal_(\d+)",
            rf"{block}.dwconv_lr.\3",
            "depthwise",
        ),
        (rf"{unit}_mix_shift/vertical_(\d+)", rf"{block}.dwconv_td.\3", "depthwise"),
        (f"{unit}_mlp/norm", f"{block}.norm", "norm"),
        (f"{unit}_mlp/fc(.)", rf"{block}.pwconv\3", "dense"),
        (f"{unit}_mlp", f"{block}.gamma", "parameter"),
        ("head/norm", "norm", "norm"),
        ("head/dense", "head", "dense"),
    ]


def smlpnet(model):
    """sMLPNet's authors' names; they count blocks through all stages."""
    rules = [
        ("patch_embed/dense", "to_patch_embedding.0.0", "patch"),
        *(
            (f"downsample{i}/dense", f"to_patch_embedding.{i + 1}.0", "patch")
            for i in range(len(model.depths) - 1)
        ),
        ("head/norm", "batch_norm", "norm"),
        ("head/dense", "mlp_head.0", "dense"),
    ]
    units = (
        f"stage{stage}_block{block}"
        for stage, depth in enumerate(model.depths)
        for block in range(depth)
    )
    for index, unit in enumerate(units):
        token, channel = f"token_mix.{index}", f"channel_mix.{index}"
        rules += [
            (f"{unit}_norm/norm", f"{token}.0.conv_merge.BN", "norm"),
            (f"{unit}_depthwise/conv", f"{token}.0.conv_merge.Conv", "depthwise"),
            (f"{unit}_depthwise/norm", f"{token}.1.BN", "norm"),
            # Their proj_h mixes along the width, proh_w along the height.
            (f"{unit}_sparse_mlp/mix_width", f"{token}.1.proj_h", "positions"),
            (f"{unit}_sparse_mlp/mix_height", f"{token}.1.proh_w", "positions"),
            (f"{unit}_sparse_mlp/fuse", f"{token}.1.fuse", "dense"),
            (f"{unit}_ffn/norm", f"{channel}.1", "norm"),
            (f"{unit}_ffn/fc1", f"{channel}.2.net.0", "dense"),
            (f"{unit}_ffn/fc2", f"{channel}.2.net.3", "dense"),
        ]
    return rules


SCHEMES = {
    RepMLPNet: (repmlpnet,),
    ResMLP: (resmlp, resmlp_timm),
    ConvMLP: (convmlp,),
    MSMLP: (msmlp,),
    SMLPNet: (smlpnet,),
}


def published_names(model, scheme):
    """What a published state calls each weight of a model.

    Args:
        model: a model of one of the families.
        scheme: one of `SCHEMES[type(model)]`.

    Returns:
        `{published name: (variable, function (array, shape) -> array)}`.

    Raises:
        ValueError: a variable that the scheme does not name.
    """
    rules = [(re.compile(p), module, _KINDS[kind]) for p, module, kind in scheme(model)]
    names = {}
    for variable in model.weights:
        layer, leaf = variable.path.rsplit("/", 1)
        for pattern, module, parameters in rules:
            match = pattern.fullmatch(layer)
            if match and leaf in parameters:
                parameter, convert = parameters[leaf]
                name = f"{match.expand(module)}.{parameter}".rstrip(".")
                names[name] = (variable, convert)
                break
        else:
            raise ValueError(
                f"{model.name!r} has a structure that was never published: there is "
                f"no published name for {variable.path}. Received: {model!r}"
            )
    return names


def converted(array, variable, convert):
    """An array in our layout, or `None` where it does not have the shape."""
    array = np.asarray(array)
    try:
        array = convert(array, tuple(variable.shape))
    except (ValueError, IndexError):
        return None
    return array if array.shape == tuple(variable.shape) else None
