"""Training itself: optimizer, schedule, `fit`."""

import math
import sys

import keras

from training.console import Stop
from training.data import training_batches, validation_batches


def fit(model, data, settings, *, epochs, batch_size, learning_rate, seed):
    """Trains a model with AdamW under a cosine that warms up from 0.

    Returns:
        `{name: value per epoch}` of what Keras measured.

    Raises:
        Stop: the loss is no longer finite.
    """
    batches = training_batches(data, batch_size, seed)
    steps = epochs * int(batches.cardinality())
    warmup = round(steps * settings.warmup)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if len(v.shape) < 2]
    )
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.label_smoothing
        ),
        metrics=["accuracy"],
        # XLA takes minutes to compile on a CPU and is no faster there.
        jit_compile=False,
    )
    history = model.fit(
        batches,
        validation_data=validation_batches(data, batch_size),
        epochs=epochs,
        shuffle=False,  # the batches are shuffled
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[keras.callbacks.TerminateOnNaN()],
    ).history
    if not math.isfinite(history["loss"][-1]):
        raise Stop(
            "The loss is no longer finite: pass a smaller --learning-rate. "
            f"Received: --learning-rate {learning_rate:g}",
            code=1,
        )
    return history
