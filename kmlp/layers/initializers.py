"""How fresh networks start: the initial distributions of the published networks.

Three initializers are all that the published constructors draw from: PyTorch's default
of convolutions and linear maps, biases included; a normal of deviation 0.02; He's.
"""

from typing import Any

import keras

from kmlp.typing import Shape, Tensor


@keras.saving.register_keras_serializable("kmlp")
class FanInUniform(keras.initializers.VarianceScaling):
    """Uniform within ±1/√fan-in: PyTorch's start of a linear map, kernel and bias.

    A layer of the library whose kernel starts so draws its bias alike, and knows the
    fan-in of both. Other initializers leave biases at zero.

    Args:
        fan_in: Number of inputs of one output, which a bias and a depthwise kernel do
            not show; `None`: that of the kernel's shape.
        seed: Seed of the draw, or `None`.

    Reference: PyTorch, `torch.nn.Linear` and `torch.nn.Conv2d`.
    """

    def __init__(self, fan_in: int | None = None, seed: Any = None):
        super().__init__(1 / 3, "fan_in", "uniform", seed=seed)
        self.fan_in = fan_in

    def __call__(self, shape: Shape, dtype: Any = None) -> Tensor:
        if self.fan_in is None:
            return super().__call__(shape, dtype)
        bound = self.fan_in**-0.5
        uniform = keras.initializers.RandomUniform(-bound, bound, seed=self.seed)
        return uniform(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"fan_in": self.fan_in, "seed": super().get_config()["seed"]}


FAN_IN_UNIFORM = FanInUniform()
# The published "truncated normal" is cut at ±2, a hundred deviations: never.
NORMAL = keras.initializers.RandomNormal(stddev=0.02)
# He's by the fan-out, as the published convolutions in front of a ReLU.
HE_NORMAL = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def initializer(identifier: Any) -> Any:
    """Return a Keras initializer with a random state of its own; `None` stays `None`.

    One initializer object gives every variable of a shape the same draw, so a
    network that hands one to all its layers would start with equal blocks.
    """
    if identifier is None:
        return None
    return keras.initializers.get(identifier).clone()


def start(kernel: Any, fan_in: int, bias: Any = None) -> tuple[Any, Any]:
    """Return the initializers of kernel and bias of one linear map.

    Args:
        kernel: Initializer of the kernel, or what Keras takes for one.
        fan_in: Number of inputs of one output.
        bias: Initializer of the bias; `None`: the kernel's where that is
            `FanInUniform`, zeros otherwise.
    """
    kernel = initializer(kernel)
    if bias is None:
        bias = kernel if isinstance(kernel, FanInUniform) else "zeros"
    kernel, bias = (
        FanInUniform(fan_in) if isinstance(drawn, FanInUniform) else drawn
        for drawn in (kernel, initializer(bias))
    )
    return kernel, bias
