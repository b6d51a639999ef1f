"""Forms in which published states circulate: merged, renamed, in trainers' files."""

import keras
import pytest
from cases import build_reference, reference, relative_error, run
from published_states import (
    MMCLS,
    MMPRETRAIN,
    renamed,
    state_of,
    trainer_file,
    with_counters,
)

import kmlp

TOLERANCE = 1e-5


def injected(shape=(64, 64, 3), **overrides):
    return build_reference(
        "repmlpnet_small", shape, locality_injected=True, **overrides
    )


def test_the_published_deploy_state_is_loaded_as_it_is():
    arrays, _ = reference("repmlpnet_small")
    x = arrays["case0/images"]
    state = state_of("repmlpnet_small", "deploy_state")
    model = kmlp.load_published(injected(), state)
    expected = arrays["case0/outputs_deploy"]
    assert relative_error(run(model, x), expected) <= TOLERANCE
    assert relative_error(run(kmlp.merge(model), x), expected) <= TOLERANCE
    # Two blocks per map, from which none of the arrays depends.
    x = arrays["case1/images"]
    tiled = kmlp.load_published(injected(x.shape[1:]), state)
    assert relative_error(run(tiled, x), arrays["case1/outputs"]) <= TOLERANCE
    twin = type(model).from_config(model.get_config())
    assert twin.locality_injected
    assert [w.path for w in twin.weights] == [w.path for w in model.weights]


def test_either_form_says_how_the_other_is_built():
    train, deploy = (state_of("repmlpnet_small", key) for key in (None, "deploy_state"))
    with pytest.raises(ValueError, match="model with locality_injected=True"):
        kmlp.load_published(build_reference("repmlpnet_small", (64, 64, 3)), deploy)
    with pytest.raises(ValueError, match="model with locality_injected=False"):
        kmlp.load_published(injected(), train)


@pytest.mark.parametrize("names", [(MMPRETRAIN,), (MMPRETRAIN, MMCLS)])
@pytest.mark.parametrize("key", [None, "deploy_state"])
def test_mmpretrains_names_give_the_same_network(names, key):
    arrays, _ = reference("repmlpnet_small")
    x = arrays["case0/images"]
    state = with_counters(renamed(state_of("repmlpnet_small", key), *names))
    model = build_reference(
        "repmlpnet_small", x.shape[1:], locality_injected=key is not None
    )
    kmlp.load_published(model, state)
    assert relative_error(run(model, x), arrays["case0/outputs"]) <= TOLERANCE
    features = build_reference(
        "repmlpnet_small",
        x.shape[1:],
        locality_injected=key is not None,
        include_top=False,
    )
    kmlp.load_published(features, state)
    with pytest.raises(ValueError, match=r"backbone.final_norm.weight \(our head/nor"):
        kmlp.load_published(
            model, {n: a for n, a in state.items() if "final_norm" not in n}
        )


# File, trainer, key, and whether the averaged state of ones is meant.
TRAINERS = [
    ("resmlp_small", "bare", None, False),
    ("repmlpnet_small", "yacs", None, False),
    ("smlpnet_small", "argparse", None, False),
    ("smlpnet_small", "argparse", "model_ema", True),
    ("convmlp_small", "timm", None, False),
    ("convmlp_small", "timm", "state_dict_ema", True),
    ("resmlp_small_timm", "averages alone", None, False),
    ("repmlpnet_small", "mm", None, False),
]


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize(("name", "trainer", "key", "averaged"), TRAINERS)
def test_trainers_files_load(name, trainer, key, averaged, form, tmp_path):
    torch = pytest.importorskip("torch")
    arrays, _ = reference(name)
    x = arrays["case0/images"]
    state = with_counters(state_of(name))
    if trainer == "mm":
        state = renamed(state, MMPRETRAIN)
    torch.save(
        trainer_file(state, trainer),
        tmp_path / "a.pth",
        _use_new_zipfile_serialization=form == "zip",
    )
    model = build_reference(name, x.shape[1:])
    kmlp.load_published(model, tmp_path / "a.pth", key=key)
    if averaged:
        assert all((keras.ops.convert_to_numpy(w) == 1).all() for w in model.weights)
    else:
        assert relative_error(run(model, x), arrays["case0/outputs"]) <= TOLERANCE
