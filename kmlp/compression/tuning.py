"""Fine-tuning with stock Keras, of either generation."""

import dataclasses
import sys

import tensorflow as tf

from kmlp.data import evaluation_batches, reason
from kmlp.training.input import steps_per_epoch, training_batches


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
