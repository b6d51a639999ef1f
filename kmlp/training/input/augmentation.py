"""What happens to training images: policies, erasing, mixing.

Everything here is TensorFlow, runs in the graph of a `tf.data` pipeline, and is a
function of its arguments alone: of a seed, the same images follow, in whatever order
and on however many threads they are made. Each module draws from a stream of its own,
so one seed per image serves them all.
"""

from kmlp.training.input.erasing import erase
from kmlp.training.input.mixing import mix
from kmlp.training.input.policies import policy

__all__ = ["erase", "mix", "policy"]
