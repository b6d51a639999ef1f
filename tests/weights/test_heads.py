"""Strict loading where the head is another, and where buffers are left over."""

import keras
import numpy as np
import pytest
from cases import FAMILIES, build_reference, few, reference, relative_error, run
from published_states import state_of

import kmlp

TOLERANCE = 1e-5
FILES = [
    "repmlpnet_small",
    "resmlp_small",
    "resmlp_small_timm",
    "convmlp_small",
    "msmlp_small",
    "smlpnet_small",
    "swin_small",
    "focal_small",
]
HEAD = {"smlpnet_small": ("batch_norm.", "mlp_head."), "repmlpnet_small": ("head",)}


def values(layer):
    return [keras.ops.convert_to_numpy(w) for w in layer.weights]


def headless(name, state, *, norm=False):
    """A state without its classifier, and without the norm before it where asked."""
    gone = ("head.", "mlp_head.") + (HEAD.get(name, ("norm.",)) if norm else ())
    return {n: a for n, a in state.items() if not n.startswith(gone)}


@pytest.mark.parametrize("name", few(FILES, *(f"{name}_small" for name in FAMILIES)))
def test_heads_are_left_out_kept_or_new(name):
    arrays, _ = reference(name)
    x, shape = arrays["case0/images"], arrays["case0/images"].shape[1:]
    whole, state = state_of(name), headless(name, state_of(name))
    pooled = build_reference(name, shape, num_classes=0)
    kmlp.load_published(pooled, whole)
    expected = run(pooled, x)
    # The features are those from which the published classifier gives its outputs.
    kernel, bias = (whole[n] for n in sorted(whole.keys() - state.keys())[::-1])
    logits = expected @ kernel.T + bias
    assert relative_error(logits, arrays["case0/outputs"]) <= TOLERANCE

    new = build_reference(name, shape, num_classes=3)
    before = values(new.get_layer("head").dense)
    for source in (whole, state):
        kmlp.load_published(new, source, new_head=True)
        dense = values(new.get_layer("head").dense)
        assert all((a == b).all() for a, b in zip(before, dense))
        outputs = run(new, x)
        assert relative_error(outputs, expected @ dense[0] + dense[1]) <= TOLERANCE

    without = build_reference(name, shape, include_top=False)
    for source in (whole, state, headless(name, whole, norm=True)):
        kmlp.load_published(without, source)
    head = pooled.get_layer("head")
    assert relative_error(run(head, run(without, x)), expected) <= TOLERANCE
    for kept in (pooled, new):
        with pytest.raises(ValueError, match=r"include_top=False\. Miss.*head/norm"):
            kmlp.load_published(kept, headless(name, whole, norm=True), new_head=True)


@pytest.mark.parametrize("name", FILES)
def test_classifiers_of_other_classes_name_the_remedy(name):
    arrays, _ = reference(name)
    shape = arrays["case0/images"].shape[1:]
    model = build_reference(name, shape, num_classes=3)
    before = values(model)
    whole = state_of(name)
    with pytest.raises(ValueError, match=r"10 classes.* 3: pass new_head=True.*=10\."):
        kmlp.load_published(model, whole)
    with pytest.raises(ValueError, match=r"no classifier.*new_head=True.*=0\. Rec"):
        kmlp.load_published(model, headless(name, whole))
    assert all((a == b).all() for a, b in zip(before, values(model)))


@pytest.fixture(scope="module")
def resmlp():
    return build_reference("resmlp_small", (64, 64, 3))


def test_keys_choose_within_files_alone(resmlp):
    with pytest.raises(ValueError, match="key='model' with dict"):
        kmlp.load_published(resmlp, state_of("resmlp_small"), key="model")


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("layers.0.blocks.1.attn_mask", True),
        ("layers.0.blocks.1.attn.relative_position_index", True),
        ("layers.0.blocks.1.attn.relative_position_index_0", True),
        ("layers.0.blocks.1.attn.valid_ind_rolled", True),
        ("norm.num_batches_tracked", True),
        ("layers.0.blocks.1.attn.relative_position_bias_table", False),
        ("layers.0.blocks.1.attn_mask.weight", False),
        ("norm.valid_ind", False),
        ("my_num_batches_tracked", False),
    ],
)
def test_derived_buffers_and_these_only_are_passed_over(name, ignored, resmlp):
    state = {**state_of("resmlp_small"), name: np.zeros(3)}
    if ignored:
        kmlp.load_published(resmlp, state)
    else:
        with pytest.raises(ValueError, match="Surplus in the state") as error:
            kmlp.load_published(resmlp, state)
        assert name in str(error.value)
