"""Which weights of a kernel stay, as tensorflow-model-optimization chooses them."""

import math

import tensorflow as tf

from kmlp.compression.tfmot import import_tfmot

SCHEDULES = ("polynomial", "constant")


class Schedule:
    """The sparsity of a kernel over the steps of the training.

    The values are tfmot's. Masks change every `frequency` steps from the first to
    the last and, unlike tfmot's, in the last in any case: else the final sparsity
    is only reached where the frequency divides the steps.

    Args:
        kind: `"polynomial"` or `"constant"`.
        final: sparsity at the end, in (0, 1).
        initial: sparsity at the beginning of a polynomial.
        begin_step, end_step, frequency, power: as in `Pruning`.
    """

    def __init__(self, kind, final, *, initial, begin_step, end_step, frequency, power):
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

    def position(self, step):
        """The step in which the masks were last due, or `None` before the first."""
        if step < self.begin_step:
            return None
        if step >= self.end_step:
            return self.end_step
        return step - (step - self.begin_step) % self.frequency

    def __call__(self, step):
        """The sparsity in a step."""
        return float(self._values(step)[1]) if step >= self.begin_step else 0.0


def unstructured_mask(weights, sparsity):
    """1 where a weight is among the largest `1 - sparsity`, else 0.

    Args:
        weights: tensor.
        sparsity: share of zeros, in [0, 1); at least one weight stays.
    """
    pruning = _pruning(lambda step: (True, sparsity), None)
    return pruning._maybe_update_block_mask(weights)[1]


def block_mask(weights, m_by_n, input_axis):
    """1 where a weight is among the largest `n - m` of `n` along an axis, else 0.

    The blocks lie along the axis that a product is summed over, as the matrix units
    and kernels that skip zeros want it: every output then reads `n - m` of any `n`
    inputs. A last block of fewer than `n` keeps up to `n - m`.

    Args:
        weights: tensor.
        m_by_n: `(m, n)`, m zeros of every n.
        input_axis: that axis.
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
