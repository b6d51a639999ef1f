"""Speed: every form of a network, or networks on every backend, timed in turns."""
