"""Schedules and optimizers against timm, PyTorch, Keras and hand calculation."""

import math

import keras
import numpy as np
import pytest
from cases import CASES, build, relative_error

import kmlp
from kmlp import pytorch
from kmlp.pytorch.timm_resmlp import timm_module
from kmlp.recipes import dense_recipe_for, recipe_for
from kmlp.training.optimization import (
    SGD,
    AdamW,
    Lamb,
    WarmupCosine,
    decays,
    make_optimizer,
    make_schedule,
)

torch = pytest.importorskip("torch")

# Recipe, an architecture, and what timm's scheduler is given by the trainers: peak,
# floor, warm-up rate at the recipe's batch; epochs, warm-up; unit.
PUBLISHED = {
    "repmlpnet_imagenet": ("repmlpnet_t224", 2e-3, 0, 5e-7, 100, 10, "step"),
    "resmlp_imagenet": ("resmlp_s12", 5e-3, 1e-5, 1e-6, 400, 5, "epoch"),
    "convmlp_imagenet": ("convmlp_s", 5e-4, 1e-5, 1e-4, 300, 5, "epoch"),
    "convmlp_ablation": ("convmlp_s", 1e-3, 1e-5, 1e-4, 100, 5, "epoch"),
    "msmlp_imagenet": ("msmlp_t", 1e-3, 1e-5, 1e-5, 300, 20, "step"),
    "smlpnet_imagenet": ("smlpnet_t", 1e-3, 1e-5, 1e-6, 300, 20, "epoch"),
    "cifar100_locality": ("repmlpnet_cifar", 1e-3, 0, 2.5e-7, 100, 10, "step"),
    "finetune_cifar10": ("convmlp_m", 3e-4, 1e-5, 1e-6, 50, 10, "epoch"),
    "finetune_flowers102": ("convmlp_s", 5e-4, 1e-8, 1e-6, 50, 10, "epoch"),
}


@pytest.fixture(scope="module")
def cosine_scheduler():
    try:
        return timm_module("timm.scheduler.cosine_lr").CosineLRScheduler
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_equal_timm(name, cosine_scheduler):
    arch, peak, floor, first, epochs, warmup, unit = PUBLISHED[name]
    recipe = recipe_for(arch, name=name)
    per_epoch = 1_281_167 // recipe.batch_size
    scale = per_epoch if unit == "step" else 1
    parameter = torch.nn.Parameter(torch.zeros(1))
    oracle = cosine_scheduler(
        torch.optim.SGD([parameter], lr=peak),
        t_initial=epochs * scale,
        lr_min=floor,
        warmup_t=warmup * scale,
        warmup_lr_init=first,
        t_in_epochs=unit == "epoch",
    )
    total = (epochs + recipe.cooldown_epochs) * per_epoch
    drawn = np.random.default_rng(0).integers(0, total, 300)
    edges = [0, 1, per_epoch, warmup * per_epoch, epochs * per_epoch, total]
    steps = np.concatenate([drawn, edges, np.subtract(edges[1:], 1), [total * 2]])
    times = steps if unit == "step" else steps // per_epoch
    expected = np.array([oracle._get_lr(int(time))[0] for time in times])
    rates = np.asarray(make_schedule(recipe, per_epoch)(steps))
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-14)


def test_rates_by_hand():
    schedule = WarmupCosine(
        1.0, epochs=10, steps_per_epoch=4, warmup_epochs=2, final_rate=0.1
    )
    # The first step behind the warm-up is a fifth of the way down the cosine.
    after_warmup = 0.1 + 0.9 * (1 + math.cos(math.pi / 5)) / 2
    expected = {0: 0, 4: 0.5, 7: 0.875, 8: after_warmup, 20: 0.55, 40: 0.1, 99: 0.1}
    for step, rate in expected.items():
        assert schedule.rate_at(step) == pytest.approx(rate, rel=1e-6)
    by_epoch = WarmupCosine(
        1.0, epochs=10, steps_per_epoch=4, warmup_epochs=0.5, by="epoch"
    )
    expected = {0: 0, 3: 0, 4: (1 + math.cos(math.pi / 10)) / 2, 20: 0.5, 23: 0.5}
    for step, rate in expected.items():
        assert by_epoch.rate_at(step) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("images", [1438, 50_000])
def test_small_images_follow_keras_schedule(images):
    recipe = recipe_for("msmlp_t", embedded=True).resolved(images=images)
    per_epoch = images // recipe.batch_size
    steps = recipe.epochs * per_epoch
    warmup = round(steps * 0.1)
    oracle = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=1e-3, warmup_steps=warmup
    )
    schedule = make_schedule(recipe, per_epoch)
    for step in (0, 1, warmup - 1, warmup, warmup + 1, steps // 2, steps - 1, steps):
        assert schedule.rate_at(step) == pytest.approx(
            float(oracle(step)), rel=1e-5, abs=1e-9
        )


@pytest.mark.parametrize("by", ["step", "epoch"])
def test_rates_are_exact_late_in_a_long_run(by):
    # Half a million steps from the start float32 still tells neighbours apart.
    schedule = WarmupCosine(1e-3, epochs=120, steps_per_epoch=5005, by=by)
    for left in (1, 2, 5005, 5006):
        step = 600_600 - left
        share = left / 600_600 if by == "step" else math.ceil(left / 5005) / 120
        expected = 1e-3 * math.sin(math.pi / 2 * share) ** 2
        assert schedule.rate_at(step) == pytest.approx(expected, rel=1e-6)
        compiled = schedule(keras.ops.convert_to_tensor(step, "int32"))
        assert float(compiled) == pytest.approx(expected, rel=1e-6)


def test_a_schedule_survives_serialisation():
    schedule = make_schedule(recipe_for("convmlp_s"), 1251)
    twin = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert twin.get_config() == schedule.get_config()
    optimizer = AdamW(schedule, weight_decay=0.1, epsilon=1e-8)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is AdamW
    assert again.get_config() == optimizer.get_config()


SHAPES = ((3, 3, 4, 1), (1, 6, 6), (5,), (1, 6), (8, 2))
SCALES = (1.0, 1e-2, 3.0, 1e-6, 1e-9)  # of the gradients, down to epsilon's


def runs(optimizer, oracle, decayed, steps=20):
    """Variables after some steps, ours and PyTorch's."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    ours = [keras.Variable(value) for value in values]
    theirs = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in values]
    optimizer.exclude_from_weight_decay(
        var_list=[v for v, decay in zip(ours, decayed) if not decay]
    )
    optimizer.build(ours)
    groups = [
        {"params": [p for p, d in zip(theirs, decayed) if d]},
        {"params": [p for p, d in zip(theirs, decayed) if not d], "weight_decay": 0.0},
    ]
    oracle = oracle([group for group in groups if group["params"]])
    for _ in range(steps):
        gradients = [
            (scale * rng.normal(size=shape)).astype("float32")
            for shape, scale in zip(SHAPES, SCALES)
        ]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], ours)
        for parameter, gradient in zip(theirs, gradients):
            parameter.grad = torch.from_numpy(gradient)
        oracle.step()
    return ours, [parameter.detach().numpy() for parameter in theirs]


DECAYED = {
    "all": (True,) * 5,
    "some": (True, True, False, False, True),
    "none": (False,) * 5,
}
# Rate and decay are binary fractions: PyTorch rounds their product otherwise than we.
RATE = 0.125
SETTINGS = {"weight_decay": 0.25, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}


@pytest.mark.parametrize("decayed", DECAYED.values(), ids=DECAYED)
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_optimizers_equal_pytorch(name, decayed):
    if name == "adamw":
        optimizer = AdamW(RATE, **SETTINGS)

        def oracle(groups):
            return torch.optim.AdamW(groups, lr=RATE, eps=1e-8, weight_decay=0.25)
    else:
        optimizer = Lamb(RATE, **SETTINGS)
        lamb = timm_module("timm.optim.lamb").Lamb

        def oracle(groups):
            # timm's own clipping is the recipe's `clip_norm` here.
            return lamb(
                groups, lr=RATE, eps=1e-8, weight_decay=0.25, max_grad_norm=None
            )

    for ours, theirs in zip(*runs(optimizer, oracle, decayed)):
        assert relative_error(ours, theirs) <= 1e-6


@pytest.mark.parametrize("momentum", [0.0, 0.875])
@pytest.mark.parametrize("decayed", DECAYED.values(), ids=DECAYED)
def test_gradient_descent_equals_pytorch(decayed, momentum):
    # The rate drops on the way: what the momentum holds drops with it.
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([9], [RATE, RATE / 8])
    optimizer = SGD(rates, momentum=momentum, weight_decay=0.25)

    class Dropping(torch.optim.SGD):
        taken = 0

        def step(self):
            super().step()
            self.taken += 1
            for group in self.param_groups:
                group["lr"] = RATE if self.taken <= 9 else RATE / 8

    def oracle(groups):
        return Dropping(groups, lr=RATE, momentum=momentum, weight_decay=0.25)

    for ours, theirs in zip(*runs(optimizer, oracle, decayed)):
        assert relative_error(ours, theirs) <= 1e-6


def test_trust_ratio_by_hand():
    # One step from w = (3, 4) along gradient (1, 1): Adam's direction is (1, 1), with
    # decay 0.1 it is (1.3, 1.4); LAMB makes it as long as w.
    variable = keras.Variable([3.0, 4.0])
    optimizer = Lamb(0.01, **SETTINGS | {"weight_decay": 0.1})
    optimizer.apply([keras.ops.ones(2)], [variable])
    step = 0.01 * 5 / math.hypot(1.3, 1.4)
    expected = [3 - 1.3 * step, 4 - 1.4 * step]
    np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-6)


def test_trust_ratio_of_zeros_is_one():
    variables = [keras.Variable([0.0, 0.0]), keras.Variable([3.0, 4.0])]
    optimizer = Lamb(0.01, **SETTINGS | {"weight_decay": 0.0})
    optimizer.apply([keras.ops.ones(2), keras.ops.zeros(2)], variables)
    np.testing.assert_allclose(np.asarray(variables[0]), [-0.01] * 2, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(variables[1]), [3, 4])


def test_epsilon_is_behind_the_bias_correction():
    # A gradient as small as epsilon moves a weight by half the rate at first.
    variable = keras.Variable([1.0])
    optimizer = AdamW(0.01, **SETTINGS | {"weight_decay": 0.0})
    optimizer.apply([keras.ops.full((1,), 1e-8)], [variable])
    assert float(variable[0]) == pytest.approx(0.995, rel=1e-6)


# A block per stage of the published networks: ours, and in PyTorch.
ONE = (1, 1, 1, 1)
PARTNERS = {
    "repmlpnet_t224": ({"depths": ONE}, {"num_blocks": ONE}),
    "resmlp_s12": ({"depth": 1}, {"depth": 1}),
    "convmlp_s": ({"depths": ONE[1:]}, {"blocks": ONE[1:]}),
    "msmlp_t": ({"depths": ONE}, {"depths": ONE}),
    "smlpnet_t": ({"depths": ONE}, {"depths": ONE}),
    "focal_t": ({"depths": ONE}, {"depths": ONE}),
}


@pytest.mark.parametrize("arch", PARTNERS)
def test_as_much_decays_as_in_the_published_trainers(arch):
    ours, theirs = PARTNERS[arch]
    model = kmlp.create_model(arch, **ours)
    with torch.device("meta"):
        published = pytorch.build(arch, **theirs)
    # They leave out what is a vector there, whatever it is for, and position tables.
    matrices = sum(
        parameter.numel()
        for name, parameter in published.named_parameters()
        if parameter.ndim > 1 and "relative_position" not in name
    )
    kernels = [v for v in model.trainable_variables if decays(v)]
    assert sum(math.prod(v.shape) for v in kernels) == matrices


@pytest.mark.parametrize("case", CASES)
def test_only_kernels_decay(case):
    model = build(case)
    names = {True: set(), False: set()}
    for variable in model.trainable_variables:
        names[decays(variable)].add(variable.path.rpartition("/")[2])
    assert {"kernel"} <= names[True] <= {"kernel", "token_kernel"}
    tables = {name for name in names[False] if name.startswith("relative_position_")}
    vectors = {"bias", "beta", "gamma", "alpha", "scale", "token", "encoding"}
    assert names[False] - tables <= vectors


def test_the_optimizer_of_a_dense_recipe():
    model = build("resmlp_local")
    recipe = dense_recipe_for("repmlpnet_d256", "segmentation", data="cityscapes:x")
    optimizer = make_optimizer(recipe, model, 0.5)
    assert (type(optimizer), optimizer.momentum) == (SGD, 0.9)
    before = {v.path: np.asarray(v) for v in model.trainable_variables}
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    for _ in range(2):
        optimizer.apply(zeros, model.trainable_variables)
    for variable in model.trainable_variables:
        # w - rate d w, then the momentum's 0.9 d w and the new decay on top.
        factor = (1 - 0.00025) - 0.5 * (0.9 * 0.0005 + 0.0005 * (1 - 0.00025))
        expected = before[variable.path] * (factor if decays(variable) else 1)
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-6)
    twin = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert twin.get_config() == optimizer.get_config()
    recipe = dense_recipe_for("msmlp_t", "segmentation", data="ade20k:x")
    optimizer = make_optimizer(recipe, model, 0.5)
    assert (type(optimizer), optimizer.weight_decay) == (AdamW, 0.01)


@pytest.mark.parametrize("name", ["resmlp_imagenet", "msmlp_imagenet"])
def test_the_optimizer_of_a_recipe(name):
    model = build("resmlp_local")
    recipe = recipe_for("resmlp_s12", name=name)
    optimizer = make_optimizer(recipe, model, 0.1)
    lamb = name == "resmlp_imagenet"
    assert type(optimizer) is (Lamb if lamb else AdamW)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert optimizer.weight_decay == (0.2 if lamb else 0.05)
    assert optimizer.global_clipnorm is optimizer.clipnorm is None
    before = [np.asarray(v) for v in model.trainable_variables]
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    # Without a gradient only what decays moves: biases of rank 2 do not.
    moved = {
        v.path.rpartition("/")[2]: np.asarray(v) / value
        for v, value in zip(model.trainable_variables, before)
        if not np.array_equal(np.asarray(v), value)
    }
    assert set(moved) == {"kernel"}
    # AdamW shrinks by rate times decay, LAMB by the rate.
    np.testing.assert_allclose(moved["kernel"], 0.9 if lamb else 0.995, rtol=1e-6)
