"""Schedule the learning rate over a run: linear warm-up, cosine, cool-down."""

import math
from typing import Any

import keras
from keras import ops

from kmlp.errors import InputError


@keras.saving.register_keras_serializable("kmlp")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises linearly, falls along half a cosine and stays.

    At time t the rate is `warmup_rate + (peak - warmup_rate) t / warmup` while
    t < warmup, then `final + (peak - final) (1 + cos(pi (t - s) / (T - s))) / 2`, with
    T the epochs and s where the cosine starts, and `final` from T on.

    Args:
        peak, warmup_rate, final_rate: rates, not scaled further.
        epochs: of the cosine, T.
        warmup_epochs: may be a fraction.
        steps_per_epoch: updates in an epoch.
        by: `"step"`: t counts steps, the warm-up is rounded to whole ones; `"epoch"`:
            t counts finished epochs, within which the rate stands.
        cosine_from: `"start"`: s = 0, as in timm, so that the cosine begins a little
            under the peak; `"warmup"`: s is the end of the warm-up, as in
            `keras.optimizers.schedules.CosineDecay`.

    Reference: Loshchilov and Hutter, 2017, SGDR, Eq. 5.
    """

    def __init__(
        self,
        peak,
        *,
        epochs,
        steps_per_epoch,
        warmup_epochs=0,
        warmup_rate=0.0,
        final_rate=0.0,
        by="step",
        cosine_from="start",
    ):
        super().__init__()
        self.peak = peak
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.warmup_epochs = warmup_epochs
        self.warmup_rate = warmup_rate
        self.final_rate = final_rate
        self.by = by
        self.cosine_from = cosine_from

    def __call__(self, step):
        """Rates, float32, of the shape of `step`, an integer or integers."""
        time = ops.convert_to_tensor(step)
        if self.by == "epoch":
            time = ops.floor_divide(time, self.steps_per_epoch)
            unit, warmup = 1, self.warmup_epochs
        else:
            unit = self.steps_per_epoch
            warmup = round(self.warmup_epochs * unit)
        end = self.epochs * unit
        start = warmup if self.cosine_from == "warmup" else 0
        # Counted from the end, in integers, and squared: float32 then loses nothing
        # where the cosine is flat.
        left = ops.cast(ops.maximum(end - time, 0), "float32")
        time = ops.cast(time, "float32")
        left = ops.sin(math.pi / 2 / max(end - start, 1) * left)
        rate = self.final_rate + (self.peak - self.final_rate) * ops.square(left)
        if not warmup:
            return rate
        slope = (self.peak - self.warmup_rate) / warmup
        return ops.where(time < warmup, self.warmup_rate + slope * time, rate)

    def rate_at(self, step: int) -> float:
        """Return the rate at a step as a Python float."""
        return float(ops.convert_to_numpy(self(step)))

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "warmup_epochs": self.warmup_epochs,
            "warmup_rate": self.warmup_rate,
            "final_rate": self.final_rate,
            "by": self.by,
            "cosine_from": self.cosine_from,
        }


def make_schedule(
    recipe: Any, steps_per_epoch: int, global_batch: int | None = None
) -> WarmupCosine:
    """Build the schedule of a resolved recipe, its rates scaled by the batch.

    Args:
        steps_per_epoch: updates in an epoch.
        global_batch: images per update over all replicas; `None`: the recipe's.
    """
    peak, warmup_rate, final_rate = recipe.scaled_rates(global_batch)
    return WarmupCosine(
        peak,
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=recipe.warmup_epochs,
        warmup_rate=warmup_rate,
        final_rate=final_rate,
        by=recipe.schedule_by,
        cosine_from=recipe.cosine_from,
    )


Schedule = keras.optimizers.schedules.LearningRateSchedule
# What a milestone leaves of the rate.
_DROP = 0.1


@keras.saving.register_keras_serializable("kmlp")
class Polynomial(Schedule):
    """`final + (peak - final) (1 - t / T)^power` at step t, `final` from T on.

    As `keras.optimizers.schedules.PolynomialDecay`, whose float32 loses the last
    steps of a long run: it counts from the start.

    Args:
        peak, final_rate: rates.
        steps: T.
        power: above 0; 1 is a straight line.
    """

    def __init__(self, peak, *, steps, power=0.9, final_rate=0.0):
        super().__init__()
        self.peak, self.final_rate = peak, final_rate
        self.steps, self.power = steps, power

    def __call__(self, step):
        left = ops.maximum(self.steps - ops.convert_to_tensor(step), 0)
        share = ops.minimum(ops.cast(left, "float32") / self.steps, 1.0)
        return self.final_rate + (self.peak - self.final_rate) * share**self.power

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "steps": self.steps,
            "power": self.power,
            "final_rate": self.final_rate,
        }


@keras.saving.register_keras_serializable("kmlp")
class LinearWarmup(Schedule):
    """A schedule whose first steps are damped.

    At step t < `steps` the rate is `1 - (1 - ratio) (1 - t / steps)` times what the
    schedule has there, as the reference frameworks' trainer computes it.

    Args:
        schedule: a `LearningRateSchedule`.
        steps: of the warm-up; 0: none.
        ratio: of the first step's rate, in 0…1.
    """

    def __init__(self, schedule, *, steps, ratio):
        super().__init__()
        self.schedule, self.steps, self.ratio = schedule, steps, ratio

    def __call__(self, step):
        """Rates, float32, of the shape of `step`, an integer or integers."""
        step = ops.convert_to_tensor(step)
        rate = ops.cast(self.schedule(step), "float32")
        if not self.steps:
            return rate
        # So written, float32 keeps the smallest ratios.
        damped = self.ratio + (1 - self.ratio) * ops.cast(step, "float32") / self.steps
        return rate * ops.where(step < self.steps, damped, 1.0)

    def rate_at(self, step):
        """The rate at a step as a Python float."""
        return float(ops.convert_to_numpy(self(step)))

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "steps": self.steps,
            "ratio": self.ratio,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(**{**config, "schedule": schedule})


def make_dense_schedule(recipe: Any, steps_per_epoch: int) -> Any:
    """Build the schedule of a `DenseRecipe`.

    Args:
        steps_per_epoch: updates that show every training image once; of no account
            where the recipe counts in steps.

    Raises:
        InputError: a warm-up that is longer than the run.
    """
    steps = recipe.steps or recipe.epochs * steps_per_epoch
    if recipe.warmup_steps > steps:
        raise InputError(
            f"The warm-up is longer than the run of {steps:,} steps: lower "
            f"warmup_steps. Received: warmup_steps={recipe.warmup_steps}"
        )
    peak, final = recipe.learning_rate, recipe.final_rate
    if recipe.schedule == "step":
        # Keras' boundaries are the last steps of their pieces.
        edges = [epoch * steps_per_epoch - 1 for epoch in recipe.milestones]
        rates = [peak * _DROP**number for number in range(len(edges) + 1)]
        decay = keras.optimizers.schedules.PiecewiseConstantDecay(edges, rates)
    elif recipe.schedule == "cosine":
        decay = WarmupCosine(peak, epochs=1, steps_per_epoch=steps, final_rate=final)
    else:
        power = recipe.power if recipe.schedule == "poly" else 1.0
        decay = Polynomial(peak, steps=steps, power=power, final_rate=final)
    return LinearWarmup(decay, steps=recipe.warmup_steps, ratio=recipe.warmup_ratio)
