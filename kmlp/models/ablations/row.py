"""One row of a table of ablations."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of a paper's table of ablations: what it is, and what was reported.

    Attributes:
        name: `paper/table/row`, such as `"convmlp/table2/mlp_merge"`.
        architecture: name of the variant that it is a change of.
        arguments: of the variant's class, where they differ from the variant's.
        top1: percent on ImageNet-1k (CIFAR-100 where the architecture is made for it),
            as the paper has it; `None` where it has none.
        parameters: trainable parameters in millions as the paper prints them, such as
            `"7.88"`; `""` where it has none.
        macs: multiply-adds in billions as the paper prints them (its FLOPs); `""`
            where it has none.
        counted: `(trainable parameters, multiply-adds)` of the row as it is built here,
            to the unit.
        recipe: fields of the paper's recipe that differ for the row, such as
            `{"epochs": 100}`.
        note: what the row leaves open and how it is read here, and why the counts
            differ from the paper's where they do.
        differs: names of the paper's figures (`"parameters"`, `"macs"`) that the counts
            do not agree with to rounding; `note` says why.
    """

    name: str
    architecture: str
    arguments: dict = dataclasses.field(default_factory=dict)
    top1: float | None = None
    parameters: str = ""
    macs: str = ""
    counted: tuple[int, int] | None = None
    recipe: dict = dataclasses.field(default_factory=dict)
    note: str = ""
    differs: tuple[str, ...] = ()
