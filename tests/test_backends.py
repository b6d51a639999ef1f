"""The core imports and runs where TensorFlow is not installed."""

import importlib.util
import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules["tensorflow"] = None  # importing it raises ImportError
import numpy as np
import kmlp
model = kmlp.create_model(
    "repmlpnet_t224", 5, (32, 32, 3),
    depths=(1, 1), widths=(8, 16), share_sets=(1, 4),
)
x = np.ones((2, 32, 32, 3), "float32")
merged = kmlp.merge(model)
import keras
a, b = (keras.ops.convert_to_numpy(m(x)) for m in (model, merged))
assert abs(a - b).max() <= 1e-5 * abs(a).max()
assert kmlp.profile(model).macs > 0
for way in ("interpolate", "partition"):
    resized = kmlp.resize(model, (44, 28, 3), way)
    x = np.ones((2, 44, 28, 3), "float32")
    a, b = (keras.ops.convert_to_numpy(m(x)) for m in (resized, kmlp.merge(resized)))
    assert abs(a - b).max() <= 1e-5 * abs(a).max()
from kmlp.layers import ConvNorm, MixShift, NormDepthwiseConv
model = keras.Sequential([
    keras.Input((5, 4, 3)), ConvNorm(4, strides=2), keras.layers.MaxPooling2D(2, 1),
    NormDepthwiseConv(), MixShift((1, 3), (0, 1)),
])
x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
without = kmlp.merge(model, dense="all", check=False)
assert len(set(kmlp.merging.dense_layers(without).values())) == 3
a, b = (keras.ops.convert_to_numpy(m(x)) for m in (model, without))
assert abs(a - b).max() <= 1e-5 * abs(a).max()
# `import kmlp` is enough to load a file that holds a dense model.
for name in ("RetinaNet", "MaskRCNN", "CascadeMaskRCNN", "SemanticFPN", "UperNet"):
    assert keras.saving.get_registered_object(f"kmlp>{name}"), name
print("ran on", keras.backend.backend())
"""


def run_on(backend, script):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_core_runs_without_tensorflow(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    result = run_on(backend, SCRIPT)
    assert f"ran on {backend}" in result.stdout, result.stderr[-2000:]


def test_importing_the_core_does_not_import_tensorflow_modules():
    """No file of the core names TensorFlow; its backend is Keras' affair."""
    script = (
        "import pathlib, kmlp\n"
        "root = pathlib.Path(kmlp.__file__).parent\n"
        "core = ['algebra.py', 'merging.py', 'layers', 'models',"
        " 'weights', 'analysis']\n"
        "paths = [p for n in core for p in (root / n, *(root / n).rglob('*.py'))]\n"
        "files = [p for p in paths if p.suffix == '.py']\n"
        "assert len(files) > 20\n"
        "print([f.name for f in files if 'import tensorflow' in f.read_text()])\n"
    )
    result = run_on("tensorflow", script)
    assert result.stdout.strip() == "[]", result.stderr[-2000:]
