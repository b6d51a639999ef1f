"""What others call our variables: tables, and how they are read."""

from kmlp.weights.names.dense import classifier_of, depths_of, schemes_of
from kmlp.weights.names.scheme import Scheme
from kmlp.weights.names.tables import SCHEMES

__all__ = ["SCHEMES", "Scheme", "classifier_of", "depths_of", "schemes_of"]
