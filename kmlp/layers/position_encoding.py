"""Learned positions, added to a map."""

import keras

from kmlp import algebra
from kmlp.errors import InputError
from kmlp.layers.layer import Layer, assign, host


@keras.saving.register_keras_serializable("kmlp")
class PositionEncoding(Layer):
    """Adds a learned vector per position, as ViT and CaiT do to their patches.

    Shapes: `(N, H, W, C)` in and out, sizes known.

    Raises:
        InputError: unknown sizes.

    Reference: ResMLP (Touvron et al., 2021), Appendix A, Position encoding.
    """

    # Positions are those of the image, whatever blocks other layers cut.
    covers_map = True

    def build(self, input_shape):
        if None in input_shape[1:]:
            raise InputError(
                f"{self.name}: positions are learned for one grid; give input_shape a "
                f"known height and width. Received: input_shape={tuple(input_shape)}"
            )
        self.encoding = self.add_weight(
            name="encoding",
            shape=tuple(input_shape[1:]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )

    def call(self, inputs):
        return inputs + self.encoding

    def resize_from(self, source, method="linear", steps=(None, None)):
        """Takes the vectors of a layer for another grid, interpolated to this one's.

        Args:
            source: a built `PositionEncoding`.
            method, steps: as in `kmlp.algebra.resize_map`.
        """
        values = host(source.encoding)
        height, width, channels = self.encoding.shape
        resized = algebra.resize_map(
            values.reshape(-1, channels).T,
            values.shape[:2],
            (height, width),
            method,
            steps,
        )
        assign(self, encoding=resized.T.reshape(height, width, channels))
