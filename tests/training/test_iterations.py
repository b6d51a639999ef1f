"""Learning rates of dense recipes, from the formulas by hand."""

import math

import keras
import numpy as np
import pytest

from kmlp.errors import KmlpError
from kmlp.recipes import dense_recipes, override
from kmlp.training.optimization import LinearWarmup, Polynomial, make_dense_schedule

PER_EPOCH = 7_392  # of COCO's 118,287 images in batches of 16


def warmed(step, warmup, ratio):
    """`1 - (1 - ratio) (1 - step / warmup)`, as the reference frameworks' hook has it.

    The rate of a step before the end of the warm-up, over the schedule's own.
    """
    return 1 - (1 - ratio) * (1 - step / warmup) if step < warmup else 1


def at_milestones(first, second):
    """A tenth from each milestone on, 500 steps of warm-up from a thousandth."""

    def rate(step):
        drops = (step >= first * PER_EPOCH) + (step >= second * PER_EPOCH)
        return 1e-4 * 0.1**drops * warmed(step, 500, 1e-3)

    return rate


# Recipe -> the rate at a step.
RATES = {
    "convmlp_coco_retinanet": at_milestones(8, 11),
    "msmlp_coco_cascade_3x": at_milestones(27, 33),
    "convmlp_ade20k": lambda step: 2e-4 * (1 - min(step, 40_000) / 40_000) ** 0.9,
    "msmlp_ade20k": lambda step: (
        6e-5 * (1 - min(step, 160_000) / 160_000) * warmed(step, 1500, 1e-6)
    ),
    "repmlpnet_cityscapes": lambda step: (
        1e-4 + (0.01 - 1e-4) * (1 - min(step, 80_000) / 80_000) ** 0.9
    ),
}
EDGES = [0, 1, 250, 499, 500, 501, 1499, 1500, 1501, 39_999, 40_000, 79_999, 80_000]
EDGES += [159_998, 159_999, 160_000, 10**6]
EDGES += [e * PER_EPOCH + d for e in (8, 11, 12, 27, 33, 36) for d in (-1, 0, 1)]


@pytest.mark.parametrize("name", RATES)
def test_rates_are_those_of_the_formulas(name):
    schedule = make_dense_schedule(dense_recipes()[name], PER_EPOCH)
    expected = [RATES[name](step) for step in EDGES]
    rates = schedule(np.array(EDGES, "int32"))
    assert keras.backend.standardize_dtype(rates.dtype) == "float32"
    np.testing.assert_allclose(np.asarray(rates), expected, rtol=1e-6, atol=1e-14)
    for step, rate in zip(EDGES[::3], expected[::3]):
        assert schedule.rate_at(step) == pytest.approx(rate, rel=1e-6, abs=1e-14)
    twin = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert type(twin) is LinearWarmup
    np.testing.assert_array_equal(
        np.asarray(twin(np.array(EDGES, "int32"))), np.asarray(rates)
    )


def test_numbers_by_hand():
    # A straight line to 0.2 in 10 steps, its first 4 from a half of it.
    schedule = LinearWarmup(
        Polynomial(1.0, steps=10, power=1, final_rate=0.2), steps=4, ratio=0.5
    )
    expected = {0: 0.5, 1: 0.92 * 0.625, 2: 0.84 * 0.75, 4: 0.68, 9: 0.28, 10: 0.2}
    for step, rate in {**expected, 99: 0.2}.items():
        assert schedule.rate_at(step) == pytest.approx(rate, rel=1e-6)
    # A quarter of the way is left, to the power 0.5.
    root = Polynomial(0.3, steps=8, power=0.5)
    assert float(root(6)) == pytest.approx(0.15, rel=1e-6)


def test_a_cosine_behind_a_warmup():
    recipe = override(
        dense_recipes()["convmlp_ade20k"],
        ["schedule=cosine", "warmup_steps=100", "warmup_ratio=0", "final_rate=1e-5"],
    )
    schedule = make_dense_schedule(recipe, 1)
    for step, warm in ((0, 0), (50, 0.5), (100, 1), (20_000, 1), (39_999, 1)):
        cosine = (1 + math.cos(math.pi * step / 40_000)) / 2
        rate = warm * (1e-5 + (2e-4 - 1e-5) * cosine)
        assert schedule.rate_at(step) == pytest.approx(rate, rel=1e-6)


def test_a_warmup_longer_than_the_run_stops():
    recipe = dense_recipes()["convmlp_coco_retinanet"]
    with pytest.raises(
        KmlpError, match=r"lower warmup_steps\. Received: warmup_steps=500"
    ):
        make_dense_schedule(recipe, 41)
    make_dense_schedule(recipe, 42)
