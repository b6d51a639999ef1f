"""Fine-tuning with stock Keras, of either generation."""

import dataclasses
import sys

import keras
import tensorflow as tf

from kmlp.analysis.linear import CHANNEL, MIXING
from kmlp.compression.clustering import Clustering
from kmlp.compression.pruning import Pruning
from kmlp.compression.quantization import QuantizationAware
from kmlp.data.images import steps_per_epoch
from kmlp.data.reading import evaluation_batches, reason
from kmlp.merging import merge
from kmlp.training.input.pipeline import training_batches


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How and on what a network is fine-tuned.

    Attributes:
        source: loaded `Source`.
        recipe: `Recipe` of the run: its batch, augmentation and smoothing count.
        epochs: how many.
        learning_rate: at the start of a cosine that ends at 0.
        seed: of the images.
    """

    source: object
    recipe: object
    epochs: int
    learning_rate: float
    seed: int

    @property
    def steps_per_epoch(self):
        """Full batches of an epoch."""
        return steps_per_epoch(self.source.train.count, self.recipe.batch_size)

    @property
    def steps(self):
        """Updates in all."""
        return self.epochs * self.steps_per_epoch

    def compile(self, model, keras):
        """Compiles a model of a Keras, 3's or `tf_keras`."""
        decay = keras.optimizers.schedules.CosineDecay(self.learning_rate, self.steps)
        model.compile(
            keras.optimizers.Adam(decay),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
        )

    def fit(self, model, callbacks=()):
        """Fits a compiled model.

        Raises:
            RunError: an image that cannot be read.
        """
        recipe, split = self.recipe, self.source.validation
        size, classes = recipe.image_size, len(self.source.class_names)
        batches = training_batches(
            self.source,
            recipe,
            image_size=size,
            batch_size=recipe.batch_size,
            global_batch=recipe.batch_size,
            seed=self.seed,
        )
        validation = evaluation_batches(
            split, recipe, image_size=size, batch_size=recipe.batch_size
        ).map(lambda x, labels, kept: (x, tf.one_hot(labels, classes), kept))
        try:
            model.fit(
                batches,
                epochs=self.epochs,
                steps_per_epoch=self.steps_per_epoch,
                validation_data=validation,
                callbacks=list(callbacks),
                shuffle=False,  # they are already
                verbose=1 if sys.stderr.isatty() else 2,
            )
        except tf.errors.OpError as error:
            found = reason(error)
            if found is None:
                raise
            raise found from error


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
