"""A linear map over positions, shared by the channels."""

import keras
from keras import ops

from kmlp import algebra
from kmlp.layers.layer import Layer, assign, host, initializer


@keras.saving.register_keras_serializable("kmlp")
class PositionLinear(Layer):
    """Positions to positions, for every channel alike: a Dense on transposed tokens.

    Args:
        units: output positions.
        use_bias: a bias per output position.
        kernel_initializer: of the kernel.

    Attributes:
        input_grid, output_grid: `(h, w)` of the map whose positions inputs and outputs
            are; `None`: they are no map's. The owner sets them.
        covers_map: whether that is the whole map, whatever blocks others cut it into.

    Shapes: `(N, L, C)` to `(N, units, C)`; the kernel is `(units, L)`, output
    position first.
    """

    arguments = ("units", "use_bias", "kernel_initializer")
    input_grid = output_grid = None
    covers_map = False

    def __init__(
        self, units, *, use_bias=True, kernel_initializer="glorot_uniform", **kwargs
    ):
        super().__init__(**kwargs)
        self.units = units
        self.use_bias = use_bias
        self.kernel_initializer = initializer(kernel_initializer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.units, input_shape[1]),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer="zeros"
            )

    def call(self, inputs):
        # The kernel on the left spares both transpositions.
        x = ops.matmul(self.kernel, inputs)
        return x if self.bias is None else x + self.bias[:, None]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units, input_shape[2])

    def multiply_adds(self, input_shape):
        _, length, channels = input_shape
        return self.units * length * channels

    def resize_from(self, source, method="linear", steps=(None, None)):
        """Takes the weights of a layer alike for another grid.

        They are interpolated along what is a map's: `W Down` over inputs, which keeps
        sums, `Up W` and `Up b` over outputs. All else is as it was.

        Args:
            source: a built `PositionLinear` over maps alike.
            method, steps: as in `kmlp.algebra.resize_map`.
        """
        kernel, bias = host(source.kernel), host(source.bias)
        if self.input_grid is not None:
            way = (source.input_grid, self.input_grid, method, steps)
            kernel = algebra.resize_inputs(kernel, *way)
        if self.output_grid is not None:
            way = (source.output_grid, self.output_grid, method, steps)
            kernel = algebra.resize_map(kernel.T, *way).T
            bias = None if bias is None else algebra.resize_map(bias[None], *way)[0]
        assign(self, kernel=kernel, bias=bias)
