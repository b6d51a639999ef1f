"""The table of models that drives the shared checks, and what they share."""

import json
import pathlib

import keras
import numpy as np
import pytest

import kmlp

REFERENCE = pathlib.Path(__file__).parent / "reference"

# Case -> (class, arguments): small, non-square where the family allows it.
CASES = {
    "repmlpnet": (
        kmlp.RepMLPNet,
        {
            "input_shape": (32, 64, 3),
            "widths": (8, 16, 32),
            "depths": (1, 2, 1),
            "share_sets": (1, 4, 8),
        },
    ),
    "repmlpnet_partitioned": (
        kmlp.RepMLPNet,
        {
            "input_shape": (32, 64, 3),
            "widths": (8, 16),
            "depths": (1, 1),
            "share_sets": (2, 4),
            "block_size": (4, 8),
            "local_kernels": (1, 3, 5),
        },
    ),
    # Neither patches nor halvings nor blocks divide these sizes; blocks are larger
    # than the map along one axis of the other two families.
    "repmlpnet_padded": (
        kmlp.RepMLPNet,
        {
            "input_shape": (38, 50, 3),
            "widths": (8, 16),
            "depths": (1, 1),
            "share_sets": (2, 4),
            "block_size": (8, 8),
        },
    ),
    "repmlpnet_no_gate": (
        kmlp.RepMLPNet,
        {
            "input_shape": (32, 32, 3),
            "widths": (8, 16),
            "depths": (1, 1),
            "share_sets": (1, 4),
            "global_perceptron": False,
            "local_kernels": (),
        },
    ),
    "resmlp": (
        kmlp.ResMLP,
        {"input_shape": (32, 48, 3), "patch_size": 8, "width": 16, "depth": 2},
    ),
    "resmlp_local": (
        kmlp.ResMLP,
        {
            "input_shape": (32, 48, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 2,
            "local_kernels": (1, 3),
        },
    ),
    "resmlp_partitioned": (
        kmlp.ResMLP,
        {
            "input_shape": (32, 64, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 2,
            "block_size": (2, 4),
            "local_kernels": (3,),
        },
    ),
    "resmlp_padded": (
        kmlp.ResMLP,
        {
            "input_shape": (36, 58, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 2,
            "block_size": (6, 3),
            "local_kernels": (3,),
        },
    ),
    "resmlp_layer_norm": (
        kmlp.ResMLP,
        {
            "input_shape": (32, 32, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 1,
            "norm": "layer",
            "local_kernels": (3,),
        },
    ),
    "resmlp_batch_norm": (
        kmlp.ResMLP,
        {
            "input_shape": (32, 32, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 1,
            "norm": "batch",
        },
    ),
    "resmlp_mixer": (
        kmlp.ResMLP,
        {
            "input_shape": (36, 64, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 1,
            "layer_scale": None,
            "block_size": (3, 4),
            "norm": "layer",
            "mixing": "mlp",
            "epsilon": 1e-6,
        },
    ),
    "resmlp_class_mlp": (
        kmlp.ResMLP,
        {
            "input_shape": (32, 48, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 1,
            "norm": "batch",
            "mixing": "mlp",
            "mixing_ratio": 0.25,
            "pooling": "class_mlp",
            "activation": "hard_swish",
            "position_encoding": "learned",
        },
    ),
    "resmlp_conv": (
        kmlp.ResMLP,
        {
            "input_shape": (32, 48, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 1,
            "norm": "l2",
            "mixing": "conv3",
            "pooling": "class_mlp",
            "activation": "silu",
        },
    ),
    "resmlp_depthwise": (
        kmlp.ResMLP,
        {
            "input_shape": (32, 48, 3),
            "patch_size": 8,
            "width": 16,
            "depth": 1,
            "mixing": "depthwise_conv3",
            "activation": "relu",
        },
    ),
    "convmlp": (
        kmlp.ConvMLP,
        {
            "input_shape": (45, 64, 3),
            "stem_width": 8,
            "conv_blocks": 1,
            "widths": (16, 24, 32),
            "depths": (1, 2, 1),
            "mlp_ratios": (2, 3, 2),
        },
    ),
    "convmlp_plain_merge": (
        kmlp.ConvMLP,
        {
            "input_shape": (45, 64, 3),
            "stem_width": 8,
            "conv_blocks": 2,
            "widths": (12, 16, 20),
            "depths": (1, 1, 1),
            "conv_stage": "plain",
            "downsample": "merge",
        },
    ),
    "convmlp_mlp_merge": (
        kmlp.ConvMLP,
        {
            "input_shape": (45, 64, 3),
            "stem_width": 8,
            "conv_blocks": 1,
            "widths": (16, 24),
            "depths": (1, 1),
            "mlp_ratios": (2, 3),
            "conv_stage": "mlp",
            "downsample": "merge",
            "depthwise": False,
        },
    ),
    # Windows with neighbours and pooled ones, then windows alone, as wide as the map.
    "focal": (
        kmlp.FocalTransformer,
        {
            "input_shape": (24, 48, 3),
            "width": 8,
            "depths": (1, 1),
            "heads": (2, 4),
            "window_size": 3,
            "focal_windows": (3, 1),
            "focal_levels": (2, 1),
            "expansion": 1,
        },
    ),
    "msmlp": (
        kmlp.MSMLP,
        {
            "input_shape": (36, 50, 3),
            "width": 14,
            "depths": (1, 1, 2, 1),
            "layer_scale": 0.5,
        },
    ),
    "msmlp_mix_shift": (
        kmlp.MSMLP,
        {
            "input_shape": (32, 32, 3),
            "width": 12,
            "depths": (1, 1),
            "regions": ((3, 1, 5), (7, 5, 3)),
            "shifts": (0, 1, 2),
            "order": "mix_shift",
            "layer_scale": 0.5,
        },
    ),
    "msmlp_full_projections": (
        kmlp.MSMLP,
        {
            "input_shape": (18, 26, 3),
            "width": 8,
            "depths": (1, 1, 1),
            "regions": ((1, 3, 5), (1, 3, 3), (3, 1, 1)),
            "shifts": (0, -1, 2),
            "mixing": "full",
            "projections": True,
            "patch_size": 2,
            "layer_scale": 0.5,
        },
    ),
    "smlpnet": (
        kmlp.SMLPNet,
        {"input_shape": (32, 48, 3), "width": 8, "depths": (1, 2), "mlp_ratio": 3},
    ),
    "smlpnet_local": (
        kmlp.SMLPNet,
        {
            "input_shape": (32, 64, 3),
            "width": 8,
            "depths": (1, 1),
            "block_size": (4, 8),
            "local_kernels": (1, 3),
        },
    ),
    "smlpnet_padded": (
        kmlp.SMLPNet,
        {
            "input_shape": (26, 42, 3),
            "width": 8,
            "depths": (1, 1),
            "block_size": (8, 4),
            "local_kernels": (3,),
        },
    ),
    "smlpnet_sequential_sum": (
        kmlp.SMLPNet,
        {
            "input_shape": (32, 48, 3),
            "width": 8,
            "depths": (1, 1),
            "local_mixing": False,
            "global_mixing": (True, "depthwise"),
            "fusion": "sum",
            "axes": "sequential",
            "local_kernels": (3,),
        },
    ),
    "smlpnet_weighted_positions": (
        kmlp.SMLPNet,
        {
            "input_shape": (26, 42, 3),
            "width": 8,
            "depths": (1, 1, 1),
            "global_mixing": ("positions", True, False),
            "fusion": "weighted_sum",
            "identity": False,
            "block_size": (8, 4),
            "local_kernels": (3,),
        },
    ),
    # Windows reach beyond every map but for the last, which is smaller than one.
    "swin": (
        kmlp.SwinTransformer,
        {
            "input_shape": (44, 60, 3),
            "width": 8,
            "depths": (2, 2),
            "heads": (1, 2),
            "window_size": 4,
        },
    ),
    "msmlp_swin": (
        kmlp.MSMLPHybrid,
        {
            "input_shape": (40, 56, 3),
            "width": 12,
            "depths": (1, 1, 2, 1, 1),
            "heads": (1, 2, 4),
            "window_size": 3,
            "regions": (1, 3, 5),
            "shifts": (-1, 0, 1),
            "layer_scale": 0.5,
        },
    ),
    "msmlp_focal": (
        kmlp.MSMLPHybrid,
        {
            "input_shape": (32, 64, 3),
            "attention": "focal",
            "stage_zero": False,
            "width": 6,
            "depths": (1, 1, 1, 1),
            "heads": (1, 2, 4),
            "window_size": 2,
            "focal_windows": (3, 1, 1),
            "expansion": 1,
            "regions": (1, 3, 5),
            "shifts": (-1, 0, 1),
            "layer_scale": 0.5,
        },
    ),
}
# A case of each family.
FAMILIES = ("repmlpnet", "resmlp", "convmlp", "msmlp", "smlpnet")
# The families that are fully connected only once merged.
FULLY_CONNECTED = [
    name
    for name, (family, arguments) in CASES.items()
    if family in (kmlp.RepMLPNet, kmlp.ResMLP)
    and arguments.get("norm") not in ("layer", "l2")
    and "conv" not in arguments.get("mixing", "linear")
]


def long(*values):
    """Parameters of a case that belongs to the long set."""
    return pytest.param(*values, marks=pytest.mark.long)


def few(cases, *quick):
    """Cases of which those named are quick, the others of the long set."""
    assert set(quick) <= set(cases)
    rows = ((case if isinstance(case, tuple) else (case,), case) for case in cases)
    return [pytest.param(*row) if case in quick else long(*row) for row, case in rows]


def spread(names):
    """Cases of which the first of each of the five families is quick.

    Args:
        names: Names of `CASES`.
    """
    first = {}
    for name in names:
        first.setdefault(CASES[name][0], name)
    return few(names, *(first[CASES[f][0]] for f in FAMILIES if CASES[f][0] in first))


def build(case, num_classes=10, **overrides):
    """A small model with random weights and random statistics."""
    family, arguments = CASES[case]
    model = family(num_classes, **{**arguments, **overrides})
    randomize(model)
    return model


def randomize(model, seed=0):
    """Random norm parameters and statistics, far from their initial values.

    With fresh statistics wrong algebra errs by 1e-5; with these by 1.
    """
    random = np.random.default_rng(seed)
    for variable in model.weights:
        leaf = variable.path.rsplit("/", 1)[-1]
        if leaf == "moving_variance":
            value = random.uniform(0.5, 2.0, variable.shape)
        elif leaf in ("gamma", "alpha", "scale"):
            signs = random.choice([-1, 1], variable.shape)
            value = random.uniform(0.5, 1.5, variable.shape) * signs
        elif leaf in ("beta", "moving_mean", "bias", "shift") or (
            leaf.startswith("relative_position_bias")
        ):
            value = random.normal(0, 0.3, variable.shape)
            if "global_perceptron/fc1" in variable.path:
                # A ReLU that is dead on all images has no range to quantise.
                value = abs(value)
        else:
            continue
        variable.assign(value)


def images(model, batch=2, seed=1):
    """Random images that fit a model."""
    shape = (batch, *model.inputs[0].shape[1:])
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def run(model, inputs, **kwargs):
    """A model's outputs as NumPy arrays; no state is kept."""

    def call(x):
        with keras.StatelessScope():
            return model(x, **kwargs)

    if keras.backend.backend() == "jax":
        # Operation by operation, JAX compiles each shape of each operation.
        import jax

        call = jax.jit(call)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, call(inputs))


def relative_error(actual, expected):
    """Largest difference over largest magnitude."""
    actual = np.asarray(actual, "float64")
    expected = np.asarray(expected, "float64")
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    assert np.abs(expected).max() > 1e-3
    return np.abs(actual - expected).max() / np.abs(expected).max()


def reference(name):
    """Arrays and configuration of a reference file."""
    arrays = np.load(REFERENCE / f"{name}.npz")
    return arrays, json.loads(str(arrays["config"]))


def build_reference(name, input_shape, num_classes=None, **overrides):
    """Our model for a reference file's published configuration."""
    _, config = reference(name)
    if num_classes is None:
        num_classes = config.get("num_classes", config.get("num_class"))
    family, arguments = _REFERENCE_ARGUMENTS[name.split("_")[0]]
    return family(num_classes, input_shape, **{**arguments(config), **overrides})


_REFERENCE_ARGUMENTS = {
    "repmlpnet": (
        kmlp.RepMLPNet,
        lambda config: {
            "depths": config["num_blocks"],
            "widths": config["channels"],
            "share_sets": config["sharesets_nums"],
            "local_kernels": config["reparam_conv_k"],
            "block_size": (config["hs"][0], config["ws"][0]),
        },
    ),
    "resmlp": (
        kmlp.ResMLP,
        lambda config: {
            "patch_size": config["patch_size"],
            "width": config["embed_dim"],
            "depth": config.get("depth", config.get("num_blocks")),
        },
    ),
    "convmlp": (
        kmlp.ConvMLP,
        lambda config: {
            "stem_width": config["channels"],
            "conv_blocks": config["n_conv_blocks"],
            "widths": config["dims"],
            "depths": config["blocks"],
            "mlp_ratios": config["mlp_ratios"],
            "drop_path_rate": 0.0,
        },
    ),
    "focal": (
        kmlp.FocalTransformer,
        lambda config: {
            "width": config["embed_dim"],
            "depths": config["depths"],
            "heads": config["num_heads"],
            "window_size": config["window_size"],
            "focal_windows": config["focal_windows"],
            "focal_levels": config["focal_levels"],
            "expansion": config["expand_sizes"][0],
            "patch_size": config["patch_size"],
            "drop_path_rate": 0.0,
        },
    ),
    "msmlp": (
        kmlp.MSMLP,
        lambda config: {
            "width": config["embed_dim"],
            "depths": config["depths"],
            "regions": config["mix_size"],
            "drop_path_rate": 0.0,
        },
    ),
    "swin": (
        kmlp.SwinTransformer,
        lambda config: {
            "patch_size": config["patch_size"],
            "width": config["embed_dim"],
            "depths": config["depths"],
            "heads": config["num_heads"],
            "window_size": config["window_size"],
            "drop_path_rate": 0.0,
        },
    ),
    "smlpnet": (
        kmlp.SMLPNet,
        lambda config: {
            "width": config["dim"],
            "depths": config["depths"],
            "mlp_ratio": config["alpha"],
            "patch_size": config["patch_size"],
        },
    ),
}
