"""Train merged models to be quantised, and write their int8 files."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp.analysis.linear import MIXING
from kmlp.artifacts import agreement, origin
from kmlp.artifacts.operation_audit import audited
from kmlp.artifacts.running import batch_of, load_tflite
from kmlp.atomic import new_file
from kmlp.compression.tfmot import import_tfmot
from kmlp.compression.twin import twin
from kmlp.errors import InputError
from kmlp.export.groundwork import named_failures, refuse_existing
from kmlp.export.tflite import write_tflite

_PREFIX = "quant_"  # tfmot's, of the names of its layers


class QuantizationAware:
    """A merged model that computes as its int8 file will.

    ```python
    aware = kmlp.compression.QuantizationAware(kmlp.merge(model), images)
    aware.model.compile("adam", loss)  # of tf_keras
    aware.model.fit(images, labels)
    aware.tflite("model.tflite")
    ```

    In its `tf_keras` twin every kernel passes through fake quantisation with a scale
    per output, and every activation through one with a range that training follows.
    The kernels are those of the merged model: what is trained to survive rounding is
    what the file multiplies by, and not the FC kernel and the convolutions that merge
    into it, each rounded for itself.

    Args:
        model: Merged RepMLPNet or ResMLP, `kmlp.merge(model)`, in float32.
        images: Images as the model takes them, a hundred or so: the ranges begin
            with theirs.

    Attributes:
        model: A `tf_keras.Model` to compile and fit, in float32 with fake quantisation.

    Raises:
        InputError: If the model has no twin (`kmlp.compression.twin`), or images are
            of another shape.
        ImportError: If tensorflow-model-optimization is missing.
    """

    def __init__(self, model: keras.Model, images: Any) -> None:
        import_tfmot()
        self._twin = twin(model)
        self.model = self._aware(self._twin.model, round_kernels=True)
        self._begin(self._checked(images))

    def _checked(self, images):
        images = np.asarray(images, "float32")
        shape = tuple(self.model.inputs[0].shape[1:])
        if images.shape[1:] != shape or not len(images):
            raise InputError(
                f"`images` must hold a batch of images {shape}. "
                f"Received: shape {images.shape}"
            )
        return images

    def _begin(self, images):
        """Set the ranges of all activations, and of the images, over some images."""
        from kmlp.compression.quantize_configs import taken_ranges

        with taken_ranges():
            self.model(images, training=True)
        inputs = _variables(self.model.layers[1])
        for name, value in (("min", images.min()), ("max", images.max())):
            (variable,) = (v for key, v in inputs.items() if key.endswith(name))
            variable.assign(value)

    def _aware(self, model, *, round_kernels):
        """Return the twin with fake quantisation."""
        import tf_keras

        from kmlp.compression.quantize_configs import Config, config_of
        from kmlp.compression.twin_builder import LAYERS

        joined = self._twin.kernels({MIXING})
        keep = {"round_kernels": round_kernels}

        def annotate(layer: Any) -> Any:
            config = config_of(layer, joined=layer.name in joined, **keep)
            return quantization.quantize_annotate_layer(layer, config)

        quantization = import_tfmot().quantization.keras
        with quantization.quantize_scope({**LAYERS, Config.__name__: Config}):
            annotated = tf_keras.models.clone_model(model, clone_function=annotate)
            annotated.set_weights(model.get_weights())
            return quantization.quantize_apply(annotated)

    def merged(self) -> keras.Model:
        """Return the Keras 3 model with the trained weights, not rounded."""
        return self._twin.back(lambda link: _weight(self.model, link))

    def tflite(
        self,
        path: str | os.PathLike,
        batch_size: int = 1,
        *,
        preprocessing: Any = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the int8 TFLite file; float32 images in, float32 outputs.

        Args:
            path: Path of the file.
            batch_size: Images that the file takes at once.
            preprocessing: Preparation of the images for the origin, a
                `kmlp.preprocessing.Preprocessing`.
            overwrite: Whether an existing file is replaced, in one step at the end.

        Returns:
            The `pathlib.Path` of the file.

        Raises:
            FileExistsError: If there is a file, and `overwrite` is false.
            OSError: If `path` cannot be written.
        """
        path = Path(path).expanduser()
        refuse_existing(path, overwrite)
        merged = self.merged()
        with named_failures(path), new_file(path) as file:
            # Begin as for a dynamic file, then add the model's own ranges.
            write_tflite(
                self._rounded(),
                file,
                quantize="dynamic",
                representative_data=None,
                batch_size=batch_size,
                input_shape=self.model.inputs[0].shape[1:],
            )
            runner = load_tflite(file)
            compared = agreement.compare_artifact(merged, runner, exact=False)
            origin.write(
                file,
                origin.describe(
                    merged, form=origin.MERGED, preprocessing=preprocessing
                ),
                artifact={
                    "kind": "TFLite",
                    "quantize": "int8, aware",
                    "batch": batch_of(file),
                },
                equality={**compared, "with": "fine-tuned"},
                audit=audited(file),
            )
        return path

    def _rounded(self):
        """Return the model with its kernels on int8's grid, and rounded no longer.

        The converter takes no fake quantisation per output of a matrix, but quantises
        a constant one so by itself: on the same grid, as the largest weight of every
        output lies on it.
        """
        rounded = self._aware(self._twin.model, round_kernels=False)
        for layer, trained in zip(rounded.layers, self.model.layers, strict=True):
            if not layer.name.startswith(_PREFIX):  # of the input, numbered anew
                layer.set_weights(trained.get_weights())
                continue
            values = _variables(trained)
            for name, variable in _variables(layer).items():
                variable.assign(values[name])
            _open_empty_range(_variables(layer))
        for link in self._twin.links:
            variable = _weight(rounded, link)
            value = variable.numpy()
            if link.kind is not None:
                step = np.abs(value).max(axis=0) / 127
                step[step == 0] = 1.0
                variable.assign(np.round(value / step) * step)
            elif link.attribute == "bias" and (value == value[0]).all():
                # Of equal values, as a norm over share-sets leaves them, the converter
                # rounds the first and repeats it, though the others have other scales.
                value[0] = np.nextafter(value[0], np.inf)
                variable.assign(value)
        return rounded


def _open_empty_range(variables):
    """Open the range of an activation that is always zero, of a dead ReLU say."""
    for name, high in variables.items():
        if name.endswith("max") and high.shape == ():
            low = variables[f"{name[:-3]}min"]
            high.assign(tf.where(high - low < 1e-12, 1.0, high))


def _weight(model, link):
    return _variables(model.get_layer(_PREFIX + link.layer))[link.attribute]


def _variables(layer):
    """Return `{name: variable}` of a layer, or of a wrapper and the layer in it."""
    return {v.name.split("/")[-1].split(":")[0]: v for v in layer.weights}
