"""What others call our variables: tables, and how they are read."""

from kmlp.weights.names.scheme import Scheme
from kmlp.weights.names.tables import SCHEMES

__all__ = ["SCHEMES", "Scheme"]
