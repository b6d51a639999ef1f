"""What a copy could lose: it is carried, or its layer is named."""

import random

import keras
import numpy as np
import pytest
from cases import CASES, FAMILIES, build, few, images, randomize, relative_error, run
from keras import layers, ops

import kmlp
from kmlp import divergence
from kmlp.layers import BatchNorm, ChannelMLP

TOLERANCE = 1e-5
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 6, 4, 8)).astype("float32")
SEQUENCE = RANDOM.normal(size=(2, 5, 8)).astype("float32")
TOKENS = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 0]])
TENSORFLOW = keras.backend.backend() == "tensorflow"


def graph(of, shape=(6, 4, 8), **options):
    """A functional model `of(inputs)` with random weights and statistics."""
    inputs = keras.Input(shape, **options)
    model = keras.Model(inputs, of(inputs))
    randomize(model)
    return model


class Attribute(layers.Layer):
    """Holds a number that its configuration does not have."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


class Table(layers.Layer):
    """Holds an array that Keras' files have and `get_weights` has not."""

    def build(self, input_shape):
        self.table = np.zeros(input_shape[-1], "float32")

    def call(self, x):
        return x + ops.convert_to_tensor(self.table)

    def save_own_variables(self, store):
        store["table"] = self.table

    def load_own_variables(self, store):
        self.table = np.array(store["table"])


class Private(layers.Layer):
    """Has parts in attributes of any name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self._dense = BatchNorm(), layers.Dense(8)

    def build(self, input_shape):
        self.norm.build(input_shape)
        self._dense.build(input_shape)

    def call(self, x):
        return self._dense(self.norm(x))


class Options(layers.Layer):
    def call(self, x, **options):
        return x * options.get("factor", 1.0)

    def compute_output_shape(self, input_shape):
        return input_shape


class Holder(layers.Layer):
    """Calls a layer that others call too."""

    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        dense = keras.saving.serialize_keras_object(self.dense)
        return {**super().get_config(), "dense": dense}

    @classmethod
    def from_config(cls, config):
        dense = keras.saving.deserialize_keras_object(config.pop("dense"))
        return cls(dense, **config)


class Always(keras.Model):
    """A norm that its own code calls as in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = BatchNorm()

    def call(self, x):
        return self.norm(x, training=True)


class Doubled(keras.Model):
    """A graph, and a `call` that does more."""

    def __init__(self):
        inputs = keras.Input((6, 4, 8))
        super().__init__(inputs, BatchNorm()(inputs))

    def call(self, x, training=None):
        return 2 * super().call(x, training=training)

    def get_config(self):
        return {}


class Factor(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.factor = BatchNorm(), 1.0

    def call(self, x):
        return self.norm(x) * self.factor


class Wrong(layers.Layer):
    def call(self, x):
        return x + 1

    def merged(self):
        return layers.Identity(name=self.name)


class Unnamed(layers.Layer):
    """Cannot be rebuilt: what it was made of is in no configuration."""

    def __init__(self, made_of, **kwargs):
        super().__init__(**kwargs)

    def call(self, x):
        return x + 1


class Noise(layers.Layer):
    def call(self, x):
        return x + float(np.random.normal())


def adapted():
    norm = layers.Normalization()
    norm.adapt(3 * X + 2)
    return graph(lambda x: BatchNorm()(norm(x))), X


def table():
    layer = Table()
    model = graph(lambda x: BatchNorm()(layer(x)))
    layer.table = np.arange(8, dtype="float32")
    return model, X


def vocabulary():
    words = layers.TextVectorization(output_mode="tf_idf")
    words.adapt(["a b c", "a d"])
    model = graph(lambda x: BatchNorm()(words(x)), (), dtype="string")
    return model, ops.convert_to_tensor(["a b", "c d d"])


def recurrent():
    model = graph(
        lambda x: BatchNorm()(layers.LSTM(4, stateful=True)(x)),
        None,
        batch_shape=(2, 5, 8),
    )
    model(SEQUENCE)
    return model, SEQUENCE


def in_training():
    return graph(lambda x: BatchNorm()(BatchNorm()(x), training=True)), X


def nested_in_training():
    inner = graph(lambda x: BatchNorm()(layers.Dense(8)(x)))
    return graph(lambda x: inner(x, training=True)), X


def dropped_in_training():
    model = graph(lambda x: layers.Dropout(0.5)(BatchNorm()(x), training=True))
    model(X)  # its random numbers go on from here
    return model, X


def lora(layer, of=None, shape=(6, 4, 8), x=X, **options):
    model = graph(of or (lambda x: BatchNorm()(layer(x))), shape, **options)
    layer.enable_lora(2, lora_alpha=3)
    layer.lora_kernel_b.assign(RANDOM.normal(size=layer.lora_kernel_b.shape))
    return model, x


def lora_inside():
    mlp = ChannelMLP(2, norm="batch")
    model = graph(mlp)
    for dense in (mlp.fc1, mlp.fc2):
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(RANDOM.normal(size=dense.lora_kernel_b.shape))
    return model, X


def lora_family():
    model = build("resmlp")
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Dense):
            layer.enable_lora(2)
            layer.lora_kernel_b.assign(RANDOM.normal(size=layer.lora_kernel_b.shape))
    return model, images(model)


def in_two_submodels():
    dense, norm = layers.Dense(8), BatchNorm()
    one, other = graph(lambda x: norm(dense(x))), graph(lambda x: ops.relu(dense(x)))
    return graph(lambda x: one(x) + other(x)), X


def nested_twice():
    inner = graph(lambda x: BatchNorm()(layers.Dense(8)(x)))
    middle = graph(lambda x: inner(x) * 2.0)
    return graph(lambda x: inner(inner(x)) + middle(x)), X


def part_of_two(first):
    dense = layers.Dense(8)
    holder = Holder(dense)
    if first == "alone":
        return graph(lambda x: BatchNorm()(holder(dense(x)))), X
    return graph(lambda x: BatchNorm()(dense(holder(x)))), X


def frozen():
    inner = graph(lambda x: layers.Dense(8)(BatchNorm()(x)))
    inner.trainable = False
    norm = BatchNorm(trainable=False)
    return graph(lambda x: layers.Dense(3)(norm(inner(x)))), X


def several_inputs():
    maps, tokens = keras.Input((6, 4, 8), name="m"), keras.Input((5,), name="t")
    embedded = layers.Embedding(10, 8, mask_zero=True)(tokens)
    embedded = layers.GlobalAveragePooling1D()(BatchNorm()(embedded))
    outputs = [BatchNorm()(maps), {"tokens": embedded}]
    model = keras.Model({"m": maps, "t": tokens}, outputs)
    randomize(model)
    return model, {"m": X, "t": TOKENS}


def compiled():
    model = graph(BatchNorm())
    model.compile("sgd", lambda true, found: true - found)
    return model, X


# Case -> (function to a model and inputs, parameters of the merged model).
CARRIED = {
    "state of its own": (adapted, 17 + 16),
    "state in Keras' files": (table, 16),
    "recurrent state": (recurrent, 16 * 12 + 16 + 8),
    "training=True": (in_training, 16 + 32),
    "training=True of a model": (nested_in_training, 72 + 32),
    "random numbers": (dropped_in_training, 16),
    "LoRA": (lambda: lora(layers.Dense(8)), 72 + 16),
    "LoRA of a convolution": (
        lambda: lora(layers.Conv2D(8, 3)),
        9 * 64 + 8 + 16,
    ),
    "LoRA of einsum": (
        lambda: lora(layers.EinsumDense("abcd,de->abce", (None, 4, 8))),
        64 + 16,
    ),
    "LoRA within a layer": (lora_inside, 8 * 16 + 16 + 16 * 8 + 8),
    "LoRA of a family": (lora_family, None),
    "a layer of two submodels": (in_two_submodels, 72 + 16),
    "a model nested twice": (nested_twice, 72 + 16),
    "a part of two layers": (lambda: part_of_two("held"), 72 + 16),
    "a layer and a part": (lambda: part_of_two("alone"), 72 + 16),
    "private parts": (lambda: (graph(Private()), X), 72 + 16),
    "any keywords": (
        lambda: (graph(lambda x: Options()(BatchNorm()(x), factor=3.0)), X),
        16,
    ),
    "a function without a name": (
        lambda: (
            graph(lambda x: layers.Lambda(lambda y: ops.abs(y))(BatchNorm()(x))),
            X,
        ),
        16,
    ),
    "an unregistered class in a wrapper": (
        lambda: (
            graph(lambda x: BatchNorm()(layers.TimeDistributed(Options())(x))),
            X,
        ),
        16,
    ),
    "frozen layers": (frozen, 72 + 16 + 16 + 27),
    "inputs of several kinds": (several_inputs, 80 + 16 + 16),
    "a loss without a name": (compiled, 16),
}
if keras.backend.backend() == "torch":
    del CARRIED["random numbers"]  # PyTorch draws them from no state of the layer's
if TENSORFLOW:
    CARRIED["a vocabulary"] = (vocabulary, None)


@pytest.mark.parametrize("case", CARRIED)
def test_what_a_layer_holds_is_carried(case):
    make, parameters = CARRIED[case]
    model, x = make()
    merged = kmlp.merge(model)
    found, expected = (keras.tree.flatten(run(m, x)) for m in (merged, model))
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) <= TOLERANCE
    assert parameters in (None, merged.count_params())
    assert not any("lora" in weight.path for weight in merged.weights)
    if not model.trainable_weights or case == "frozen layers":
        names = {weight.path.split("/")[-2] for weight in merged.trainable_weights}
        assert names == {merged.layers[-1].name}
    again = kmlp.merge(merged)
    assert again.count_params() == merged.count_params()


def attribute():
    layer = Attribute()
    model = graph(lambda x: BatchNorm()(layer(x)))
    layer.factor = 3.0
    return model


def held_attribute():
    layer = Attribute(name="deep")
    inner = graph(lambda x: layers.Dense(8)(layer(x)))
    model = graph(lambda x: BatchNorm()(inner(x)))
    layer.factor = 3.0
    return model


def called_on_data(model):
    model(X)
    randomize(model)
    return model


def factor():
    model = called_on_data(Factor(name="mine"))
    model.factor = 2.0
    return model


def quantized(mode, of="resmlp"):
    model = build(of)
    quiet_quantize(model, mode)
    return model


def quiet_quantize(model, mode):
    with pytest.warns(UserWarning, match="does not have a `quantize`"):
        model.quantize(mode)


# Case -> (function to what is merged, pattern of the message).
REFUSED = {
    "an attribute": (attribute, r"no equal form of 'attribute\w*' .*get_config\(\)"),
    "within a model": (held_attribute, r"no equal form of '.*deep' \(Attribute\)"),
    "a call in training": (
        lambda: called_on_data(Always()),
        r"no equal form of '.*batch_norm\w*' .*training=True",
    ),
    "a model's own call": (
        lambda: called_on_data(Doubled()),
        r"differ by 0\.5 .*own `call`.*Received: a Doubled",
    ),
    "a model's attribute": (factor, r"no equal form of 'mine'.*differ by 0\.5"),
    "a wrong inference form": (
        lambda: graph(Wrong(name="wrong")),
        r"no equal form of 'wrong' .*merged\(\)",
    ),
    "no configuration": (
        lambda: graph(Unnamed(object(), name="lost")),
        r"'lost' \(Unnamed\) cannot be rebuilt.*get_config",
    ),
    "int8": (lambda: quantized("int8"), r"merge first.*quantize\('int8'\).*cross_chan"),
    "nothing": (lambda: None, "takes a keras.Model .*Received: None"),
    "a name": (lambda: "convmlp_s", "takes a keras.Model .*Received: 'convmlp_s'"),
    "no weights": (lambda: Always(name="mine"), "built model.*Received: 'mine'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_carried_is_named(case):
    make, message = REFUSED[case]
    with pytest.raises(kmlp.errors.InputError, match=message) as raised:
        kmlp.merge(make())
    assert "\n" not in str(raised.value)


def open_pair():
    """A subclassed model of two inputs, of which Keras notes one."""

    class Pair(keras.Model):
        def call(self, one, other):
            return one + other

    model = Pair()
    model(X, X)
    return model


def not_a_number():
    model = graph(BatchNorm(name="norm"))
    model.weights[0].assign(np.full(8, np.nan))
    return model


# Case -> (function to a model, pattern of the warning).
NOT_COMPARED = {
    "random": (lambda: graph(lambda x: Noise()(BatchNorm()(x))), "random in inference"),
    "unknown inputs": (open_pair, "was not compared .*argument: 'other'"),
    "no size": (
        lambda: graph(
            lambda x: layers.Reshape((7,))(BatchNorm()(x)), (None, 7), name="any"
        ),
        "was not compared",
    ),
    "not finite": (not_a_number, "not finite .*norm/gamma"),
}


@pytest.mark.parametrize("case", NOT_COMPARED)
def test_what_is_not_compared_is_said(case):
    make, message = NOT_COMPARED[case]
    with pytest.warns(UserWarning, match=message) as caught:
        kmlp.merge(make())
    assert __file__ in {one.filename for one in caught}


def test_nothing_is_compared_unasked():
    assert kmlp.merge(attribute(), check=False).built


def test_an_equal_form_costs_two_passes(monkeypatch):
    passes = []
    once = divergence._run
    monkeypatch.setattr(divergence, "_run", lambda *a: passes.append(1) or once(*a))
    kmlp.merge(graph(lambda x: BatchNorm()(layers.Conv2D(4, 3)(x)), (None, None, 3)))
    assert len(passes) == 2


def test_comparing_leaves_no_trace():
    class Both(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dropout = layers.Dropout(0.5)
            self.norm = layers.BatchNormalization()

        def call(self, x):
            return self.norm(self.dropout(x, training=True), training=True)

    model = called_on_data(Both())
    before = [ops.convert_to_numpy(v) for v in model.variables]
    keras.utils.set_random_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy()
    divergence.check_equal(model, model, [])
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    for variable, value in zip(model.variables, before, strict=True):
        assert (ops.convert_to_numpy(variable) == value).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("case", few(CASES, "resmlp_local"))
def test_no_form_is_refused_for_its_rounding(case, policy, monkeypatch):
    monkeypatch.setattr(divergence, "_not_compared", pytest.fail)
    model = build(case, dtype=policy)
    kmlp.merge(model)
    if TENSORFLOW:
        from kmlp.export.groundwork import in_float32

        in_float32(model)


QUANTIZED = [
    (case, form, mode)
    for case in FAMILIES
    for form in ("trained", "merged")
    for mode in ("int8", "int4", "float8")
]


@pytest.mark.parametrize(
    ("case", "form", "mode"),
    few(QUANTIZED, ("resmlp", "trained", "int8"), ("resmlp", "merged", "int4")),
)
def test_quantized_models_save_and_load(case, form, mode, tmp_path):
    model = kmlp.merge(build(case)) if form == "merged" else build(case)
    x = images(model)
    plain = run(model, x)
    quiet_quantize(model, mode)
    expected = run(model, x)
    assert 1e-4 < relative_error(expected, plain) < 1
    model.save(tmp_path / "quantized.keras")
    loaded = keras.models.load_model(tmp_path / "quantized.keras")
    assert (run(loaded, x) == expected).all()
    assert {w.dtype for w in loaded.weights} == {w.dtype for w in model.weights}
    if form == "merged":
        assert (run(kmlp.merge(loaded), x) == expected).all()
