"""The ablations of RepMLPNet's paper.

Ding, Chen, Zhang, Han, Ding: RepMLPNet: Hierarchical Vision MLP with
Re-parameterized Locality, CVPR 2022.
"""

from kmlp.models.ablations.row import Row

# Table 3: share-sets and the Global Perceptron.
_DOUBLED = (2, 8, 32, 256)
_CUT_OFF = (
    "The paper's 2.7 is its 2.79 of Table 2 cut off, where local branches, which are "
    "gone once merged, are not counted; they are 9.5 M here."
)
_GATE = "The paper prints +0.5 M multiply-adds for the gates; they are 479,232."

TABLE3 = (
    Row(
        "repmlpnet/table3/no_gate",
        "repmlpnet_t224",
        {"global_perceptron": False},
        top1=75.78,
        parameters="37.8",
        macs="2.7",
        counted=(37_810_696, 2_807_507_968),
        note=_CUT_OFF,
        differs=("macs",),
    ),
    Row(
        "repmlpnet/table3/gate",
        "repmlpnet_t224",
        top1=76.48,
        parameters="38.3",
        counted=(38_293_608, 2_807_987_200),
        note=_GATE,
    ),
    Row(
        "repmlpnet/table3/doubled_no_gate",
        "repmlpnet_t224",
        {"share_sets": _DOUBLED, "global_perceptron": False},
        top1=75.94,
        parameters="66.7",
        macs="2.7",
        counted=(66_705_320, 2_807_507_968),
        note=_CUT_OFF,
        differs=("macs",),
    ),
    Row(
        "repmlpnet/table3/doubled_gate",
        "repmlpnet_t224",
        {"share_sets": _DOUBLED},
        top1=77.19,
        parameters="67.2",
        counted=(67_188_232, 2_807_987_200),
        note=_GATE,
    ),
)

# Table 4: the Local Perceptron, on CIFAR-100 and on ImageNet.
_KERNELS = {"none": (), "1x1": (1,), "3x3": (3,), "both": (1, 3)}
_RESMLP = (
    "The paper's increment, {0} parameters, counts the moving statistics of the "
    "branches' norms; {1} are trainable."
)
_REPMLPNET = "The paper's increment, {0} parameters, is the trainable ones."


def _cifar(network, words, top1, counted, **figures):
    return Row(
        f"repmlpnet/table4/{network}_{words}",
        {"resmlp": "resmlp_12_cifar", "repmlpnet": "repmlpnet_cifar"}[network],
        {"local_kernels": _KERNELS[words]},
        top1=top1,
        counted=counted,
        **figures,
    )


def _imagenet(variant, words, top1, counted, **figures):
    return Row(
        f"repmlpnet/table4/imagenet_{variant}_{words}",
        f"repmlpnet_{variant}",
        {"local_kernels": _KERNELS[words]},
        top1=top1,
        counted=counted,
        **figures,
    )


TABLE4 = (
    _cifar(
        "resmlp",
        "none",
        55.58,
        (7_144_292, 1_812_751_360),
        parameters="7.1",
        macs="1.812",
    ),
    _cifar(
        "resmlp", "1x1", 57.96, (7_144_328, 1_813_537_792), note=_RESMLP.format(60, 36)
    ),
    _cifar(
        "resmlp",
        "3x3",
        63.76,
        (7_144_424, 1_819_829_248),
        note=_RESMLP.format(156, 132),
    ),
    _cifar(
        "resmlp",
        "both",
        65.09,
        (7_144_460, 1_820_615_680),
        note=_RESMLP.format(216, 168),
    ),
    _cifar(
        "repmlpnet",
        "none",
        59.07,
        (8_305_284, 468_329_472),
        parameters="8.3",
        macs="0.468",
    ),
    _cifar(
        "repmlpnet", "1x1", 60.73, (8_306_004, 468_624_384), note=_REPMLPNET.format(720)
    ),
    _cifar(
        "repmlpnet",
        "3x3",
        65.36,
        (8_307_924, 470_983_680),
        note=_REPMLPNET.format(2640),
    ),
    _cifar(
        "repmlpnet",
        "both",
        67.43,
        (8_308_644, 471_278_592),
        note=_REPMLPNET.format(3360),
    ),
    _imagenet(
        "t224",
        "none",
        74.33,
        (38_288_540, 2_798_453_760),
        parameters="38.3",
        macs="2.79",
    ),
    _imagenet(
        "t224",
        "both",
        76.48,
        (38_293_608, 2_807_987_200),
        note="The paper says +20 K parameters; the published network has 5,068.",
    ),
    _imagenet(
        "d256",
        "none",
        78.58,
        (86_879_892, 8_610_812_160),
        parameters="86.94",
        macs="8.61",
        note="The published network has 86,887,648 trainable parameters with both "
        "branches (86.9 M in Table 2), 7,756 of them the branches'.",
        differs=("parameters",),
    ),
    _imagenet(
        "d256",
        "both",
        80.88,
        (86_887_648, 8_636_207_360),
        note="The paper says +60 K parameters; the published network has 7,756.",
    ),
)

ROWS = (*TABLE3, *TABLE4)
