"""How the families are trained on small images, such as the embedded digits.

The published networks are made for 224x224. Here they keep widths and depths; patches
are chosen so that enough positions remain to mix. The settings are for runs of
minutes on a laptop and reproduce no paper.
"""

import dataclasses
import inspect

import kmlp
from kmlp.models.registry import variant
from training.console import Stop

# Up to this size the arguments for small images are used, above it the published.
LARGEST_SMALL = 64
# As many epochs as show about so many images, within limits.
IMAGES_SHOWN = 300_000
FEWEST_EPOCHS, MOST_EPOCHS = 5, 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """Image size, model arguments and training of an architecture.

    Attributes:
        image_size: of the images that the model sees.
        small: arguments of the model for images up to `LARGEST_SMALL`.
        batch_size: images per step.
        learning_rate: peak of the cosine.
        warmup: share of the steps in which the rate rises from 0.
        weight_decay: on matrices and kernels; vectors are left out.
        label_smoothing: share of the label spread over all classes.
    """

    image_size: int = 32
    small: dict = dataclasses.field(default_factory=dict)
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    label_smoothing: float = 0.1


FAMILIES = {
    # Without a residual around its depthwise convolutions it wants small steps: at
    # 1e-3 it learns half as fast, at 2e-3 not at all on some seeds.
    kmlp.ConvMLP: Settings(learning_rate=3e-4),
    # Patches of 8 leave 4x4 positions, at a quarter of the cost of patches of 4. Layer
    # scales of 1e-5 and less, as deep variants have, grow too slowly for short runs.
    kmlp.ResMLP: Settings(
        small={"patch_size": 8, "layer_scale": 0.1}, batch_size=32, learning_rate=2e-3
    ),
    kmlp.MSMLP: Settings(small={"layer_scale": 0.1}),
}
# Made for 32x32 and left as they are.
ARCHITECTURES = {"resmlp_12_cifar": Settings(batch_size=32, learning_rate=2e-3)}


def settings_of(arch):
    """The settings of an architecture.

    Raises:
        Stop: an unknown name; the message names the nearest.
    """
    try:
        family, _ = variant(arch)
    except ValueError as error:
        raise Stop(error) from error
    return ARCHITECTURES.get(arch, FAMILIES.get(family, Settings()))


def build(arch, num_classes, image_size, local_kernels=None):
    """The model of an architecture for square images.

    Args:
        local_kernels: sizes of the local branches; `None`: the architecture's own.

    Raises:
        Stop: an unknown name, or arguments that do not fit the architecture.
    """
    arguments = dict(settings_of(arch).small) if image_size <= LARGEST_SMALL else {}
    family, _ = variant(arch)
    if local_kernels is not None:
        if "local_kernels" not in inspect.signature(family).parameters:
            raise Stop(
                f"{arch} has no local branches: leave --local-kernels out or choose a "
                "family that has them. Received: --local-kernels "
                + ",".join(map(str, local_kernels))
            )
        arguments["local_kernels"] = local_kernels
    try:
        return kmlp.create_model(
            arch, num_classes, (image_size, image_size, 3), **arguments
        )
    except ValueError as error:
        raise Stop(
            f"{arch} cannot be built for {image_size}x{image_size}: {error}"
        ) from error


def default_epochs(images):
    """Epochs that show about `IMAGES_SHOWN` images."""
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(IMAGES_SHOWN / images)))
