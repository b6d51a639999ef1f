"""Activations: figures of timm's model cards, and PyTorch's own operations."""

import keras
import pytest
from keras import layers, ops

import kmlp
from kmlp.analysis.complexity import shapes_only

# "Activations (M)" as timm's model cards print them: resmlp_12_224, resmlp_24_224,
# resmlp_36_224, resmlp_big_24_224, mixer_b16_224, swin_tiny_patch4_window7_224 and its
# kin.
PRINTED = {
    "resmlp_s12": "5.5",
    "resmlp_s24": "10.9",
    "resmlp_s36": "16.3",
    "resmlp_b24": "87.3",
    "mlp_mixer_b16": "14.5",
    "swin_t": "17.1",
    "swin_s": "27.5",
    "swin_b": "36.6",
}
# Full sizes, fewer blocks; RepMLPNet has every local branch.
NETWORKS = {
    "resmlp_s12": {"depth": 1},
    "mlp_mixer_b16": {"depth": 1},
    "convmlp_s": {"conv_blocks": 1, "depths": (1, 1, 1)},
    "repmlpnet_t224": {"depths": (1, 1, 2, 1)},
    "msmlp_t": {"depths": (1, 1, 1, 1)},
    "smlpnet_t": {"depths": (1, 1, 1, 1)},
    "swin_t": {"depths": (2, 1, 1, 1)},
    "focal_t": {"depths": (1, 1, 1, 1)},
}


@pytest.mark.parametrize("name", PRINTED)
def test_activations_are_those_of_timms_cards(name):
    with shapes_only():
        found = kmlp.profile(kmlp.create_model(name))
    assert f"{found.activations / 1e6:.1f}" == PRINTED[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_are_those_of_a_live_network(name):
    """To the unit: what each product and convolution of the published code puts out."""
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    from kmlp.pytorch.counterparts import counterpart

    class Counter(TorchDispatchMode):
        values = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ in ("mm", "addmm", "bmm", "convolution"):
                self.values += out.numel()
            return out

    with shapes_only():
        model = kmlp.create_model(name, **NETWORKS[name])
        found = kmlp.profile(model)
    with torch.device("meta"):  # shapes here too
        published = counterpart(model).eval()
        with torch.no_grad(), Counter() as counter:
            published(torch.empty((1, 3, *model.input_shape[1:3])))
    assert found.activations == counter.values > 0


def test_activations_by_hand():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)  # 8·8·4
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)  # 4·4·4
    x = ops.matmul(x, ops.ones((4, 5)))  # 4·4·5
    x = layers.Dense(7)(layers.GlobalAveragePooling2D()(x))  # 7
    model = keras.Model(inputs, layers.Softmax()(x))
    assert kmlp.profile(model).activations == 256 + 64 + 80 + 7


class Block(layers.Layer):
    """A layer of somebody's own, with a part that is a model."""

    def __init__(self):
        super().__init__()
        self.part = keras.Sequential([keras.Input((4,)), layers.Dense(4)])

    def call(self, x):
        return x + self.part(x)


class Opaque(layers.Layer):
    """Needs values, so that its call cannot be followed."""

    def call(self, x):
        return x * float(keras.ops.convert_to_numpy(x).max())

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


def test_layers_of_somebodys_own():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Opaque()(Block()(inputs)))
    found = kmlp.profile(model)
    assert [row.kind for row in found.layers] == ["Block", "Opaque"]
    assert [row.activations for row in found.layers] == [4, 0]
    assert found.macs == 16


@pytest.mark.parametrize("name", ["convmlp_s", "swin_t", "repmlpnet_cifar"])
def test_layers_keep_no_traces(name):
    with shapes_only():
        model = kmlp.create_model(name)

    def nodes():
        parts = model._flatten_layers()
        return [(len(p._inbound_nodes), len(p._outbound_nodes)) for p in parts]

    before = nodes()
    assert kmlp.profile(model) == kmlp.profile(model)
    assert nodes() == before
