"""RepMLPNet's embeddings as convolutions that see across blocks."""

import numpy as np
import pytest
from dense_backbones import images, randomised, relative
from keras import ops

import kmlp
from kmlp.weights.grid_resizing import communicating

ARGUMENTS = {
    "input_shape": (32, 32, 3),
    "depths": (1, 1, 1),
    "widths": (8, 16, 32),
    "share_sets": (1, 4, 8),
    "num_classes": 5,
}


def embeddings(model):
    return [model.get_layer(name).dense for name in ("embed0", "embed1")]


def outputs(model):
    return ops.convert_to_numpy(model(images(size=(32, 32, 3)), training=False))


@pytest.mark.parametrize("downsample", ["conv3", "conv5"])
def test_products_are_kept_exactly(downsample):
    model = randomised(kmlp.RepMLPNet(**ARGUMENTS))
    draws = np.random.default_rng(0)
    for dense in embeddings(model):
        channels, width = dense.kernel.shape[0] // 4, dense.kernel.shape[1]
        product = draws.normal(size=(4, 1, width)) * draws.normal(
            size=(1, channels, width)
        )
        dense.kernel.assign(product.reshape(4 * channels, width))
    twin, kept = communicating(model, downsample)
    assert kept == pytest.approx(1, abs=1e-6)
    assert relative(outputs(twin), outputs(model)) < 1e-5
    assert twin.downsample == downsample
    assert model.downsample == "patch"


def test_nothing_of_one_product_is_nearer():
    model = kmlp.RepMLPNet(**ARGUMENTS)
    twin, kept = communicating(model, "conv3")
    squares = [0.0, 0.0]
    for name, dense in zip(("embed0", "embed1"), embeddings(model)):
        kernel = ops.convert_to_numpy(dense.kernel)
        channels = kernel.shape[0] // 4
        expand = ops.convert_to_numpy(twin.get_layer(f"{name}_expand").conv.kernel)
        reduce = ops.convert_to_numpy(twin.get_layer(f"{name}_reduce").conv.kernel)
        for output in range(kernel.shape[1]):
            matrix = kernel[:, output].reshape(4, channels)
            values = np.linalg.svd(matrix, compute_uv=False)
            near = np.outer(reduce[1:, 1:, output, 0].ravel(), expand[0, 0, :, output])
            # Eckart and Young: what is left are the other singular values.
            left = np.sum((matrix - near) ** 2)
            assert left == pytest.approx(np.sum(values[1:] ** 2), rel=1e-4)
            squares[0] += values[0] ** 2
            squares[1] += np.sum(values**2)
        assert not reduce[0].any()
        assert not reduce[:, 0].any()
    assert kept == pytest.approx(squares[0] / squares[1], rel=1e-5)


def test_by_create_model(tmp_path, capsys):
    model = kmlp.RepMLPNet(**ARGUMENTS)
    model.save(tmp_path / "model.keras")
    found = kmlp.create_model(
        weights=tmp_path / "model.keras",
        input_shape=(48, 80, 3),
        resolution="partition",
        downsample="conv3",
    )
    assert found.downsample == "conv3"
    assert "fine-tune" in capsys.readouterr().out
    assert ops.shape(found(images(size=(48, 80, 3)))) == (2, 5)


@pytest.mark.parametrize(
    ("make", "downsample"),
    [
        (lambda: kmlp.RepMLPNet(**ARGUMENTS), "conv7"),
        (lambda: kmlp.RepMLPNet(**ARGUMENTS, downsample="conv3"), "conv5"),
        (lambda: kmlp.ResMLP(2, (32, 32, 3), depth=1, width=8), "conv3"),
    ],
)
def test_refused(make, downsample):
    with pytest.raises(ValueError, match="Received: "):
        communicating(make(), downsample)
