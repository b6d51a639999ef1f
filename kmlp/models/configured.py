"""The base of all our models: a functional model that its configuration rebuilds."""

from collections.abc import Sequence
from typing import Any

import keras

from kmlp.layers.layer import (
    QUANTIZED,
    quantize_parts,
    quantized_parts,
    record_arguments,
)
from kmlp.typing import Config


class ConfiguredModel(keras.Model):
    """A functional model that keeps the arguments of its constructor.

    The signature of a subclass's `__init__` is the one place that names them; a
    subclass that is defined with `abstract=True` leaves that to its own subclasses.

    Attributes:
        preprocessing: Preparation of the images that the weights want, from
            `kmlp.preprocessing`, or `None`.
        weights_source: Origin of the weights, a dictionary that JSON can hold, or
            `None`.
    """

    preprocessing: Any = None
    weights_source: Any = None

    def __init_subclass__(cls, *, abstract=False, **kwargs):
        super().__init_subclass__(**kwargs)
        if not abstract:
            record_arguments(cls)

    def _keep(self, config, dtype, apart):
        """Keep the final configuration, each entry as an attribute but for `apart`.

        To be called once the graph is handed over.
        """
        self.dtype_policy = keras.dtype_policies.get(dtype)
        self._arguments, self._config = tuple(config), config
        for key, value in config.items():
            if key != apart:
                setattr(self, key, value)

    @property
    def class_names(self) -> Sequence[str] | None:
        """Return the names in the order of the classes, `None` where unknown."""
        return None if self.preprocessing is None else self.preprocessing.class_names

    def get_config(self) -> Config:
        return {
            **self._config,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **quantized_parts(self),
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: Any = None) -> Any:
        config = dict(config)
        trainable = config.pop("trainable", True)
        quantized = config.pop(QUANTIZED, {})
        for key in ("backbone", "dtype"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        model = cls(**config)
        quantize_parts(model, quantized)
        model.trainable = trainable
        return model
