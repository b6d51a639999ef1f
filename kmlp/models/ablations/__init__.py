"""The papers' ablations as data: `paper/table/row` to a network and its figures."""

import fnmatch

from kmlp.models.ablations import (
    convmlp_tables,
    hybrids_tables,
    msmlp_tables,
    repmlpnet_tables,
    resmlp_tables,
    smlpnet_tables,
)
from kmlp.models.ablations.row import Row

__all__ = ["ABLATIONS", "Row", "list_ablations"]

# Name -> row, in the papers' order.
ABLATIONS = {
    row.name: row
    for paper in (
        repmlpnet_tables,
        resmlp_tables,
        convmlp_tables,
        msmlp_tables,
        hybrids_tables,
        smlpnet_tables,
    )
    for row in paper.ROWS
}


def list_ablations(pattern: str = "*") -> list[str]:
    """Names of the papers' ablations that match a shell pattern, in the papers' order.

    Each is an architecture: `create_model` builds it, `training/train.py --arch`
    trains it.

    Args:
        pattern: such as `"convmlp/table2/*"`.
    """
    return [name for name in ABLATIONS if fnmatch.fnmatchcase(name, pattern)]
