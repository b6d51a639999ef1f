"""RepMLPNet's perceptrons: Global, Local and Channel, its set-sharing FC.

The set-sharing FC is also the token mixing of ResMLP and the axis mixing of sMLPNet.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError, check_choice
from kmlp.layers.initializers import FAN_IN_UNIFORM, FanInUniform, start
from kmlp.layers.layer import Layer, assign, copy, host, optional_pair, pair, tensor
from kmlp.layers.norms import affine_terms, own_norm
from kmlp.layers.partition import Partition
from kmlp.typing import KnownShape, Shape, Tensor


@keras.saving.register_keras_serializable("kmlp")
class GlobalPerceptron(Layer):
    """Gate per channel from the whole map: pool, Dense, ReLU, Dense, sigmoid.

    Args:
        reduction: Channels per hidden unit.
        kernel_initializer: Initializer of the Dense layers.

    Shapes: `(N, H, W, C)` in, `(N, 1, 1, C)` out, within (0, 1).

    Reference: RepMLPNet Sect. 4.2, Fig. 1 (FC1, FC2).
    """

    def __init__(self, reduction=4, *, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape: KnownShape) -> None:
        channels = input_shape[-1]
        hidden = channels // self.reduction
        if not hidden:
            raise InputError(
                f"{self.name}: `reduction` must not exceed the channels ({channels}). "
                f"Received: reduction={self.reduction}"
            )
        self.fc1 = self._dense(hidden, "fc1", channels, activation="relu")
        self.fc2 = self._dense(channels, "fc2", hidden, activation="sigmoid")

    def call(self, inputs: Tensor) -> Tensor:
        gate = self.fc2(self.fc1(ops.mean(inputs, axis=(1, 2))))
        return ops.reshape(gate, (-1, 1, 1, inputs.shape[-1]))

    def compute_output_shape(self, input_shape: KnownShape) -> Shape:
        return (input_shape[0], 1, 1, input_shape[-1])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return 2 * input_shape[-1] * (input_shape[-1] // self.reduction)


@keras.saving.register_keras_serializable("kmlp")
class LocalBranch(Layer):
    """Depthwise convolution shared by set, then BatchNorm over the share-sets.

    Channel `c` belongs to share-set `c mod S`, so every run of `S` channels is
    convolved with the same `S` kernels and counts as further samples in the
    norm's statistics.

    Args:
        kernel_size: Odd integer or pair of odd integers.
        share_sets: Number S of kernels; divides the channels.
        epsilon: Constant of the BatchNorm.

    Called with `valid`, a function of the convolution's output, the norm sees what
    it returns: of padded blocks the positions of the map.

    Shapes: `(B, h, w, C)` in, `(B, h*w, C/S, S)` out.

    Reference: RepMLPNet Sect. 4.2, Fig. 1 (Local Perceptron).
    """

    norm = "batch"

    def __init__(self, kernel_size, share_sets=1, *, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "local_kernels")
        if any(size % 2 == 0 for size in self.kernel_size):
            raise InputError(
                "Local kernels must have odd sizes, so that their output stays "
                f"centred. Received: local_kernels={kernel_size!r}"
            )
        self.normalize = own_norm(self)

    def build(self, input_shape: KnownShape) -> None:
        _, height, width, channels = input_shape
        taps = self.kernel_size[0] * self.kernel_size[1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, self.share_sets),
            initializer=FanInUniform(taps),
        )
        groups = channels // self.share_sets
        self.normalize.build((None, height * width, groups, self.share_sets))

    def call(
        self,
        inputs: Tensor,
        valid: Callable[[Tensor], Tensor] | None = None,
        training: bool | None = None,
    ) -> Tensor:
        _, height, width, channels = inputs.shape
        groups = channels // self.share_sets
        kernel = ops.tile(self.kernel, (1, 1, groups))
        if self.kernel_size == (1, 1):
            outputs = inputs * kernel[0, 0]
        else:
            outputs = ops.depthwise_conv(
                inputs, kernel[..., None], padding="same", data_format="channels_last"
            )
        outputs = ops.reshape(outputs, (-1, height * width, groups, self.share_sets))
        if valid is not None:
            outputs = valid(outputs)
        return self.normalize(outputs, training=training)

    def compute_output_shape(self, input_shape: KnownShape) -> Shape:
        batch, height, width, channels = input_shape
        groups = channels // self.share_sets
        return (batch, height * width, groups, self.share_sets)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        _, height, width, channels = input_shape
        taps = self.kernel_size[0] * self.kernel_size[1]
        return height * width * channels * taps

    def folded(self, read: Callable[[Any], Any] = tensor) -> tuple[Any, Any]:
        """Return the convolution with its norm folded in: `(kh, kw, S)` and `(S,)`.

        `read` turns variables into tensors (differentiable) or, as
        `kmlp.layers.layer.host`, into float64 arrays.
        """
        terms = affine_terms(self.normalize, read)
        return algebra.fold_after(read(self.kernel), None, *terms)


@keras.saving.register_keras_serializable("kmlp")
class SetSharingLinear(Layer):
    """One FC kernel over positions per share-set, with local branches in parallel.

    A map is cut into blocks; within a block every output position is a linear
    function of all positions. The channels are dealt out to `share_sets` kernels,
    channel `c` to set `c mod S`. With one share-set it is the token mixing of
    ResMLP and MLP-Mixer, with blocks `(1, W)` or `(H, 1)` the axis mixing of
    sMLPNet, with a norm and local branches the Channel and Local Perceptron of
    RepMLPNet. Local branches exist in training only: `merged()` injects them into
    the FC kernel (Locality Injection).

    Args:
        share_sets: Number S of kernels; divides the channels.
        block_size: Size `(h, w)` of a block; `None`: the map. A map that the blocks do
            not tile is padded with zeros at the bottom and right and cropped again; the
            norms' statistics leave the padding out.
        local_kernels: Sizes of the parallel depthwise convolutions, odd integers
            or pairs.
        use_bias: Whether there is a bias per share-set and position.
        norm: Kind of norm, `"batch"` (over the share-sets, after the FC) or `None`.
        epsilon: Constant of the norms.
        kernel_initializer: Initializer of the FC kernels; `None`: `FanInUniform`,
            kernels and biases uniform within `1 / sqrt(h*w)`.

    Shapes: `(N, H, W, C)` in and out; the kernel is `(S, h*w, h*w)`, output
    position first.

    Raises:
        InputError: If share-sets do not divide the channels, or sizes are unknown.

    References: RepMLPNet Sect. 3 and 4.1 (set-sharing linear mapping); ResMLP
    Eq. 2; sMLPNet Sect. 3.3.
    """

    def __init__(
        self,
        share_sets=1,
        *,
        block_size=None,
        local_kernels=(),
        use_bias=True,
        norm=None,
        epsilon=1e-5,
        kernel_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice(("batch", None), norm=norm)
        self.block_size = optional_pair(block_size, "block_size")
        self.local_kernels = tuple(pair(k, "local_kernels") for k in local_kernels)
        self.normalize = own_norm(self)
        self.branches = [
            LocalBranch(
                size,
                share_sets,
                epsilon=epsilon,
                name=f"local_{size[0]}x{size[1]}",
                dtype=self.dtype_policy,
            )
            for size in self.local_kernels
        ]

    def build(self, input_shape: KnownShape) -> None:
        channels = input_shape[-1]
        if channels % self.share_sets:
            raise InputError(
                f"{self.name}: share_sets must divide the channels ({channels}). "
                f"Received: share_sets={self.share_sets}"
            )
        self.partition = Partition(
            input_shape,
            self.block_size,
            columns_as_channels=self.share_sets == 1
            and all(size[1] == 1 for size in self.local_kernels),
            name=self.name,
        )
        length = self.partition.length
        kernel, bias = start(self.kernel_initializer or FAN_IN_UNIFORM, length)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.share_sets, length, length),
            initializer=kernel,
        )
        self.bias = self._bias(self.share_sets, length, start=bias)
        block = self.partition.block_shape
        if self.normalize is not None:
            groups = block[-1] // self.share_sets
            self.normalize.build((None, length, groups, self.share_sets))
        for branch in self.branches:
            branch.build(block)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        blocks = self.partition.split(inputs)  # (B, h, w, C)
        valid = self.partition.valid
        outputs = valid(self._fully_connected(blocks))  # (B, hw, C/S, S)
        if self.normalize is not None:
            outputs = self.normalize(outputs, training=training)
        for branch in self.branches:
            outputs = outputs + branch(blocks, valid=valid, training=training)
        return self.partition.join(outputs)

    def _fully_connected(self, blocks):
        length, sets = self.partition.length, self.share_sets
        groups = self.partition.block_shape[-1] // sets
        if sets == 1:
            # The kernel on the left spares both transpositions.
            kernel = ops.reshape(self.kernel, (length, length))
            outputs = ops.matmul(kernel, ops.reshape(blocks, (-1, length, groups)))
            if self.bias is not None:
                outputs = outputs + ops.reshape(self.bias, (length, 1))
            return ops.reshape(outputs, (-1, length, groups, 1))
        # (B, h, w, C) -> (B, hw, C/S, S) -> (S, hw, B·C/S): one product per set,
        # which beats one per sample and set where the sets are many and small.
        x = ops.reshape(blocks, (-1, length, groups, sets))
        x = ops.reshape(ops.transpose(x, (3, 1, 0, 2)), (sets, length, -1))
        x = ops.matmul(self.kernel, x)
        if self.bias is not None:
            x = x + self.bias[..., None]
        x = ops.reshape(x, (sets, length, -1, groups))
        return ops.transpose(x, (2, 1, 3, 0))

    def equivalent_kernel(
        self, read: Callable[[Any], Any] = tensor, local: bool = True
    ) -> tuple[Any, Any]:
        """Return the FC kernel and bias that equal this layer in inference.

        Args:
            read: Function that reads a variable, as a backend tensor by default, so
                that gradients reach the FC kernel, the convolutions and the norms'
                gamma and beta; `kmlp.layers.layer.host` reads float64 arrays.
            local: Whether the local branches go in; without them it is the FC and
                its norm.

        Returns:
            Kernel `(S, h*w, h*w)` and bias `(S, h*w)` (`None` without any).

        Reference: RepMLPNet Sect. 3.2, Eqs. 7-13 and Sect. 4.2.
        """
        kernel, bias = read(self.kernel), read(self.bias)
        if self.normalize is not None:
            terms = affine_terms(self.normalize, read)
            kernel, bias = algebra.fold_after_sets(kernel, bias, *terms)
        if local and self.branches:
            conv, local_bias = self._local_kernel(read)
            kernel = kernel + algebra.conv_to_fc(conv, self.partition.block_size)
            local_bias = algebra.repeat_bias(local_bias, self.partition.length)
            bias = local_bias if bias is None else bias + local_bias
        return kernel, bias

    def _local_kernel(self, read):
        """Return all branches as one convolution, padded to the largest and summed."""
        size = tuple(max(sizes) for sizes in zip(*self.local_kernels))
        folded = [branch.folded(read) for branch in self.branches]
        kernels = [algebra.pad_kernel(kernel, size) for kernel, _ in folded]
        return sum(kernels[1:], kernels[0]), sum(bias for _, bias in folded)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        batch, *size, channels = input_shape
        # Whole blocks are computed, padding included.
        size = [-(-s // b) * b for s, b in zip(size, self.partition.block_size)]
        fully_connected = math.prod(size) * channels * self.partition.length
        shape = (batch, *size, channels)
        local = sum(branch.multiply_adds(shape) for branch in self.branches)
        return fully_connected + local

    def resize_from(
        self, source: Layer, method: str = "linear", steps: Any = (None, None)
    ) -> None:
        """Take over the FC kernel and bias of a layer alike for another grid.

        They are interpolated from its block to this one's; equal blocks take equal
        weights. Norm and branches, which know no positions, are not touched.

        Args:
            source: Built `SetSharingLinear` with as many share-sets.
            method, steps: Same as in `kmlp.algebra.resize_kernel`.
        """
        kernel, bias = host(source.kernel), host(source.bias)
        grids = source.partition.block_size, self.partition.block_size
        if grids[0] != grids[1]:
            way = (*grids, method, steps)
            kernel = algebra.resize_kernel(kernel, *way)
            bias = None if bias is None else algebra.resize_map(bias, *way)
        assign(self, kernel=kernel, bias=bias)

    def merged(self) -> Layer:
        """Return the layer after Locality Injection, without norm and branches."""
        if self.normalize is None and not self.branches:
            return copy(self)
        kernel, bias = self.equivalent_kernel(host)
        twin = copy(self, norm=None, local_kernels=(), use_bias=True)
        assign(twin, kernel=kernel, bias=bias)
        return twin
