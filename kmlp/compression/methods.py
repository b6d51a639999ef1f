"""The three ways to make a merged network smaller."""

import dataclasses

import keras

from kmlp.analysis.linear import CHANNEL, MIXING
from kmlp.compression import Clustering, Pruning, QuantizationAware
from kmlp.merging import merge

# Pruning ends after this share of the steps; the rest is to recover.
PRUNED_BY = 0.6
# How often the masks grow on the way.
GROWTHS = 50


@dataclasses.dataclass(frozen=True)
class Compressed:
    """What a method gives.

    Attributes:
        model: merged Keras 3 model, in no strategy and not compiled.
        settings: of the method, for the report.
        write_int8: writes the method's own int8 file, as `kmlp.export.tflite` takes
            path and preprocessing; `None` where quantising after training does.
    """

    model: keras.Model
    settings: dict
    write_int8: object = None


def prune(merged, tuning, options, engine, images):
    """Zeros, growing in number while the network is fitted."""
    if options.pattern == "2:4":
        arguments = {"sparsity_m_by_n": (2, 4)}
        settings = {"pattern": options.pattern}
    else:
        targets = {MIXING: options.mixing_sparsity, CHANNEL: options.sparsity}
        arguments = {"sparsity": targets}
        settings = {"pattern": options.pattern, "sparsity": targets}
    end = max(1, int(PRUNED_BY * tuning.steps))
    pruning = Pruning(end_step=end, frequency=max(1, end // GROWTHS), **arguments)
    with engine.scope():
        model = merge(merged)  # a copy within the scope
        tuning.compile(model, keras)
    tuning.fit(model, [pruning])
    merged.set_weights(model.get_weights())
    return Compressed(merged, {**settings, "devices": options.devices})


def cluster(merged, tuning, options, engine, images):
    """Kernels of few distinct values."""
    import tf_keras

    clustering = Clustering(merged, options.clusters)
    tuning.compile(clustering.model, tf_keras)
    tuning.fit(clustering.model)
    return Compressed(clustering.merged(), {"clusters": options.clusters})


def quantize(merged, tuning, options, engine, images):
    """Weights that were trained to be rounded."""
    import tf_keras

    aware = QuantizationAware(merged, images)
    tuning.compile(aware.model, tf_keras)
    tuning.fit(aware.model)
    return Compressed(aware.merged(), {}, aware.tflite)


METHODS = {"prune": prune, "cluster": cluster, "quantize": quantize}
