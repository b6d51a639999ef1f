"""An artifact in a session, loaded by what is nearest to the server's own loader."""

import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from kmlp.console import quiet
from kmlp.errors import InputError

DEFAULT = "serving_default"
PREDICT = "tensorflow/serving/predict"


class Session:
    """The signatures of a SavedModel, run as a server runs them.

    Args:
        folder: of one version.

    Attributes:
        signatures: `{name: SignatureDef}`.
        seconds: that loading took.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        started = time.perf_counter()
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        # It warns of its age, and that is why it is here.
        tf.get_logger().setLevel("ERROR")
        with quiet(), self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(folder)
            )
        self.seconds = time.perf_counter() - started
        self.signatures = {
            name: signature
            for name, signature in loaded.signature_def.items()
            if signature.method_name  # the loader's own has none
        }

    def inputs(self, signature=None):
        """`{name: NumPy dtype}` of a signature's inputs, `object` for strings.

        Raises:
            LookupError: there is no such signature.
        """
        return _types(self._signature(signature).inputs)

    def outputs(self, signature=None):
        """The names of a signature's outputs, sorted."""
        return sorted(self._signature(signature).outputs)

    def predict(self, tensors, signature=None):
        """Runs a signature.

        Args:
            tensors: `{name: array}`.
            signature: its name; `None`: `serving_default`.

        Returns:
            `{name: array}`.

        Raises:
            LookupError: there is no such signature.
            ValueError: inputs of other names.
            tf.errors.OpError: what the server would answer with.
        """
        found = self._signature(signature)
        if tensors.keys() != found.inputs.keys():
            raise InputError(
                f"The signature takes {', '.join(sorted(found.inputs))}. "
                f"Received: {', '.join(sorted(tensors)) or 'nothing'}"
            )
        fetches = {name: info.name for name, info in found.outputs.items()}
        fed = {found.inputs[name].name: value for name, value in tensors.items()}
        return self._session.run(fetches, fed)

    def _signature(self, name):
        name = name or DEFAULT
        if name not in self.signatures:
            raise LookupError(
                f"The model has the signatures {', '.join(sorted(self.signatures))}. "
                f"Received: {name!r}"
            )
        return self.signatures[name]


def reason(error):
    """What an error says, in one line, as a server passes it on."""
    lines = (line.strip() for line in str(error).splitlines())
    # Python puts a heading before what the graph says, and where in the graph after.
    told = [
        line
        for line in lines
        if line and line != "Graph execution error:" and not line.startswith("[[")
    ]
    return told[0] if told else type(error).__name__


def _types(infos):
    return {
        name: np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
        for name, info in infos.items()
    }
