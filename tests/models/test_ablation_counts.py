"""The figures of the papers' ablations, by hand arithmetic and from the fact sheets."""

import pytest
from counting import expected

from kmlp.models.papers import ABLATIONS

PAPERS = ("repmlpnet/", "convmlp/", "msmlp/table9", "msmlp/figure3", "smlpnet/")
COUNTED = [
    name
    for name in ABLATIONS
    if name.startswith((*PAPERS, "msmlp/table12", "msmlp/table13"))
]
# As the fact sheets have them: trainable parameters, or millions of them.
SHEETS = {
    "convmlp/table2/mlp_merge": 7_877_960,
    "convmlp/table2/plain_merge": 7_888_840,
    "convmlp/table2/plain_conv": 8_705_736,
    "convmlp/table2/plain_merge_depthwise": 7_914_184,
    "convmlp/table2/plain_conv_depthwise": 8_731_080,
    "convmlp/table2/bottleneck_conv_depthwise_300": 9_022_920,
    "msmlp/table12/t_2_2_6_2": "24.19",
    "msmlp/table12/s_2_2_18_2": "42.16",
    "msmlp/table12/b_2_2_18_2": "74.35",
    "msmlp/table12/t_2_2_2_6_2": "24.26",
    "msmlp/table12/s_2_2_2_18_2": "42.23",
    "msmlp/table12/b_2_2_2_18_2": "74.47",
    "smlpnet/table1/global_only": "19.1",
    "smlpnet/table1/local_only": "22.54",
    "smlpnet/table2/s2_s3_s4": "65.79",
    "smlpnet/table2/s3_s4": "64.29",
    "smlpnet/table2/s4": "49.93",
    "smlpnet/table2/none": "45.13",
    "smlpnet/table3/sum": "33.2",
    "smlpnet/table3/weighted_sum": "33.3",
    "smlpnet/table5/multi_stage_mlp": "22.67",
    "smlpnet/table5/single_stage_mlp": "30.42",
    "repmlpnet/table3/gate": 38_293_608,
    "repmlpnet/table4/imagenet_d256_both": 86_887_648,
}


@pytest.mark.parametrize("name", COUNTED)
def test_stated_counts_are_those_of_the_formulas(name):
    assert ABLATIONS[name].counted == expected(name)


@pytest.mark.parametrize("name", SHEETS)
def test_stated_parameters_are_the_sheets(name):
    trainable, stated = ABLATIONS[name].counted[0], SHEETS[name]
    if isinstance(stated, str):
        digits = len(stated.partition(".")[2])
        assert f"{trainable / 1e6:.{digits}f}" == stated
    else:
        assert trainable == stated


# Table 4 of RepMLPNet: parameters (of ResMLP with two moving statistics per norm) and
# thousands of multiply-adds that branches add.
ADDED = {
    "resmlp": {"1x1": (60, 786), "3x3": (156, 7077), "both": (216, 7864)},
    "repmlpnet": {"1x1": (720, 294), "3x3": (2640, 2654), "both": (3360, 2949)},
}


@pytest.mark.parametrize("network", ADDED)
def test_branches_add_what_the_paper_says(network):
    table = "repmlpnet/table4"
    parameters, macs = ABLATIONS[f"{table}/{network}_none"].counted
    for branches, (more, thousands) in ADDED[network].items():
        row = ABLATIONS[f"{table}/{network}_{branches}"]
        norms = len(row.arguments["local_kernels"])
        statistics = 2 * 12 * norms if network == "resmlp" else 0
        assert row.counted[0] - parameters + statistics == more
        assert (row.counted[1] - macs) // 1000 == thousands
    for variant, more in (("t224", 5068), ("d256", 7756)):
        none, both = (
            ABLATIONS[f"{table}/imagenet_{variant}_{words}"].counted[0]
            for words in ("none", "both")
        )
        assert both - none == more
