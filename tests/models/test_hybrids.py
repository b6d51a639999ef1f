"""MS-MLP with Swin's or Focal's attention in its later stages."""

import keras
import numpy as np
import pytest
from cases import build, images, randomize, relative_error, run

import kmlp
from kmlp.layers import FocalAttention, MixShift, PatchEmbed, PatchMerging
from kmlp.layers import WindowAttention as Swin

SMALL = {
    **{"width": 12, "depths": (1, 1, 2, 1, 1), "heads": (1, 2, 4), "window_size": 2},
    **{"regions": (1, 3, 5), "shifts": (-1, 0, 1), "expansion": 1},
}


def small(attention="swin", size=(64, 128), **changes):
    """A small hybrid with random weights and norms."""
    arguments = {**SMALL, "attention": attention, "drop_path_rate": 0.0, **changes}
    model = kmlp.MSMLPHybrid(5, (*size, 3), **arguments)
    randomize(model)
    return model


@pytest.mark.parametrize("attention", ["swin", "focal"])
@pytest.mark.parametrize("stage_zero", [True, False])
def test_stages_are_what_the_sheet_says(attention, stage_zero):
    model = small(attention, stage_zero=stage_zero)
    kinds = {layer.name: type(layer) for layer in model.layers}
    first = 0 if stage_zero else 1
    depths = SMALL["depths"][first:]
    for stage, depth in enumerate(depths, start=first):
        later = Swin if attention == "swin" else FocalAttention
        for block in range(depth):
            name = f"stage{stage}_block{block}"
            if stage < 2:
                assert kinds[f"{name}_mix_shift"] is MixShift
            else:
                assert kinds[f"{name}_attention"] is later
        assert f"stage{stage}_block{depth}_mlp" not in kinds
    merging = PatchMerging if attention == "swin" else PatchEmbed
    expected = {"downsample1": merging, "downsample2": merging, "downsample3": merging}
    if stage_zero:
        expected["downsample0"] = PatchEmbed
    assert {n: k for n, k in kinds.items() if n.startswith("down")} == expected
    patch = model.get_layer("patch_embed")
    assert patch.patch_size == ((2, 2) if stage_zero else (4, 4))
    assert patch.filters == (6 if stage_zero else 12)
    assert patch.epsilon == 1e-6
    assert model.get_layer("stage1_block0_mlp").epsilon == 1e-6
    for name in ("stage2_block0_attention", "stage2_block0_mlp", "downsample1", "head"):
        assert model.get_layer(name).epsilon == 1e-5
    assert not model.get_layer("head").pool_first
    if attention == "swin":
        shifts = [model.get_layer(f"stage2_block{b}_attention").shift for b in (0, 1)]
        assert shifts == [0, 1]
    shapes = {k: tuple(v.shape[1:]) for k, v in model.pyramid_outputs.items()}
    assert shapes == {
        **{"P2": (16, 32, 12), "P3": (8, 16, 24)},
        **{"P4": (4, 8, 48), "P5": (2, 4, 96)},
    }


def test_stochastic_depth_rises_through_all_stages():
    model = small(drop_path_rate=0.5)
    rates = [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)]
    # One branch in mix-shift blocks, two in the others.
    assert np.allclose(rates, [0, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5])


def test_the_first_stages_depth_is_an_argument():
    deeper = small(depths=(1, 3, 2, 1, 1))
    assert deeper.get_layer("stage1_block2_mix_shift")
    # Without stage zero the depths of all stages may stay as they are.
    assert small(stage_zero=False).depths == (1, 2, 1, 1)
    assert small(stage_zero=False, depths=(3, 2, 1, 1)).depths == (3, 2, 1, 1)


def test_any_size_with_swin():
    anysize = small(size=(None, None))
    merged = kmlp.merge(anysize)
    for size in ((37, 50), (5, 3)):
        fixed = kmlp.resize(anysize, (*size, 3))
        x = images(fixed)
        expected = run(fixed, x)
        assert relative_error(anysize.predict(x, verbose=0), expected) <= 1e-5
        assert relative_error(merged.predict(x, verbose=0), expected) <= 1e-5


@pytest.mark.parametrize("attention", ["swin", "focal"])
def test_merged_equals_trained(attention):
    model = small(attention, layer_scale=0.5)
    merged = kmlp.merge(model)
    x = images(model)
    assert relative_error(run(merged, x), run(model, x)) <= 1e-5
    assert merged.get_layer("stage0_block0_mix_shift").folded
    assert not merged.get_layer("stage2_block0_attention").normalize.scale
    # Depthwise convolutions, norms and scales: all but the two that feed the stream.
    assert merged.count_params() < model.count_params()


@pytest.mark.parametrize("attention", ["swin", "focal"])
@pytest.mark.parametrize(
    "head", [kmlp.detection.RetinaNet, kmlp.segmentation.SemanticFPN]
)
def test_dense_models_over_hybrids(attention, head):
    backbone = small(attention, include_top=False)
    model = head(backbone, 3)
    levels = ("P2", "P3", "P4", "P5") if "FPN" in head.__name__ else ("P3", "P4", "P5")
    norms = [x.name for x in model.layers if x.name.startswith("tap_norm")]
    assert norms == [f"tap_norm_{level.lower()}" for level in levels]
    x = images(model)
    forms = [run(form, x, training=False) for form in (model, kmlp.merge(model))]
    first, second = map(keras.tree.flatten, forms)
    for a, b in zip(first, second, strict=True):
        if a.dtype.kind == "f" and np.abs(a).max() > 1e-3:
            assert relative_error(b, a) <= 1e-4


def test_nothing_was_published():
    model = build("msmlp_swin")
    with pytest.raises(ValueError, match=r"MSMLPHybrid were ever published.*Received"):
        kmlp.load_published(model, {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"attention": "x"}, ["`attention`", "swin", "focal", "attention='x'"]),
        ({"depths": (2, 2, 6, 2)}, ["stages zero to four", "depths=(2, 2, 6, 2)"]),
        (
            {"depths": (2, 2, 2), "stage_zero": False},
            ["one to four", "stage_zero=False", "depths=(2, 2, 2)"],
        ),
        ({"heads": (3, 6, 12, 24)}, ["`heads`", "three stages", "(3, 6, 12, 24)"]),
        ({"heads": (5, 12, 24)}, ["`heads`", "192 channels", "heads=5"]),
        ({"focal_windows": (5, 3)}, ["`focal_windows`", "(5, 3)"]),
        ({"window_size": 0}, ["`window_size`", "window_size=0"]),
        ({"width": 97}, ["`width`", "even", "width=97"]),
        ({"regions": (1, 3)}, ["`regions`", "regions=(1, 3)"]),
    ],
)
def test_bad_arguments_get_one_clear_line(arguments, words):
    with pytest.raises(ValueError, match="Received") as error:
        kmlp.MSMLPHybrid(5, (32, 32, 3), **arguments)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_focal_takes_the_sizes_that_its_windows_tile():
    with pytest.raises(ValueError, match=r"input_shape.*Received"):
        kmlp.create_model("msmlp_focal_t", 5, (256, 256, 3))
    with pytest.raises(ValueError, match="Received"):
        kmlp.create_model("msmlp_focal_t", 5, (None, None, 3))
