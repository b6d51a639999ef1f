"""Train a segmenter: `kmlp train --task segment` from a clone."""

import sys
from pathlib import Path

# A script's own folder comes first: what is imported is the clone's.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from kmlp.commands.train import SEGMENTER  # noqa: E402

if __name__ == "__main__":
    SEGMENTER.enter()
