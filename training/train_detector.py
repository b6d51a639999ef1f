"""Train a detector: `kmlp train --task detect` from a clone."""

import sys
from pathlib import Path

# A script's own folder comes first: what is imported is the clone's.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from kmlp.commands.train import DETECTOR  # noqa: E402

if __name__ == "__main__":
    DETECTOR.enter()
