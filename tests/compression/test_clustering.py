"""Clustering leaves as many values as asked for, where asked for."""

import cases
import numpy as np
import pytest

import kmlp
from kmlp.analysis.linear import linear_layers
from kmlp.compression import Clustering

CASE = "repmlpnet_partitioned"
CLUSTERS = 6


def fitted(clustering, images):
    import tf_keras

    clustering.model.compile(
        tf_keras.optimizers.Adam(1e-3),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    labels = np.arange(len(images)) % 10
    clustering.model.fit(images, labels, batch_size=8, verbose=0)
    return clustering


def values(linear):
    """The numbers of distinct values, of each share-set."""
    kernel = linear.kernel.numpy()
    sets = kernel if kernel.ndim == 3 else [kernel]
    return [len(np.unique(part)) for part in sets]


def test_kernels_have_as_many_values_as_asked_for():
    merged = kmlp.merge(cases.build(CASE))
    before = merged.get_weights()
    images = cases.images(merged, 16)
    clustering = fitted(Clustering(merged, CLUSTERS), images)
    result = clustering.merged()
    for linear in linear_layers(result):
        if linear.kind in ("patch mixing", "channel"):
            assert values(linear) == [CLUSTERS] * len(values(linear))
        else:
            assert min(values(linear)) > CLUSTERS
    # What comes back is what was trained, and the model that came in is untouched.
    expected = clustering.model(images, training=False).numpy()
    assert cases.relative_error(cases.run(result, images), expected) < 1e-5
    assert cases.relative_error(cases.run(merged, images), expected) > 1e-3
    for weight, same in zip(merged.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, same)


def test_kinds_are_chosen():
    merged = kmlp.merge(cases.build("resmlp", depth=1))
    result = Clustering(merged, 3, kinds=("gate", "patch embedding")).merged()
    few = [linear.name for linear in linear_layers(result) if values(linear) == [3]]
    assert few == ["patch_embed/dense"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number_of_clusters": 1}, "at least 2. Received: 1"),
        ({"number_of_clusters": 2.5}, "Received: 2.5"),
        ({"kinds": ("mixing",)}, r"'patch mixing'.*Received: \('mixing',\)"),
        ({"kinds": ()}, r"Received: \(\)"),
        ({"kinds": ("gate",)}, "nothing is clustered"),
        ({"number_of_clusters": 10**6}, "nothing is clustered"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    merged = kmlp.merge(cases.build("resmlp", depth=1))
    with pytest.raises(ValueError, match=message):
        Clustering(merged, **arguments)


def test_the_train_form_has_no_twin():
    with pytest.raises(ValueError, match="merge the model first"):
        Clustering(cases.build(CASE))
