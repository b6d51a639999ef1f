"""The ablations of ConvMLP's paper.

Li, Hassani, Walton, Shi: ConvMLP: Hierarchical Convolutional MLPs for Vision, 2021.
"""

from kmlp.models.ablations.row import Row

# Sect. 4.1: ablations are trained for 100 epochs at twice the rate.
_SHORT = {"epochs": 100, "learning_rate": 1e-3}
_LONG = {"epochs": 300}


def _row(name, conv_stage, downsample, depthwise, recipe=_SHORT, **figures):
    return Row(
        f"convmlp/table2/{name}",
        "convmlp_s",
        {"conv_stage": conv_stage, "downsample": downsample, "depthwise": depthwise},
        recipe=recipe,
        **figures,
    )


ROWS = (
    _row(
        "mlp_merge",
        "mlp",
        "merge",
        False,
        top1=63.29,
        parameters="7.88",
        macs="1.47",
        counted=(7_877_960, 1_462_841_344),
    ),
    _row(
        "plain_merge",
        "plain",
        "merge",
        False,
        top1=66.69,
        parameters="7.89",
        macs="1.59",
        counted=(7_888_840, 1_578_446_848),
    ),
    _row(
        "plain_conv",
        "plain",
        "conv",
        False,
        top1=69.56,
        parameters="8.71",
        macs="1.65",
        counted=(8_705_736, 1_642_672_128),
    ),
    _row(
        "plain_merge_depthwise",
        "plain",
        "merge",
        True,
        top1=73.84,
        parameters="7.91",
        macs="1.59",
        counted=(7_914_184, 1_582_511_104),
    ),
    _row(
        "plain_conv_depthwise",
        "plain",
        "conv",
        True,
        top1=74.04,
        parameters="8.73",
        macs="1.65",
        counted=(8_731_080, 1_646_736_384),
    ),
    _row(
        "plain_conv_depthwise_300",
        "plain",
        "conv",
        True,
        _LONG,
        top1=76.33,
        parameters="8.73",
        macs="1.65",
        counted=(8_731_080, 1_646_736_384),
    ),
    _row(
        "bottleneck_conv_depthwise_300",
        "bottleneck",
        "conv",
        True,
        _LONG,
        top1=76.81,
        parameters="9.02",
        macs="2.40",
        counted=(9_022_920, 2_385_327_104),
    ),
)
