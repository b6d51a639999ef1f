"""Open an artifact in a session, as closely as possible to the server's own loader."""

import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from kmlp.console import quiet
from kmlp.errors import InputError
from kmlp.export.serving_signatures import DEFAULT
from kmlp.typing import PathLike

PREDICT = "tensorflow/serving/predict"


class Session:
    """The signatures of a SavedModel, run as a server runs them.

    Args:
        folder: Folder of one version.

    Attributes:
        signatures: Signatures as `{name: SignatureDef}`.
        seconds: Seconds that loading took.
    """

    def __init__(self, folder: PathLike) -> None:
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

    def inputs(self, signature: str | None = None) -> dict[str, np.dtype]:
        """Return the types of a signature's inputs by name, `object` for strings.

        Raises:
            LookupError: If there is no such signature.
        """
        return {
            name: np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
            for name, info in self._signature(signature).inputs.items()
        }

    def outputs(self, signature: str | None = None) -> list[str]:
        """Return the names of a signature's outputs, sorted."""
        return sorted(self._signature(signature).outputs)

    def predict(
        self, tensors: dict[str, np.ndarray], signature: str | None = None
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            tensors: Inputs by name.
            signature: Name of the signature; `None`: `serving_default`.

        Returns:
            The outputs by name.

        Raises:
            LookupError: If there is no such signature.
            InputError: If inputs have other names.
            tf.errors.OpError: What the server would answer with.
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


def reason(error: BaseException) -> str:
    """Return what an error says, in one line, as a server passes it on."""
    lines = (line.strip() for line in str(error).splitlines())
    # Python puts a heading before what the graph says, and where in the graph after.
    told = [
        line
        for line in lines
        if line and line != "Graph execution error:" and not line.startswith("[[")
    ]
    return told[0] if told else type(error).__name__
