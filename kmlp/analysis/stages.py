"""A model's layers by stage: stem, a stage per level of the pyramid, head."""

import dataclasses

from kmlp.analysis.graphs import graph_of, ordered_nodes


@dataclasses.dataclass(frozen=True)
class StageProfile:
    """What the layers of one stage need together.

    Attributes:
        name: `"stem"`, a level of the pyramid (`"P2"`: its stride is 2^2), `"head"`;
            `"stem (P2)"` where the first level is what the stem puts out; the model's
            own name where it has no pyramid.
        output_shape: of its last layer.
        trainable, non_trainable, macs, activations: sums over its layers.
        memory: the largest of its layers'.
    """

    name: str
    output_shape: tuple
    trainable: int
    non_trainable: int
    macs: int
    activations: int
    memory: int


def stage_rows(model, rows, ends):
    """The rows of layers gathered by stage.

    The stem are the layers up to the first map of the size of the first level, a stage
    those from there, or from the end of the stage before, to its level's map; what
    makes a map smaller belongs to the stage that follows. The rest is the head.

    Args:
        model: with or without `pyramid_outputs`.
        rows: `LayerProfile`s of all calls.
        ends: how many calls have begun once each node of the model's graph has run.

    Returns:
        A tuple of `StageProfile`s that hold every row once.
    """
    bounds = _bounds(model, rows, ends)
    return tuple(
        StageProfile(
            name=name,
            output_shape=rows[end - 1].output_shape,
            **{
                column: sum(getattr(row, column) for row in rows[start:end])
                for column in ("trainable", "non_trainable", "macs", "activations")
            },
            memory=max(row.memory for row in rows[start:end]),
        )
        for (name, end), (_, start) in zip(bounds, [("", 0), *bounds])
        if end > start
    )


def _bounds(model, rows, ends):
    """The stages' names, and how many rows there are up to the end of each."""
    pyramid = getattr(model, "pyramid_outputs", None)
    if not pyramid or not rows:
        return [(model.name, len(rows))]
    graph = graph_of(model)
    after = {
        id(tensor): end
        for node, end in zip(ordered_nodes(graph), ends, strict=True)
        for tensor in node.outputs
    }
    levels = sorted((after[id(tensor)], name) for name, tensor in pyramid.items())
    size = rows[levels[0][0] - 1].output_shape[1:3]
    stem = next(i for i, row in enumerate(rows, 1) if row.output_shape[1:3] == size)
    first, level = levels[0]
    return [
        ("stem" if stem < first else f"stem ({level})", stem),
        *((name, end) for end, name in levels),
        ("head", len(rows)),
    ]
