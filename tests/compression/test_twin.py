"""The twin in `tf_keras` of what is merged."""

import cases
import keras
import numpy as np
import pytest

import kmlp
from kmlp.compression import twin


@pytest.mark.parametrize(
    "case", [case for case in cases.FULLY_CONNECTED if "class_mlp" not in case]
)
def test_outputs_are_equal(case):
    model = cases.build(case)
    result = twin(kmlp.merge(model))
    images = cases.images(model, 3)
    outputs = result.model(images, training=False).numpy()
    assert cases.relative_error(outputs, cases.run(model, images)) < 1e-5


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_heads_activation_is_there(activation):
    model = cases.build("resmlp", head_activation=activation, depth=1)
    images = cases.images(model, 3)
    outputs = twin(kmlp.merge(model)).model(images).numpy()
    assert cases.relative_error(outputs, cases.run(model, images)) < 1e-5


def test_a_map_without_a_head():
    model = cases.build("repmlpnet_partitioned", include_top=False)
    images = cases.images(model, 3)
    outputs = twin(kmlp.merge(model)).model(images).numpy()
    assert cases.relative_error(outputs, cases.run(model, images)) < 1e-5


@pytest.mark.parametrize("case", ["repmlpnet", "resmlp_partitioned"])
def test_every_weight_goes_there_and_back(case):
    merged = kmlp.merge(cases.build(case))
    result = twin(merged)
    assert result.model.count_params() == merged.count_params()
    random = np.random.default_rng(0)
    for weight in result.model.weights:
        weight.assign(random.normal(size=weight.shape))
    images = cases.images(merged)
    back = result.back()
    assert type(back) is type(merged)
    expected = result.model(images).numpy()
    assert cases.relative_error(cases.run(back, images), expected) < 1e-5
    assert cases.relative_error(cases.run(merged, images), expected) > 0.1


def test_every_share_set_has_a_kernel_of_its_own():
    merged = kmlp.merge(cases.build("repmlpnet_partitioned"))
    result = twin(merged)
    layer = merged.get_layer("stage1_block0_channel_perceptron")
    for index in range(layer.share_sets):
        dense = result.model.get_layer(f"{layer.name}_set{index}")
        np.testing.assert_array_equal(
            dense.kernel.numpy(), layer.kernel.numpy()[index].T
        )


@pytest.mark.parametrize(
    ("case", "layer"),
    [
        ("resmlp_layer_norm", "'block0_cross_patch', a CrossPatch"),
        ("resmlp_class_mlp", "'position_encoding', a PositionEncoding"),
        ("convmlp", "'tokenizer_conv0', a ConvNorm"),
        ("msmlp", "'patch_embed', a PatchEmbed"),
        ("smlpnet", "'stage0_block0_norm', a NormActivation"),
    ],
)
def test_what_has_no_twin_is_named(case, layer):
    with pytest.raises(ValueError, match=f"A twin is made of .*Received: {layer}"):
        twin(kmlp.merge(cases.build(case)))


@pytest.mark.parametrize(
    ("case", "layer"),
    [
        ("resmlp", "'block0_cross_patch', a CrossPatch"),
        ("resmlp_batch_norm", "'block0_cross_patch', a CrossPatch"),
        ("repmlpnet", "'stem', a PatchEmbed"),
    ],
)
def test_the_train_form_is_to_be_merged_first(case, layer):
    with pytest.raises(ValueError, match=rf"merge the model first.*Received: {layer}"):
        twin(cases.build(case))


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="in mixed_bfloat16"):
        twin(kmlp.merge(cases.build("resmlp", dtype="mixed_bfloat16")))
    with pytest.raises(ValueError, match=r"functional keras\.Model\. Received: None"):
        twin(None)
    images = keras.Input((8, 8, 3))
    two = keras.Model(images, [images, keras.layers.ReLU()(images)], name="two")
    with pytest.raises(ValueError, match="Received: 1 and 2 of 'two'"):
        twin(two)
