"""What happens to training images: policies, erasing, mixing.

Everything here is TensorFlow, runs in the graph of a `tf.data` pipeline, and is a
function of its arguments alone: of a seed, the same images follow, in whatever order
and on however many threads they are made. Each module draws from a stream of its own,
so one seed per image serves them all.
"""

from training.augmentation.erasing import erase
from training.augmentation.mixing import mix
from training.augmentation.policies import policy

__all__ = ["erase", "mix", "policy"]
