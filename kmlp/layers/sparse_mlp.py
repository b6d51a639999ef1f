"""sMLPNet's sparse MLP."""

import keras
from keras import ops

from kmlp.errors import check_choice
from kmlp.layers.layer import (
    Layer,
    assign,
    copy,
    host,
    kernel_products,
    like,
    optional_pair,
)
from kmlp.layers.perceptrons import SetSharingLinear
from kmlp.typing import KnownShape, Shape, Tensor

FUSIONS = ("concat", "sum", "weighted_sum")
AXES = ("parallel", "sequential")


@keras.saving.register_keras_serializable("kmlp")
class SparseMLP(Layer):
    """Mixing along the width, along the height and identity, fused.

    Each axis has one FC shared by all channels and by all rows or columns. Local
    branches beside the axis FCs are one-dimensional convolutions and merge like
    the two-dimensional ones.

    Args:
        block_size: Size `(h, w)` of the map the FCs cover; `None`: the map. Each axis
            of a map that the blocks do not tile is padded and cropped for its FC.
        local_kernels: Odd sizes of one-dimensional local branches.
        fusion: Fusion of the paths, `"concat"`: a Dense over all their channels;
            `"sum"`; `"weighted_sum"`: a learned weight per path and channel.
        axes: Arrangement of the axes. `"parallel"`: a path each; `"sequential"`: one
            path, first along the width, then along the height. The paper does not say
            how that one is fused: here as the paths of parallel axes are, by a Dense
            also where it is the only one.
        identity: Whether there is a path of the input itself.
        kernel_initializer: Initializer of the fusing Dense.
        epsilon: Constant of the local branches' norms.

    Shapes: `(N, H, W, C)` in and out.

    Raises:
        InputError: If a fusion or an order of axes is unknown.

    Reference: sMLPNet (Tang et al., 2022), Sect. 3.3, Algorithm 1; Tables 3 and 4 for
    other fusions and paths.
    """

    def __init__(
        self,
        *,
        block_size=None,
        local_kernels=(),
        fusion="concat",
        axes="parallel",
        identity=True,
        kernel_initializer="glorot_uniform",
        epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice(FUSIONS, fusion=fusion)
        check_choice(AXES, axes=axes)
        self.block_size = optional_pair(block_size, "block_size")

    def build(self, input_shape: Shape) -> None:
        _, height, width, channels = input_shape
        h, w = self.block_size or (height, width)
        self.mix_width = self._axis("mix_width", (1, w), input_shape)
        self.mix_height = self._axis("mix_height", (h, 1), input_shape)
        paths = self.identity + (2 if self.axes == "parallel" else 1)
        self.fuse = self.scale = None
        if self.fusion == "concat":
            self.fuse = self._dense(channels, "fuse", paths * channels, use_bias=False)
        elif self.fusion == "weighted_sum":
            self.scale = self.add_weight(
                name="scale", shape=(paths, channels), initializer="ones"
            )

    def _axis(self, name, block, input_shape):
        kernels = [(k, 1) if block[1] == 1 else (1, k) for k in self.local_kernels]
        mix = SetSharingLinear(
            block_size=block,
            local_kernels=kernels,
            epsilon=self.epsilon,
            name=name,
            dtype=self.dtype_policy,
        )
        mix.build(input_shape)
        return mix

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = self.mix_width(inputs, training=training)
        if self.axes == "parallel":
            paths = [x, self.mix_height(inputs, training=training)]
        else:
            paths = [self.mix_height(x, training=training)]
        if self.identity:
            paths.insert(0, inputs)
        if self.fuse is not None:
            x = ops.concatenate(paths, axis=-1) if len(paths) > 1 else paths[0]
            x = ops.reshape(x, (-1, len(paths) * inputs.shape[-1]))
            return ops.reshape(self.fuse(x), like(inputs))
        if self.scale is not None:
            paths = [path * self.scale[i] for i, path in enumerate(paths)]
        return sum(paths[1:], paths[0])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        axes = (self.mix_width, self.mix_height)
        total = sum(axis.multiply_adds(input_shape) for axis in axes)
        return total + kernel_products(input_shape, getattr(self.fuse, "kernel", None))

    def merged(self) -> Layer:
        """Return the layer with local branches injected into the axis kernels."""
        if not self.local_kernels:
            return copy(self)
        twin = copy(self, local_kernels=())
        for name in ("mix_width", "mix_height"):
            kernel, bias = getattr(self, name).equivalent_kernel(host)
            assign(getattr(twin, name), kernel=kernel, bias=bias)
        if self.fuse is not None:
            twin.fuse.set_weights(self.fuse.get_weights())
        assign(twin, scale=host(self.scale))
        return twin
