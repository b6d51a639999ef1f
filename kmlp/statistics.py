"""Statistics of the data sets that networks are trained on."""

from typing import NamedTuple


class Statistics(NamedTuple):
    """Mean and deviation per channel, red first, of images in 0…1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The three as ConvMLP's authors have them; others differ in the fourth digit.
CIFAR10 = Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = Statistics((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
FLOWERS102 = Statistics((0.4353, 0.3773, 0.2872), (0.2966, 0.2455, 0.2698))
