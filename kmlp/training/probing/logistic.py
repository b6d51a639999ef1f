"""Linear probing: logistic regression on standardised features."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

# Inverse strengths of the penalty, the strongest first.
STRENGTHS = tuple(10.0**power for power in range(-5, 3))
HELD_OUT = 0.1
MOST_ITERATIONS = 1000


def fit(features, labels, *, seed=0, strengths=STRENGTHS, said=lambda text: None):
    """Logistic regression whose penalty is chosen on a tenth of the images.

    Each penalty is tried on the other nine tenths, then the best fitted to all; of
    equally good ones the strongest.

    Args:
        features: `(N, C)`.
        labels: `(N,)` class numbers, at least two different ones.
        seed: which tenth.
        strengths: inverse strengths of the penalty to choose from.
        said: called with a line for every penalty tried.

    Returns:
        `(classifier, what was chosen)`: of scikit-learn, and a dictionary.
    """
    features = np.asarray(features, "float64")
    # A tenth that holds every class where there are images enough.
    enough = np.unique(labels, return_counts=True)[1].min() >= 1 / HELD_OUT
    parts = train_test_split(
        features,
        labels,
        test_size=HELD_OUT,
        random_state=seed,
        stratify=labels if enough else None,
    )
    tried = {}
    if len(np.unique(parts[2])) > 1:
        for strength in strengths:
            model, _ = _fitted(parts[0], parts[2], strength)
            tried[strength] = float(model.score(parts[1], parts[3]))
            said(f"C {strength:g}: {tried[strength]:.2%} of the held-out tenth")
    best = max(tried, key=tried.get, default=strengths[len(strengths) // 2])
    model, converged = _fitted(features, labels, best)
    chosen = {"C": best, "held_out_top1": tried.get(best), "converged": converged}
    return model, chosen


def _fitted(features, labels, strength):
    """`(classifier, whether it converged)`."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_ITERATIONS)
    )
    # Threads that wait for each other on a busy machine make it thirty times as slow.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        model.fit(features, labels)
    return model, not any(w.category is ConvergenceWarning for w in noted)


def outputs(model, features, classes):
    """A classifier's probabilities for all classes, 0 for those it never saw.

    Args:
        model: as `fit` gives it.
        features: `(N, C)`.
        classes: number of all classes.

    Returns:
        `(N, classes)` float64.
    """
    found = np.zeros((len(features), classes))
    found[:, model.classes_] = model.predict_proba(features)
    return found
