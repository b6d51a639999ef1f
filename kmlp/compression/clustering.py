"""Train weights of few distinct values."""

from collections.abc import Collection
from typing import Any

import keras

from kmlp.analysis.linear import CHANNEL, KINDS, MIXING
from kmlp.compression.tfmot import import_tfmot
from kmlp.compression.twin import twin
from kmlp.errors import InputError


class Clustering:
    """A merged model whose kernels share few values, and train so.

    ```python
    clustering = kmlp.compression.Clustering(kmlp.merge(model), number_of_clusters=16)
    clustering.model.compile("adam", loss)  # of tf_keras
    clustering.model.fit(images, labels)
    model = clustering.merged()
    ```

    tfmot's clustering acts on the `tf_keras` twin: a kernel is looked up in its own
    values, which training moves. Every share-set has values of its own.

    Args:
        model: Merged RepMLPNet or ResMLP, `kmlp.merge(model)`, in float32.
        number_of_clusters: Distinct values per kernel, at least 2. Kernels of no
            more weights than that are left alone.
        kinds: Kinds of layers that are clustered, of `kmlp.analysis.linear.KINDS`.

    Attributes:
        model: A `tf_keras.Model` to compile and fit.

    Raises:
        InputError: If the model has no twin (`kmlp.compression.twin`), or nothing in
            it is clustered.
        ImportError: If tensorflow-model-optimization is missing.
    """

    def __init__(
        self,
        model: keras.Model,
        number_of_clusters: int = 16,
        *,
        kinds: Collection[str] = (MIXING, CHANNEL),
    ) -> None:
        if type(number_of_clusters) is not int or number_of_clusters < 2:
            raise InputError(
                "`number_of_clusters` is an integer of at least 2. "
                f"Received: {number_of_clusters!r}"
            )
        if not kinds or not set(kinds) <= set(KINDS):
            raise InputError(
                f"`kinds` names kinds of layers, of {KINDS}. Received: {kinds!r}"
            )
        clustering = import_tfmot().clustering.keras
        self._twin = twin(model)
        kernels = {
            layer
            for layer, link in self._twin.kernels(kinds).items()
            if link.size > number_of_clusters
        }
        if not kernels:
            raise InputError(
                f"No layer of {tuple(kinds)} has more than {number_of_clusters} "
                f"weights: nothing is clustered. Received: {model.name!r}"
            )
        import tf_keras

        def wrapped(layer: Any) -> Any:
            if layer.name not in kernels:
                return layer
            return clustering.cluster_weights(
                layer,
                number_of_clusters,
                clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
            )

        self.model = tf_keras.models.clone_model(
            self._twin.model, clone_function=wrapped
        )

    def merged(self) -> keras.Model:
        """Return the Keras 3 model with the clustered weights as they are now."""
        stripped = import_tfmot().clustering.keras.strip_clustering(self.model)
        return self._twin.back(
            lambda link: getattr(stripped.get_layer(link.layer), link.attribute)
        )
