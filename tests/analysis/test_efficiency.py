"""Accuracy for what it costs, against ConvMLP's Table 3."""

import gc

import pytest

from kmlp.analysis.efficiency import cost, costs, efficiency
from kmlp.models.papers import REPORTED, reported

# Acc/GMACs and Acc/MParams as the table prints them.
TABLE3 = {
    "convmlp_s": ("32.0", "8.5"),
    "convmlp_m": ("20.3", "4.5"),
    "convmlp_l": ("8.1", "1.9"),
    "resmlp_s12": ("25.5", "5.0"),
    "resmlp_s24": ("13.2", "2.6"),
    "resmlp_b24": ("3.5", "0.7"),
    "mlp_mixer_b16": ("6.1", "1.3"),
    "swin_b": ("5.4", "1.0"),
}
# Parameters (M), GMACs and top-1 of networks that are not built here.
OTHERS = {
    ("11.7", "1.8", "69.8"): ("38.8", "6.0"),
    ("5.4", "0.2", "75.2"): ("376.0", "13.9"),
    ("25.6", "4.1", "76.1"): ("18.6", "3.0"),
    ("44.6", "7.8", "78.0"): ("10.0", "1.7"),
}


def printed(found):
    return f"{found.per_gmac:.1f}", f"{found.per_mparam:.1f}"


@pytest.mark.parametrize("name", TABLE3)
def test_printed_figures_have_the_printed_efficiency(name):
    row = next(row for row in REPORTED[name] if row.source == "ConvMLP, Table 3")
    found = efficiency(row.top1, float(row.macs) * 1e9, float(row.parameters) * 1e6)
    assert printed(found) == TABLE3[name]


@pytest.mark.parametrize("figures", OTHERS)
def test_so_do_other_networks_of_the_table(figures):
    parameters, gmacs, top1 = map(float, figures)
    assert printed(efficiency(top1, gmacs * 1e9, parameters * 1e6)) == OTHERS[figures]


def test_costs_of_a_network():
    found = cost("convmlp_s")
    assert found.image_size == (224, 224)
    assert (found.parameters, found.macs) == (9_022_920, 2_385_327_104)
    assert found.reported == reported("convmlp_s")
    assert found.top1 == 76.8
    # By hand: 76.8 / 2.385327104 and 76.8 / 9.02292; 76.8 / 2.4 and 76.8 / 9.0.
    assert found.efficiency.per_gmac == pytest.approx(32.19684, abs=1e-5)
    assert found.efficiency.per_mparam == pytest.approx(8.51166, abs=1e-5)
    assert found.reported_efficiency.per_gmac == pytest.approx(32.0)
    assert found.reported_efficiency.per_mparam == pytest.approx(8.53333, abs=1e-5)


def test_costs_of_networks_one_after_another():
    names = ["convmlp_s", "resmlp_12_cifar"]
    assert list(costs(names)) == [cost(name) for name in names]
    with pytest.raises(ValueError, match="Received: 'convmlp_z'"):
        list(costs(["convmlp_z"]))
    assert gc.isenabled()


def test_no_accuracy_no_efficiency():
    found = cost("msmlp/table9/local")
    assert (found.top1, found.efficiency, found.reported_efficiency) == (None,) * 3
    found = cost("repmlpnet/table4/repmlpnet_1x1")
    assert found.top1 == 60.73
    assert found.efficiency.per_mparam == pytest.approx(60.73 / 8.306004)
    assert found.reported_efficiency is None


def test_nothing_to_divide_by():
    with pytest.raises(ValueError, match="Received: macs=0, parameters=5"):
        efficiency(76.8, 0, 5)
