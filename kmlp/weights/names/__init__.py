"""What others call our variables: tables, and how they are read."""

from kmlp.weights.names.dense_schemes import classifier_of, depths_of, schemes_of
from kmlp.weights.names.renamings import SCHEMES
from kmlp.weights.names.scheme import Scheme

__all__ = ["SCHEMES", "Scheme", "classifier_of", "depths_of", "schemes_of"]
