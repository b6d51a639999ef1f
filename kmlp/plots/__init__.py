"""Plots: each a function that returns a `matplotlib.figure.Figure`.

matplotlib is an extra, imported when something is drawn.
"""

from kmlp.plots.benchmark import throughput
from kmlp.plots.costs import costs
from kmlp.plots.curves import curves
from kmlp.plots.features import features
from kmlp.plots.forms import form_speeds
from kmlp.plots.locality import locality
from kmlp.plots.rows import rows
from kmlp.plots.saliency import saliency
from kmlp.plots.sparsity import sparsity

__all__ = [
    "costs",
    "curves",
    "features",
    "form_speeds",
    "locality",
    "rows",
    "saliency",
    "sparsity",
    "throughput",
]
