"""Published checkpoints brought to this machine."""

from kmlp.weights.downloads.cache import cache_path, download

__all__ = ["cache_path", "download"]
