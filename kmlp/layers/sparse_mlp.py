"""sMLPNet's sparse MLP."""

import keras
from keras import ops

from kmlp.layers.base import Layer, assign, copy, host, initializer, like, pair
from kmlp.layers.set_sharing import SetSharingLinear


@keras.saving.register_keras_serializable("kmlp")
class SparseMLP(Layer):
    """Mixing along the width, along the height and identity, fused by a Dense.

    Each axis has one FC shared by all channels and by all rows or columns. Local
    branches beside the axis FCs are one-dimensional convolutions and merge like
    the two-dimensional ones.

    Args:
        block_size: `(h, w)` of the map the FCs cover; `None`: the map. Each axis of
            a map that the blocks do not tile is padded and cropped for its FC.
        local_kernels: odd sizes of one-dimensional local branches.
        kernel_initializer: of the fusing Dense.
        epsilon: of the local branches' norms.

    Shapes: `(N, H, W, C)` in and out.

    Reference: sMLPNet (Tang et al., 2022), Sect. 3.3, Algorithm 1.
    """

    arguments = ("block_size", "local_kernels", "kernel_initializer", "epsilon")

    def __init__(
        self,
        *,
        block_size=None,
        local_kernels=(),
        kernel_initializer="glorot_uniform",
        epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.block_size = None if block_size is None else pair(block_size, "block_size")
        self.local_kernels = tuple(local_kernels)
        self.kernel_initializer = initializer(kernel_initializer)
        self.epsilon = epsilon

    def build(self, input_shape):
        _, height, width, channels = input_shape
        h, w = self.block_size or (height, width)
        self.mix_width = self._axis("mix_width", (1, w), input_shape)
        self.mix_height = self._axis("mix_height", (h, 1), input_shape)
        self.fuse = keras.layers.Dense(
            channels,
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            name="fuse",
            dtype=self.dtype_policy,
        )
        self.fuse.build((None, 3 * channels))

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

    def call(self, inputs, training=None):
        channels = inputs.shape[-1]
        paths = [
            inputs,
            self.mix_width(inputs, training=training),
            self.mix_height(inputs, training=training),
        ]
        x = ops.reshape(ops.concatenate(paths, axis=-1), (-1, 3 * channels))
        return ops.reshape(self.fuse(x), like(inputs))

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        fuse = height * width * 3 * channels * channels
        axes = (self.mix_width, self.mix_height)
        return fuse + sum(axis.multiply_adds(input_shape) for axis in axes)

    def merged(self):
        """Local branches injected into the axis kernels."""
        if not self.local_kernels:
            return copy(self)
        twin = copy(self, local_kernels=())
        for name in ("mix_width", "mix_height"):
            kernel, bias = getattr(self, name).equivalent_kernel(host)
            assign(getattr(twin, name), kernel=kernel, bias=bias)
        assign(twin.fuse, kernel=host(self.fuse.kernel))
        return twin
