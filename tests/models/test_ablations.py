"""The papers' ablations: every row is built and held against its table."""

import decimal
import functools
import re

import pytest

import kmlp
from kmlp.analysis.complexity import shapes_only
from kmlp.models.papers import ABLATIONS

# Multiply-adds are counted in several ways: with or without norms, pooling, scales.
MACS_TOLERANCE = 0.015


@functools.cache
def counts(name):
    """Trainable parameters and multiply-adds of a row's network."""
    # Values are of no interest, and drawing them takes long.
    with shapes_only():
        profile = kmlp.profile(kmlp.create_model(name))
    return profile.trainable, profile.macs


def half_unit(printed):
    """Half a unit of the last digit of a printed figure."""
    return 0.5 * 10.0 ** decimal.Decimal(printed).as_tuple().exponent


@pytest.mark.long
@pytest.mark.parametrize("name", ABLATIONS)
def test_counts_are_those_that_the_row_states(name):
    row = ABLATIONS[name]
    assert counts(name) == row.counted
    agrees = {}
    if row.parameters:
        difference = abs(row.counted[0] / 1e6 - float(row.parameters))
        agrees["parameters"] = difference <= 1.001 * half_unit(row.parameters)
    if row.macs:
        stated = float(row.macs)
        difference = abs(row.counted[1] / 1e9 - stated)
        bound = max(MACS_TOLERANCE * stated, half_unit(row.macs))
        agrees["macs"] = difference <= bound
    assert tuple(k for k, good in agrees.items() if not good) == row.differs
    assert row.notes or not row.differs


def test_names_are_tables_and_rows():
    for name, row in ABLATIONS.items():
        assert re.fullmatch(r"[a-z]+/[a-z0-9_]+/[a-z0-9_]+", name), name
        assert row.architecture in kmlp.list_models(), name
        assert row.counted is not None, name


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("repmlpnet/table3", 4),
        ("repmlpnet/table4", 12),
        ("resmlp/table4", 8),
        ("convmlp/table2", 7),
        ("msmlp/table9", 4),
        ("msmlp/table10", 4),
        ("msmlp/table12", 6),
        ("msmlp/table13", 8),
        ("smlpnet/table1", 3),
        ("smlpnet/table2", 5),
        ("smlpnet/table3", 4),
        ("smlpnet/table4", 4),
        ("smlpnet/table5", 3),
    ],
)
def test_tables_are_whole(table, rows):
    """As many rows as the paper prints of its own networks."""
    assert len(kmlp.list_ablations(f"{table}/*")) >= rows


# Table, row and figure as the papers print them, read off once more.
PRINTED = """
repmlpnet/table3 75.78 76.48 75.94 77.19
repmlpnet/table4 55.58 57.96 63.76 65.09 59.07 60.73 65.36 67.43 74.33 76.48 78.58 80.88
resmlp/table4 76.6 79.4 79.7 77.8 77.5 79.9 77.7 78.6
convmlp/table2 63.29 66.69 69.56 73.84 74.04 76.33 76.81
msmlp/table10 81.4 81.3 81.9 81.6
msmlp/table12 81.4 81.3 82.8 83.0 83.3 83.2
msmlp/table13 82.1 82.0 81.8 82.0 81.1 81.3 81.2 81.4
smlpnet/table1 81.3 80.6 80.7
smlpnet/table2 83.4 83.2 83.0 82.2 82.0
smlpnet/table3 83.1 81.5 81.8 81.9
smlpnet/table4 81.3 81.1 80.9 80.6
smlpnet/table5 81.3 77.8 76.8
"""


@pytest.mark.parametrize("line", PRINTED.strip().splitlines())
def test_accuracies_are_the_papers(line):
    table, *figures = line.split()
    found = [ABLATIONS[name].top1 for name in kmlp.list_ablations(f"{table}/*")]
    assert found == [float(figure) for figure in figures]


def test_a_row_is_an_architecture_like_any_other():
    model = kmlp.create_model("convmlp/table2/mlp_merge", 5, (64, 96, 3))
    assert model.name == "convmlp_table2_mlp_merge"
    assert model.outputs[0].shape == (None, 5)
    assert "convmlp/table2/mlp_merge" not in kmlp.list_models()
    with pytest.raises(ValueError, match=r"mlp_merge.*Received: 'convmlp/table2/mlp'"):
        kmlp.create_model("convmlp/table2/mlp")
    with pytest.raises(ValueError, match=r"--ablations.*Received: 'a/b/c'"):
        kmlp.create_model("a/b/c")
