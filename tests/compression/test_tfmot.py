"""What importing tensorflow-model-optimization does, and does not."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

import kmlp
from kmlp.compression.tfmot import import_tfmot

ROOT = Path(__file__).resolve().parents[2]


def run(script):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_importing_kmlp_imports_neither_tfmot_nor_keras_2():
    result = run(
        "import sys, kmlp, kmlp.commands.main, kmlp.export, kmlp.compression\n"
        "bad = ('tensorflow_model_optimization', 'tf_keras')\n"
        "print([name for name in bad if name in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr[-3000:]


@pytest.mark.parametrize("before", [None, "0"])
def test_the_environment_stays_as_it_was(before, monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    if before is not None:
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", before)
    import_tfmot()
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    assert tf.keras.Model is keras.Model


def test_keras_stays_keras_3_where_tfmot_comes_first():
    result = run(
        "import os\n"
        "from kmlp.compression.tfmot import import_tfmot\n"
        "import_tfmot()\n"
        "import keras, tensorflow as tf\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
        "assert tf.keras.Model is keras.Model\n"
        "assert keras.version().startswith('3.')\n"
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(ImportError, match=r"pip install 'kmlp\[optimize\]'") as caught:
        kmlp.compression.Pruning(0.5, end_step=1)
    assert "\n" not in str(caught.value)
