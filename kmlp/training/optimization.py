"""Optimizers and learning rates of the recipes, for every backend of Keras.

AdamW, LAMB and SGD are as the papers' trainers compute them. Keras' AdamW adds epsilon
before the bias correction, where layer scales of 1e-6 feel it, and its LAMB decays
outside the trust ratio and adapts biases too. Both compute `1 - beta^t` in float32 with
five digits at the start. Its SGD decays beside the momentum and keeps the rate within
it. These do not.
"""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from kmlp.errors import InputError
from kmlp.keras_internals import decays as decays_variable
from kmlp.keras_internals import variable_index
from kmlp.typing import Config, Tensor

# The factor by which a milestone lowers the rate.
_DROP = 0.1


class _DecayingAdam(keras.optimizers.Adam):
    """Adam's direction; weight decay belongs to `update_step`."""

    def _apply_weight_decay(self, variables):
        pass

    def direction(self, gradient: Tensor, variable: keras.Variable) -> Tensor:
        """Return `m̂ / (√v̂ + ε)` and move the moments.

        Reference: Kingma and Ba, 2015, Algorithm 1.
        """
        index = variable_index(self, variable)
        m, v = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        corrected = ops.sqrt(v / self._correction(self.beta_2)) + self.epsilon
        return m / (corrected * self._correction(self.beta_1))

    def _correction(self, beta):
        """Return `1 - beta^t`, exact while beta^t is close to 1."""
        if not beta:
            return 1.0
        step = ops.cast(self.iterations + 1, "float32")
        return -ops.expm1(step * math.log(beta))


@keras.saving.register_keras_serializable("kmlp")
class AdamW(_DecayingAdam):
    """Adam with decoupled weight decay.

    Args:
        learning_rate, beta_1, beta_2, epsilon, weight_decay: Same as in
            `keras.optimizers.AdamW`; epsilon is added after the bias correction.

    Reference: Loshchilov and Hutter, 2019, Algorithm 2.
    """

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        change = self.direction(gradient, variable)
        if self.weight_decay and decays_variable(self, variable):
            change = change + self.weight_decay * variable
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * change)


@keras.saving.register_keras_serializable("kmlp")
class Lamb(_DecayingAdam):
    """LAMB: Adam's direction and decay, as long as the weights are large.

    Variables excluded from weight decay take Adam's step as it is. The gradient's norm
    is not clipped here.

    Args:
        learning_rate, beta_1, beta_2, epsilon, weight_decay: Same as in `AdamW`.

    Reference: You et al., 2020, Algorithm 2.
    """

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        change = self.direction(gradient, variable)
        rate = ops.cast(learning_rate, variable.dtype)
        if decays_variable(self, variable):
            if self.weight_decay:
                change = change + self.weight_decay * variable
            rate = rate * self._trust(variable, change)
        self.assign_sub(variable, rate * change)

    def _trust(self, variable, change):
        """Return `|w| / |change|`, 1 where either is 0."""
        weight, step = (
            ops.sqrt(ops.sum(ops.square(values))) for values in (variable, change)
        )
        both = ops.logical_and(weight > 0, step > 0)
        return ops.where(both, weight / ops.where(both, step, 1.0), 1.0)


@keras.saving.register_keras_serializable("kmlp")
class SGD(keras.optimizers.SGD):
    """Gradient descent with momentum, whose weight decay is part of the gradient.

    With `g` the gradient and decay times the weight: `v = momentum v + g`, and the
    weight moves by `-rate v`, so that a new rate counts at once.

    Args:
        learning_rate, momentum: Same as in `keras.optimizers.SGD`.
        weight_decay: Coupled decay, as in `torch.optim.SGD`.
    """

    def _apply_weight_decay(self, variables):
        pass

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        change = ops.cast(gradient, variable.dtype)
        if self.weight_decay and decays_variable(self, variable):
            change = change + self.weight_decay * variable
        if self.momentum:
            velocity = self.momentums[variable_index(self, variable)]
            change = self.momentum * velocity + change
            self.assign(velocity, change)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * change)


_OPTIMIZERS: dict[str, type[keras.Optimizer]] = {
    "adamw": AdamW,
    "lamb": Lamb,
    "sgd": SGD,
}


def decays(variable: keras.Variable) -> bool:
    """Return whether a variable decays: kernels do, of whatever shape.

    Biases, norms' scales and shifts, learned scales and position tables do not. Rank
    does not tell: the bias of a set-sharing linear is `(S, N)`.
    """
    return variable.name.endswith("kernel")


def make_optimizer(
    recipe: Any,
    model: keras.Model,
    schedule: keras.optimizers.schedules.LearningRateSchedule | float,
    **options: Any,
) -> keras.Optimizer:
    """Build the recipe's optimizer for a model.

    The engines clip, average and scale the loss themselves.

    Args:
        recipe: Recipe of any task.
        model: Model whose trainable variables are optimized.
        schedule: Learning rate.
        options: Further arguments of the optimizer.
    """
    sgd = recipe.optimizer == "sgd"
    own = ["momentum"] if sgd else ["beta_1", "beta_2", "epsilon"]
    optimizer = _OPTIMIZERS[recipe.optimizer](
        learning_rate=schedule,
        **{field: getattr(recipe, field) for field in ["weight_decay", *own]},
        name=recipe.optimizer,
        **options,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if not decays(v)]
    )
    return optimizer


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate whose fields are its arguments and its configuration."""

    def rate_at(self, step: int) -> float:
        """Return the rate at a step as a Python float."""
        return float(ops.convert_to_numpy(self(step)))

    def get_config(self) -> Config:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@keras.saving.register_keras_serializable("kmlp")
@dataclasses.dataclass(eq=False)
class WarmupCosine(Schedule):
    """A rate that rises linearly, falls along half a cosine and stays.

    At time t the rate is `warmup_rate + (peak - warmup_rate) t / warmup` while
    t < warmup, then `final + (peak - final) (1 + cos(pi (t - s) / (T - s))) / 2`, with
    T the epochs and s where the cosine starts, and `final` from T on.

    Attributes:
        peak, warmup_rate, final_rate: Rates, not scaled further.
        epochs: Epochs of the cosine, T.
        steps_per_epoch: Updates in an epoch.
        warmup_epochs: Epochs of the warm-up, may be a fraction.
        by: Unit of t. `"step"`: t counts steps, the warm-up is rounded to whole ones;
            `"epoch"`: t counts finished epochs, within which the rate stands.
        cosine_from: Start s of the cosine. `"start"`: s = 0, as in timm, so that the
            cosine begins a little under the peak; `"warmup"`: s is the end of the
            warm-up, as in `keras.optimizers.schedules.CosineDecay`.

    Reference: Loshchilov and Hutter, 2017, SGDR, Eq. 5.
    """

    peak: float
    _: dataclasses.KW_ONLY
    epochs: int
    steps_per_epoch: int
    warmup_epochs: float = 0
    warmup_rate: float = 0.0
    final_rate: float = 0.0
    by: str = "step"
    cosine_from: str = "start"

    def __call__(self, step: Tensor) -> Tensor:
        """Return float32 rates of the shape of `step`, an integer or integers."""
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


@keras.saving.register_keras_serializable("kmlp")
@dataclasses.dataclass(eq=False)
class Polynomial(Schedule):
    """`final + (peak - final) (1 - t / T)^power` at step t, `final` from T on.

    `keras.optimizers.schedules.PolynomialDecay` counts from the start, so its float32
    loses the last steps of a long run.

    Attributes:
        peak, final_rate: Rates.
        steps: Updates until the final rate, T.
        power: Exponent above 0; 1 is a straight line.
    """

    peak: float
    _: dataclasses.KW_ONLY
    steps: int
    power: float = 0.9
    final_rate: float = 0.0

    def __call__(self, step: Tensor) -> Tensor:
        left = ops.maximum(self.steps - ops.convert_to_tensor(step), 0)
        share = ops.minimum(ops.cast(left, "float32") / self.steps, 1.0)
        return self.final_rate + (self.peak - self.final_rate) * share**self.power


@keras.saving.register_keras_serializable("kmlp")
@dataclasses.dataclass(eq=False)
class LinearWarmup(Schedule):
    """A schedule whose first steps are damped.

    At step t < `steps` the rate is `1 - (1 - ratio) (1 - t / steps)` times what the
    schedule has there, as the reference frameworks' trainer computes it.

    Attributes:
        schedule: Schedule that is damped.
        steps: Updates of the warm-up; 0: none.
        ratio: Share of the first step's rate, in 0…1.
    """

    schedule: keras.optimizers.schedules.LearningRateSchedule
    _: dataclasses.KW_ONLY
    steps: int
    ratio: float

    def __call__(self, step: Tensor) -> Tensor:
        """Return float32 rates of the shape of `step`, an integer or integers."""
        step = ops.convert_to_tensor(step)
        rate = ops.cast(self.schedule(step), "float32")
        if not self.steps:
            return rate
        # Written like this, float32 keeps the smallest ratios.
        damped = self.ratio + (1 - self.ratio) * ops.cast(step, "float32") / self.steps
        return rate * ops.where(step < self.steps, damped, 1.0)

    def get_config(self) -> Config:
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {**super().get_config(), "schedule": schedule}

    @classmethod
    def from_config(cls, config: Config) -> "LinearWarmup":
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(**{**config, "schedule": schedule})


def make_schedule(
    recipe: Any, steps_per_epoch: int, global_batch: int | None = None
) -> WarmupCosine:
    """Build the schedule of a resolved recipe, its rates scaled by the batch.

    Args:
        recipe: Resolved `ClassificationRecipe`.
        steps_per_epoch: Updates in an epoch.
        global_batch: Images per update over all replicas; `None`: the recipe's.
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


def make_dense_schedule(recipe: Any, steps_per_epoch: int) -> LinearWarmup:
    """Build the schedule of a `DenseRecipe`.

    Args:
        recipe: A `DenseRecipe`.
        steps_per_epoch: Updates that show every training image once; of no account
            where the recipe counts in steps.

    Raises:
        InputError: If the warm-up is longer than the run.
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
