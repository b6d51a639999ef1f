"""Models of which only the shapes are wanted."""

import gc
import weakref

import keras
import numpy as np

import kmlp
from kmlp.analysis.complexity import shapes_only


def test_weights_are_counted_and_forgotten():
    with shapes_only():
        model = kmlp.ResMLP(10, (32, 32, 3), patch_size=8, width=16, depth=2)
    drawn = kmlp.ResMLP(10, (32, 32, 3), patch_size=8, width=16, depth=2)
    assert kmlp.profile(model).trainable == kmlp.profile(drawn).trainable
    # A later scope draws what waits: nothing of the model does.
    with keras.StatelessScope():
        pass
    kernel = model.get_layer("block0_cross_patch").mix.kernel
    assert kernel._value is None
    gone = weakref.ref(kernel)
    del model, kernel
    gc.collect()
    assert gone() is None


def test_what_waited_before_is_drawn():
    with keras.StatelessScope():
        waiting = keras.Variable(initializer="ones", shape=(2,))
        with shapes_only():
            keras.Variable(initializer="ones", shape=(3,))
    assert (keras.ops.convert_to_numpy(waiting) == np.ones(2)).all()
