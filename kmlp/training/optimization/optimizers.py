"""AdamW, LAMB and SGD as the papers' trainers compute them.

Keras' AdamW adds epsilon before the bias correction, where layer scales of 1e-6 feel
it, and its LAMB decays outside the trust ratio and adapts biases too. Both compute
`1 - beta^t` in float32 with five digits at the start. Its SGD decays beside the
momentum and keeps the rate within it. These do not.
"""

import math
from typing import Any

import keras
from keras import ops

from kmlp.keras_internals import decays as decays_variable
from kmlp.keras_internals import variable_index


class _DecayingAdam(keras.optimizers.Adam):
    """Adam's direction; weight decay belongs to `update_step`."""

    def _apply_weight_decay(self, variables):
        pass

    def direction(self, gradient: Any, variable: keras.Variable) -> Any:
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
        """`1 - beta^t`, exact while beta^t is close to 1."""
        if not beta:
            return 1.0
        step = ops.cast(self.iterations + 1, "float32")
        return -ops.expm1(step * math.log(beta))


@keras.saving.register_keras_serializable("kmlp")
class AdamW(_DecayingAdam):
    """Adam with decoupled weight decay.

    Args:
        learning_rate, beta_1, beta_2, epsilon, weight_decay: as in
            `keras.optimizers.AdamW`; epsilon is added after the bias correction.

    Reference: Loshchilov and Hutter, 2019, Algorithm 2.
    """

    def update_step(
        self, gradient: Any, variable: keras.Variable, learning_rate: Any
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
        learning_rate, beta_1, beta_2, epsilon, weight_decay: as in `AdamW`.

    Reference: You et al., 2020, Algorithm 2.
    """

    def update_step(
        self, gradient: Any, variable: keras.Variable, learning_rate: Any
    ) -> None:
        change = self.direction(gradient, variable)
        rate = ops.cast(learning_rate, variable.dtype)
        if decays_variable(self, variable):
            if self.weight_decay:
                change = change + self.weight_decay * variable
            rate = rate * self._trust(variable, change)
        self.assign_sub(variable, rate * change)

    def _trust(self, variable, change):
        """`|w| / |change|`, 1 where either is 0."""
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
        learning_rate, momentum: as in `keras.optimizers.SGD`.
        weight_decay: coupled, as in `torch.optim.SGD`.
    """

    def _apply_weight_decay(self, variables):
        pass

    def update_step(
        self, gradient: Any, variable: keras.Variable, learning_rate: Any
    ) -> None:
        change = ops.cast(gradient, variable.dtype)
        if self.weight_decay and decays_variable(self, variable):
            change = change + self.weight_decay * variable
        if self.momentum:
            velocity = self.momentums[variable_index(self, variable)]
            change = self.momentum * velocity + change
            self.assign(velocity, change)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * change)


_OPTIMIZERS = {"adamw": AdamW, "lamb": Lamb, "sgd": SGD}


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
    own = ("beta_1", "beta_2", "epsilon")
    if recipe.optimizer == "sgd":
        own = ("momentum",)
    optimizer = _OPTIMIZERS[recipe.optimizer](
        learning_rate=schedule,
        weight_decay=recipe.weight_decay,
        **{field: getattr(recipe, field) for field in own},
        name=recipe.optimizer,
        **options,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if not decays(v)]
    )
    return optimizer
