"""The ablations of ConvMLP's paper.

Li, Hassani, Walton, Shi: ConvMLP: Hierarchical Convolutional MLPs for Vision, 2021.
"""

from kmlp.models.ablations.row import Row

# Sect. 4.1: ablations are trained for 100 epochs at twice the rate.
_SHORT = {"epochs": 100, "learning_rate": 1e-3}
_LONG = {"epochs": 300}


# The same network at two lengths.
_DEPTHWISE = (8_731_080, 1_646_736_384)


def _row(name, mixing, figures, counted, recipe=_SHORT):
    conv_stage, downsample, depthwise = mixing
    top1, parameters, macs = figures
    return Row(
        f"convmlp/table2/{name}",
        "convmlp_s",
        {"conv_stage": conv_stage, "downsample": downsample, "depthwise": depthwise},
        top1=top1,
        parameters=parameters,
        macs=macs,
        counted=counted,
        recipe=recipe,
    )


# The stages' mixing, then top-1, parameters and multiply-adds as the paper has them.
ROWS = (
    _row(
        "mlp_merge",
        ("mlp", "merge", False),
        (63.29, "7.88", "1.47"),
        (7_877_960, 1_462_841_344),
    ),
    _row(
        "plain_merge",
        ("plain", "merge", False),
        (66.69, "7.89", "1.59"),
        (7_888_840, 1_578_446_848),
    ),
    _row(
        "plain_conv",
        ("plain", "conv", False),
        (69.56, "8.71", "1.65"),
        (8_705_736, 1_642_672_128),
    ),
    _row(
        "plain_merge_depthwise",
        ("plain", "merge", True),
        (73.84, "7.91", "1.59"),
        (7_914_184, 1_582_511_104),
    ),
    _row(
        "plain_conv_depthwise",
        ("plain", "conv", True),
        (74.04, "8.73", "1.65"),
        _DEPTHWISE,
    ),
    _row(
        "plain_conv_depthwise_300",
        ("plain", "conv", True),
        (76.33, "8.73", "1.65"),
        _DEPTHWISE,
        _LONG,
    ),
    _row(
        "bottleneck_conv_depthwise_300",
        ("bottleneck", "conv", True),
        (76.81, "9.02", "2.40"),
        (9_022_920, 2_385_327_104),
        _LONG,
    ),
)
