"""Classifiers of frozen features: logistic regression, k nearest neighbours."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
    said: Callable[[str], None] = lambda text: None,
) -> tuple[Any, dict[str, Any]]:
    """Fit logistic regression whose penalty is chosen on a tenth of the images.

    Each penalty is tried on the other nine tenths, then the best fitted to all; of
    equally good ones the strongest.

    Args:
        features: Features, `(N, C)`.
        labels: Class numbers, `(N,)`, at least two different ones.
        seed: Number that decides which tenth.
        strengths: Inverse strengths of the penalty to choose from.
        said: Function of a line for every penalty tried.

    Returns:
        Classifier of scikit-learn, and the settings that were chosen.
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
    middle = strengths[len(strengths) // 2]
    best = max(tried, key=lambda strength: tried[strength], default=middle)
    model, converged = _fitted(features, labels, best)
    chosen = {"C": best, "held_out_top1": tried.get(best), "converged": converged}
    return model, chosen


def _fitted(features, labels, strength):
    """Return the classifier and whether it converged."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_ITERATIONS)
    )
    # Threads that wait for each other on a busy machine make it thirty times as slow.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        model.fit(features, labels)
    return model, not any(w.category is ConvergenceWarning for w in noted)


def outputs(model: Any, features: np.ndarray, classes: int) -> np.ndarray:
    """Return a classifier's probabilities for all classes, 0 for those it never saw.

    Args:
        model: Classifier from `fit`.
        features: Features, `(N, C)`.
        classes: Number of all classes.

    Returns:
        Outputs `(N, classes)`, float64.
    """
    found = np.zeros((len(features), classes))
    found[:, model.classes_] = model.predict_proba(features)
    return found


TEMPERATURE = 0.07
# Similarities that exist at a time: 64 MiB, and twice that for their order.
QUERIES, MEMORIES = 256, 65_536


def normalise(features: np.ndarray) -> np.ndarray:
    """Give features `(N, C)` the length 1, in place; those of length 0 stay."""
    lengths = np.sqrt(np.einsum("nc,nc->n", features, features))
    features /= np.where(lengths > 0, lengths, 1)[:, None]
    return features


def votes(
    queries: np.ndarray,
    memory: np.ndarray,
    labels: np.ndarray,
    classes: int,
    counts: Sequence[int],
) -> Iterator[dict[int, np.ndarray]]:
    """Count the votes of every query's nearest neighbours, for several k at once.

    A neighbour of cosine similarity s votes for its class with exp(s / 0.07). Of
    neighbours equally near the one that comes first in `memory` counts.

    Args:
        queries: Features, `(Q, C)`, normalised.
        memory: Features, `(M, C)`, normalised.
        labels: Class numbers of `memory`, `(M,)`.
        classes: Number of classes.
        counts: Values of k, each of 1 to M.

    Yields:
        For blocks of queries in order, `{k: (block, classes)}` float64.
    """
    for start in range(0, len(queries), QUERIES):
        block = queries[start : start + QUERIES]
        similarities, indices = nearest(block, memory, max(counts))
        weights = np.exp(similarities.astype("float64") / TEMPERATURE)
        cells = np.arange(len(block))[:, None] * classes + labels[indices]
        yield {
            k: np.bincount(
                cells[:, :k].ravel(), weights[:, :k].ravel(), len(block) * classes
            ).reshape(len(block), classes)
            for k in counts
        }


def nearest(
    queries: np.ndarray, memory: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest, nearest first, without holding all similarities.

    Returns:
        Tuple `(similarities, indices)`, `(Q, k)`; of equal ones the lower index is
        first.
    """
    similarities = np.empty((len(queries), 0), "float32")
    indices = np.empty((len(queries), 0), "int64")
    for start in range(0, len(memory), MEMORIES):
        found = queries @ memory[start : start + MEMORIES].T
        best = largest(found, min(k, found.shape[1]))
        # Earlier finds have lower indices and stay before their equals.
        similarities = np.concatenate(
            [similarities, np.take_along_axis(found, best, axis=1)], axis=1
        )
        indices = np.concatenate([indices, best + start], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        similarities = np.take_along_axis(similarities, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
    return similarities, indices


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return each row's indices of the k largest values; of equal ones the first."""
    best = np.argpartition(values, values.shape[1] - k, axis=1)[:, -k:]
    smallest = np.take_along_axis(values, best, axis=1).min(axis=1)
    # Where more than k reach the smallest, the partition chose any of the equal ones.
    tied = np.flatnonzero((values >= smallest[:, None]).sum(axis=1) > k)
    best[tied] = np.argsort(-values[tied], axis=1, kind="stable")[:, :k]
    return np.sort(best, axis=1)
