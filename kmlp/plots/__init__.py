"""Plots: each a function that returns a `matplotlib.figure.Figure`.

matplotlib is an extra, imported when something is drawn.
"""

from kmlp.plots.image_sheets import features, saliency
from kmlp.plots.kernel_images import locality, rows
from kmlp.plots.line_charts import curves, sparsity
from kmlp.plots.network_charts import costs, form_speeds, throughput
from kmlp.plots.study_charts import study

__all__ = [
    "costs",
    "curves",
    "features",
    "form_speeds",
    "locality",
    "rows",
    "saliency",
    "sparsity",
    "study",
    "throughput",
]
