"""Weighted k-nearest-neighbour classification of features.

Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, 2018, Sect. 3.4; as Caron et al. (DINO), 2021, Sect. 4.1, evaluate.
"""

import numpy as np

TEMPERATURE = 0.07
# Similarities that exist at a time: 64 MiB, and twice that for their order.
QUERIES, MEMORIES = 256, 65_536


def normalise(features):
    """Gives features `(N, C)` the length 1, in place; those of length 0 stay."""
    lengths = np.sqrt(np.einsum("nc,nc->n", features, features))
    features /= np.where(lengths > 0, lengths, 1)[:, None]
    return features


def votes(queries, memory, labels, classes, counts):
    """The votes of every query's nearest neighbours, for several k at once.

    A neighbour of cosine similarity s votes for its class with exp(s / 0.07). Of
    neighbours equally near the one that comes first in `memory` counts.

    Args:
        queries: `(Q, C)`, normalised.
        memory: `(M, C)`, normalised.
        labels: `(M,)` class numbers of `memory`.
        classes: their number.
        counts: values of k, each of 1 to M.

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


def nearest(queries, memory, k):
    """The k nearest, nearest first, without holding all similarities.

    Returns:
        `(similarities, indices)`, `(Q, k)`; of equal ones the lower index is first.
    """
    similarities = np.empty((len(queries), 0), "float32")
    indices = np.empty((len(queries), 0), "int64")
    for start in range(0, len(memory), MEMORIES):
        found = queries @ memory[start : start + MEMORIES].T
        best = largest(found, min(k, found.shape[1]))
        # What was found before has lower indices and stays before its equals.
        similarities = np.concatenate(
            [similarities, np.take_along_axis(found, best, axis=1)], axis=1
        )
        indices = np.concatenate([indices, best + start], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        similarities = np.take_along_axis(similarities, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
    return similarities, indices


def largest(values, k):
    """Indices of each row's k largest values, sorted; of equal ones the first."""
    best = np.argpartition(values, values.shape[1] - k, axis=1)[:, -k:]
    smallest = np.take_along_axis(values, best, axis=1).min(axis=1)
    # Where more than k reach the smallest, the partition chose any of the equal ones.
    tied = np.flatnonzero((values >= smallest[:, None]).sum(axis=1) > k)
    best[tied] = np.argsort(-values[tied], axis=1, kind="stable")[:, :k]
    return np.sort(best, axis=1)
