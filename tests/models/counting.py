"""Parameters and multiply-adds of the papers' networks, by hand arithmetic.

Formulas of the papers and of the blocks as published, over the constructors' arguments;
nothing here builds a model. Every function returns (trainable parameters,
multiply-adds).
"""

import inspect
import math

from kmlp.models.registry import variant


def expected(name):
    """The counts of an architecture or ablation by name."""
    family, given = variant(name)
    known = inspect.signature(family).parameters.items()
    arguments = {key: parameter.default for key, parameter in known}
    return _COUNTS[family.__name__](**{**arguments, **given})


def linear(inputs, outputs, positions, bias=True):
    """A map of channels at so many positions; the inputs of a convolution are taps."""
    return inputs * outputs + bias * outputs, positions * inputs * outputs


def norm(channels):
    """Scale and shift."""
    return 2 * channels, 0


def mlp(channels, ratio, positions, bias=True):
    """Two maps with `ratio` times the channels between them."""
    hidden = channels * ratio
    return total(
        linear(channels, hidden, positions, bias),
        linear(hidden, channels, positions, bias),
    )


def depthwise(channels, taps, positions, bias=False):
    return channels * (taps + bias), positions * channels * taps


def positions_fc(positions, channels, sets=1, bias=True):
    """A map over positions per share-set."""
    return sets * (positions**2 + bias * positions), channels * positions**2


def total(*parts):
    parameters, macs = zip(*parts)
    return sum(parameters), sum(macs)


def times(count, part):
    return count * part[0], count * part[1]


def _sides(input_shape, patch, stages):
    """Tokens along height and width per stage."""
    return [[s // patch // 2**i for s in input_shape[:2]] for i in range(stages)]


def convmlp(
    *,
    num_classes,
    input_shape,
    stem_width,
    conv_blocks,
    widths,
    depths,
    mlp_ratios,
    conv_stage,
    downsample,
    depthwise: bool,
    **_,
):
    pixels = math.prod(input_shape[:2])

    def conv(inputs, outputs, stride, taps=9):
        mapped = linear(taps * inputs, outputs, pixels // stride**2, bias=False)
        return total(mapped, norm(outputs))

    def halving(inputs, outputs, stride):
        if downsample == "merge":
            merged = linear(4 * inputs, outputs, pixels // stride**2, bias=False)
            return total(norm(4 * inputs), merged)
        return linear(9 * inputs, outputs, pixels // stride**2)

    def block(channels, ratio, stride, between):
        tokens = pixels // stride**2
        halves = total(norm(channels), mlp(channels, ratio, tokens))
        parts = [times(2, halves)]
        if between:
            parts += [norm(channels), (9 * channels, 9 * channels * tokens)]
        return total(*parts)

    stem, inner = stem_width, widths[0]
    parts = [conv(3, stem // 2, 2), conv(stem // 2, stem // 2, 2)]
    parts += [conv(stem // 2, stem, 2)]
    if conv_stage == "plain":
        parts += [times(conv_blocks - 1, conv(stem, stem, 4)), conv(stem, inner, 4)]
    else:
        bottleneck = total(
            conv(stem, inner, 4, 1), conv(inner, inner, 4), conv(inner, stem, 4, 1)
        )
        pair = block(stem, mlp_ratios[0], 4, False)
        unit = bottleneck if conv_stage == "bottleneck" else pair
        parts += [times(conv_blocks, unit), halving(stem, inner, 8)]
    for stage, (width, depth) in enumerate(zip(widths, depths)):
        stride = 8 * 2**stage
        unit = block(width, mlp_ratios[stage], stride, depthwise)
        parts.append(times(depth, unit))
        if stage + 1 < len(widths):
            parts.append(halving(width, widths[stage + 1], 2 * stride))
    return total(*parts, norm(widths[-1]), linear(widths[-1], num_classes, 1))


def msmlp(
    *,
    num_classes,
    input_shape,
    width,
    depths,
    regions,
    shifts,
    mixing,
    projections,
    mlp_ratio,
    patch_size,
    **_,
):
    parts, channels = [], width
    for stage, (height, side) in enumerate(
        _sides(input_shape, patch_size, len(depths))
    ):
        tokens = height * side
        inputs = 4 * channels // 2 if stage else 3 * patch_size**2
        parts += [linear(inputs, channels, tokens), norm(channels)]
        first = -(-channels // len(shifts))
        groups = [first] * (len(shifts) - 1)
        groups.append(channels - sum(groups))
        block = [norm(channels), mlp(channels, mlp_ratio, tokens), (channels, 0)]
        for group, region in zip(groups, regions[stage]):
            reached = region**2 * (group if mixing == "full" else 1)
            path = group * (reached + 1), tokens * group * reached
            block.append(times(2, path))
        if projections:
            block.append(times(2, linear(channels, channels, tokens, bias=False)))
        parts.append(times(depths[stage], total(*block)))
        channels *= 2
    channels //= 2
    return total(*parts, norm(channels), linear(channels, num_classes, 1))


def smlpnet(
    *,
    num_classes,
    input_shape,
    width,
    depths,
    mlp_ratio,
    patch_size,
    local_mixing,
    global_mixing,
    fusion,
    axes,
    identity,
    **_,
):
    if not isinstance(global_mixing, tuple):
        global_mixing = (global_mixing,) * len(depths)
    paths = identity + (2 if axes == "parallel" else 1)
    parts, channels = [], width
    for stage, (rows, columns) in enumerate(
        _sides(input_shape, patch_size, len(depths))
    ):
        tokens = rows * columns
        inputs = 4 * channels // 2 if stage else 3 * patch_size**2
        parts.append(linear(inputs, channels, tokens, bias=False))
        local = total(norm(channels), depthwise(channels, 9, tokens))
        block = [norm(channels), mlp(channels, mlp_ratio, tokens)]
        if local_mixing:
            block.append(local)
        if global_mixing[stage] == "depthwise":
            block.append(local)
        elif global_mixing[stage] == "positions":
            fc = positions_fc(tokens, channels)
            block += [norm(channels), times(2, fc)]
        elif global_mixing[stage]:
            block.append(norm(channels))
            for side, others in ((columns, rows), (rows, columns)):
                block.append(positions_fc(side, others * channels))
            if fusion == "concat":
                block.append(linear(paths * channels, channels, tokens, bias=False))
            elif fusion == "weighted_sum":
                block.append((paths * channels, 0))
        parts.append(times(depths[stage], total(*block)))
        channels *= 2
    channels //= 2
    return total(*parts, norm(channels), linear(channels, num_classes, 1))


def repmlpnet(
    *,
    num_classes,
    input_shape,
    depths,
    widths,
    share_sets,
    local_kernels,
    patch_size,
    gate_reduction,
    global_perceptron,
    mlp_ratio,
    **_,
):
    parts = []
    for stage, (height, side) in enumerate(
        _sides(input_shape, patch_size, len(depths))
    ):
        tokens, sets, width = height * side, share_sets[stage], widths[stage]
        inputs = 4 * widths[stage - 1] if stage else 3 * patch_size**2
        parts += [linear(inputs, width, tokens, bias=False), norm(width)]
        block = [
            times(2, norm(width)),
            positions_fc(tokens, width, sets, bias=False),
            norm(sets),
            mlp(width, mlp_ratio, tokens, bias=False),
            norm(width * mlp_ratio),
            norm(width),
        ]
        for size in local_kernels:
            block += [(sets * size**2, tokens * width * size**2), norm(sets)]
        if global_perceptron:
            hidden = width // gate_reduction
            block += [linear(width, hidden, 1), linear(hidden, width, 1)]
        parts.append(times(depths[stage], total(*block)))
    return total(*parts, norm(widths[-1]), linear(widths[-1], num_classes, 1))


def resmlp(
    *,
    num_classes,
    input_shape,
    patch_size,
    width,
    depth,
    mlp_ratio,
    local_kernels,
    **_,
):
    tokens = math.prod(side // patch_size for side in input_shape[:2])
    block = [
        times(2, total(norm(width), (width, 0))),
        positions_fc(tokens, width),
        mlp(width, mlp_ratio, tokens),
    ]
    for size in local_kernels:
        block += [(size**2, tokens * width * size**2), norm(1)]
    return total(
        linear(3 * patch_size**2, width, tokens),
        times(depth, total(*block)),
        norm(width),
        linear(width, num_classes, 1),
    )


_COUNTS = {
    "ConvMLP": convmlp,
    "MSMLP": msmlp,
    "SMLPNet": smlpnet,
    "RepMLPNet": repmlpnet,
    "ResMLP": resmlp,
}
