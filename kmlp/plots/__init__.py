"""Plots: each a function that returns a `matplotlib.figure.Figure`.

matplotlib is an extra, imported when something is drawn.
"""

from kmlp.plots.backend_speed import form_speeds, throughput
from kmlp.plots.cost_chart import costs
from kmlp.plots.feature_sheet import features
from kmlp.plots.kernel_rows import rows
from kmlp.plots.locality_matrices import locality
from kmlp.plots.saliency_sheet import saliency
from kmlp.plots.sparsity_bars import sparsity
from kmlp.plots.training_curves import curves

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
