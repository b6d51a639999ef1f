"""Prune kernels during training, as tensorflow-model-optimization chooses weights."""

import functools
import math
import types
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp.analysis.linear import CHANNEL, KINDS, MIXING, LinearLayer, linear_layers
from kmlp.averages import average_pairs
from kmlp.compression.tfmot import import_tfmot
from kmlp.errors import InputError, check_choice
from kmlp.typing import Tensor

SCHEDULES = ("polynomial", "constant")
# Of zeros, in all layers or in each.
Share = float | Callable[[LinearLayer], float | None]


class Schedule:
    """The sparsity of a kernel over the steps of the training.

    The values are tfmot's. Masks change every `frequency` steps from the first to
    the last and, unlike tfmot's, in the last in any case: else the final sparsity
    is only reached where the frequency divides the steps.

    Args:
        kind: Kind of schedule, `"polynomial"` or `"constant"`.
        final: Sparsity at the end, in (0, 1).
        initial: Sparsity at the beginning of a polynomial.
        begin_step: First step of any zeros, as in `Pruning`; so are the others.
    """

    def __init__(
        self,
        kind: str,
        final: float,
        *,
        initial: float,
        begin_step: int,
        end_step: int,
        frequency: int,
        power: int,
    ) -> None:
        schedules = import_tfmot().sparsity.keras
        self.begin_step, self.end_step = begin_step, end_step
        self.frequency = frequency
        if kind == "constant":
            self._values = schedules.ConstantSparsity(
                final, begin_step, end_step, frequency
            )
        else:
            self._values = schedules.PolynomialDecay(
                initial, final, begin_step, end_step, power, frequency
            )

    def position(self, step: int) -> int | None:
        """Return the step in which the masks were last due; `None` before any."""
        if step < self.begin_step:
            return None
        if step >= self.end_step:
            return self.end_step
        return step - (step - self.begin_step) % self.frequency

    def __call__(self, step: int) -> float:
        """Return the sparsity in a step."""
        return float(self._values(step)[1]) if step >= self.begin_step else 0.0


def unstructured_mask(weights: Tensor, sparsity: float) -> Tensor:
    """Return 1 where a weight is among the largest `1 - sparsity`, else 0.

    Args:
        weights: Weights of any shape.
        sparsity: Share of zeros, in [0, 1); at least one weight stays.
    """
    pruning = _pruning(lambda step: (True, sparsity), None)
    return pruning._maybe_update_block_mask(weights)[1]


def block_mask(weights: Tensor, m_by_n: tuple[int, int], input_axis: int) -> Tensor:
    """Return 1 for the largest `n - m` weights of every `n` along an axis, else 0.

    The blocks lie along the axis that a product is summed over, as the matrix units
    and kernels that skip zeros want it: every output then reads `n - m` of any `n`
    inputs. A last block of fewer than `n` keeps up to `n - m`.

    Args:
        weights: Weights of any shape.
        m_by_n: Pattern `(m, n)`: m zeros of every n.
        input_axis: That axis.
    """
    # tfmot takes matrices as Dense has them, with the inputs first.
    order = [input_axis, *(i for i in range(weights.ndim) if i != input_axis)]
    back = sorted(range(weights.ndim), key=order.__getitem__)
    moved = tf.transpose(weights, order)
    matrix = tf.reshape(moved, (moved.shape[0], math.prod(moved.shape[1:])))
    mask = _pruning(None, m_by_n)._maybe_update_block_mask(matrix)[1]
    return tf.transpose(tf.reshape(mask, moved.shape), back)


def _pruning(schedule, m_by_n):
    import_tfmot()
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

    return pruning_impl.Pruning(
        training_step_fn=lambda: 0,
        pruning_vars=[],
        pruning_schedule=schedule,
        block_size=(1, 1),
        block_pooling_type="AVG",
        sparsity_m_by_n=m_by_n,
    )


class Pruning(keras.callbacks.Callback):
    """Set a growing share of a model's smallest weights to zero during `fit`.

    After every training step, masks that tfmot's pruning computes are multiplied
    into the kernels, and into their averages where the optimizer keeps some
    (`use_ema=True`). So validation, checkpoints and averages see zeros where zeros
    are. Works for any Keras 3 model of linear layers, also within the scope of a
    `tf.distribute.MirroredStrategy`. With `steps_per_execution` above 1 the masks
    act after each execution.

    Prune the merged model (`kmlp.merge`), which can be fitted like any other: beside
    a pruned kernel the local branches and the norms of the train form go on, and
    merging them fills the kernel in again.

    The state of the pruning is the model and the step count of its optimizer: a fit
    that is resumed with both, by `keras.callbacks.BackupAndRestore` or by calling
    `fit` again, goes on where it was.

    Args:
        sparsity: Share of zeros at the end, in [0, 1), 0 for a layer that is left
            alone: one for all layers; one per kind of layer, such as `{"patch
            mixing": 0.9, "channel": 0.5}` (see `kmlp.analysis.linear.KINDS`), others
            being left alone; or a function of a `kmlp.analysis.linear.LinearLayer`.
            `None` with `sparsity_m_by_n`: patch mixing and channel layers.
        end_step: Optimizer step that reaches it.
        begin_step: Optimizer step of the first zeros.
        schedule: Kind of schedule, `"polynomial"` or `"constant"` (all at
            `begin_step`).
        initial_sparsity: Share of zeros where the polynomial begins.
        power: Power of the polynomial.
        frequency: Steps between two changes of the masks.
        sparsity_m_by_n: Pattern of zeros: `(2, 4)` for two zeros in every four
            consecutive inputs, or any `(m, n)`; the shares are m / n then, and all
            zeros come at `begin_step`. The blocks lie along the input of a kernel, its
            last axis in `(S, out, in)` and its first in a Dense layer's `(in, out)`:
            hardware that skips zeros does so within the sum that makes an output, where
            two of four products fall away for all outputs alike.

    Raises:
        InputError: If a share, step, kind or pattern cannot be.
        ImportError: If tensorflow-model-optimization is missing.

    References: Zhu and Gupta, 2017, To prune, or not to prune (the polynomial);
    ResMLP (Touvron et al., 2021), Sect. 3.3 (the patch mixing is sparse).
    """

    def __init__(
        self,
        sparsity: Share | dict[str, float] | None = None,
        *,
        end_step: int,
        begin_step: int = 0,
        schedule: str = "polynomial",
        initial_sparsity: float = 0.0,
        power: int = 3,
        frequency: int = 100,
        sparsity_m_by_n: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        import_tfmot()
        _check_steps(begin_step, end_step, frequency)
        check_choice(SCHEDULES, schedule=schedule)
        _check_share("initial_sparsity", initial_sparsity)
        if sparsity_m_by_n is not None:
            sparsity_m_by_n = _checked_pattern(sparsity_m_by_n)
            if sparsity is None:
                m, n = sparsity_m_by_n
                sparsity = {MIXING: m / n, CHANNEL: m / n}
        if sparsity is None:
            raise InputError(
                "`sparsity` is a share, shares by kind of layer or a function, and "
                "only to be left out beside `sparsity_m_by_n`. Received: None"
            )
        self.sparsity = _target(sparsity)
        self.sparsity_m_by_n = sparsity_m_by_n
        self._schedule: dict[str, Any] = {
            "kind": "constant" if sparsity_m_by_n else schedule,
            "initial": initial_sparsity,
            "begin_step": begin_step,
            "end_step": begin_step + 1 if sparsity_m_by_n else end_step,
            "frequency": frequency,
            "power": power,
        }
        self._pruned: list[_Pruned] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self._pruned = []
        with self.model.distribute_strategy.scope():
            for linear in linear_layers(self.model):
                if final := self._final(linear):
                    schedule = Schedule(final=final, **self._schedule)
                    self._pruned.append(_Pruned(linear, schedule))
        if not self._pruned:
            raise InputError(
                "Nothing is pruned: no layer of this model is given a sparsity above "
                f"0. Received: {self.model.name!r}"
            )
        self._position = self._apply = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # Not before: what restores a fit does so when training begins.
        if self._position is None:
            self._update(self._masked)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._apply is None:
            # The averages are made in the first step.
            averages = {id(weight): mean for weight, mean in average_pairs(self.model)}
            apply = functools.partial(self._masked, averages)
            self._apply = tf.function(apply, autograph=False)
        self._update(self._apply)

    def on_train_end(self, logs: Any = None) -> None:
        # The averages, where these became the weights, are masked already.
        reached = min(pruned.reached() for pruned in self._pruned)
        if reached < 1:
            warnings.warn(
                f"The fit ended at step {self._step():,} before `end_step`, and the "
                f"sparsity is at {reached:.0%} of what was asked for.",
                stacklevel=2,
            )

    def _step(self):
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _update(self, apply):
        """Bring the masks to the current step and apply them."""
        position = self._pruned[0].schedule.position(self._step())
        if position is None:
            return
        with self.model.distribute_strategy.scope():
            if position != self._position:
                for pruned in self._pruned:
                    pruned.update(position, self.sparsity_m_by_n)
            apply()
        self._position = position

    def _masked(self, averages=types.MappingProxyType({})):
        for pruned in self._pruned:
            kernel = pruned.linear.kernel
            mask = tf.cast(pruned.mask, kernel.dtype)
            for variable in (kernel, averages.get(id(kernel))):
                if variable is not None:
                    variable.assign(variable.value * mask)

    def _final(self, linear):
        final = self.sparsity(linear) or 0.0
        _check_share(f"sparsity of {linear.name}", final)
        if final and self.sparsity_m_by_n:
            m, n = self.sparsity_m_by_n
            if not np.isclose(final, m / n):
                raise InputError(
                    f"With sparsity_m_by_n={self.sparsity_m_by_n} a layer's sparsity "
                    f"is {m / n:g} or 0. Received: {final:g} for {linear.name}"
                )
            if linear.kernel.shape[linear.input_axis] < n:
                return 0.0  # no whole block
        return final


class _Pruned:
    """A kernel, its schedule and its mask."""

    def __init__(self, linear, schedule):
        self.linear, self.schedule = linear, schedule
        shape = linear.kernel.shape
        # One byte each, since masks stay on every device.
        self.mask = tf.Variable(tf.ones(shape, tf.int8), trainable=False)
        self._reached = 0.0

    def update(self, step: int, m_by_n: tuple[int, int] | None) -> None:
        """Choose the mask for the schedule's sparsity in a step.

        What is zero already is smallest: it stays so, and a mask comes back from the
        weights of a fit that is resumed.
        """
        self._reached = sparsity = self.schedule(step)
        weights = tf.convert_to_tensor(self.linear.kernel.value)
        if m_by_n is None:
            mask = unstructured_mask(weights, sparsity)
        else:
            mask = block_mask(weights, m_by_n, self.linear.input_axis)
        self.mask.assign(tf.cast(mask, tf.int8))

    def reached(self) -> float:
        """Return the share of the final sparsity that is reached."""
        return self._reached / self.schedule(self.schedule.end_step)


def _target(sparsity):
    """Return a function of a `LinearLayer` to its final sparsity."""
    if callable(sparsity):
        return sparsity
    if isinstance(sparsity, dict):
        unknown = set(sparsity) - set(KINDS)
        if unknown or not sparsity:
            raise InputError(
                f"`sparsity` names kinds of layers, of {KINDS}. "
                f"Received: {sorted(map(str, unknown))}"
            )
        for kind, share in sparsity.items():
            _check_share(f"sparsity of {kind}", share)
        return lambda linear: sparsity.get(linear.kind, 0.0)
    _check_share("sparsity", sparsity)
    return lambda linear: sparsity


def _check_share(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"`{name}` must be a number. Received: {value!r}")
    if not 0 <= value < 1:
        raise InputError(f"`{name}` must be in [0, 1). Received: {value!r}")


def _check_steps(begin_step, end_step, frequency):
    if not 0 <= begin_step < end_step:
        raise InputError(
            "`begin_step` must be at least 0 and `end_step` above it. "
            f"Received: begin_step={begin_step}, end_step={end_step}"
        )
    if frequency < 1:
        raise InputError(f"`frequency` must be at least 1. Received: {frequency}")


def _checked_pattern(pattern):
    values = tuple(pattern) if isinstance(pattern, (tuple, list)) else ()
    if (
        len(values) != 2
        or any(type(value) is not int for value in values)
        or not 0 < values[0] < values[1]
    ):
        raise InputError(
            "`sparsity_m_by_n` is (m, n), m zeros of every n, 0 < m < n. "
            f"Received: {pattern!r}"
        )
    return values
