"""Graphs of models, and the order in which Keras goes through them."""

import keras


def graph_of(model):
    """A model's graph, `None` where it has none.

    Args:
        model: anything; subclassed and unbuilt Sequential models, and what is no model,
            have no graph.
    """
    if isinstance(model, keras.Sequential):
        return model._functional if model.built else None
    functional = isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")
    return model if functional else None


def ordered_nodes(graph):
    """The nodes of a graph, inputs too, in the order in which Keras runs them."""
    depths = graph._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def calls_of(graph):
    """The nodes of a graph that compute something, in the same order."""
    return [node for node in ordered_nodes(graph) if not node.is_input]
