"""Evaluate a detector or segmenter: `kmlp evaluate` from a clone."""

import sys
from pathlib import Path

# A script's own folder comes first: what is imported is the clone's.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from kmlp.commands.evaluate import DENSE_SCRIPT  # noqa: E402

if __name__ == "__main__":
    DENSE_SCRIPT.enter()
