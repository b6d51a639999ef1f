"""Keep the chatter of TensorFlow's C++ libraries off the terminal."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# Informational lines and warnings of absl and the converter, its dumps of graphs, and
# the lines of a machine without a GPU, which come as errors.
_CHATTER = re.compile(
    r"[IW]\d{4} |INFO: |WARNING: All log|fully_quantize: |<unknown>:|.*loc\(|"
    r'  %|  "func|"func|\^bb|\}\) |To enable the following|'
    r"E\d{4} .*(cuda|cuInit|oneDNN)|\s+\[\[\{\{node "
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to the process's standard error.

    TensorFlow reads its log level once, when it is imported, so that only the
    descriptor itself can be redirected. What is no chatter is shown at the end.
    """
    try:
        sys.stderr.flush()
        original = os.dup(2)
    except (OSError, ValueError, AttributeError):
        yield  # no standard error to keep clean
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if line and not _CHATTER.match(line):
                    os.write(2, f"{line}\n".encode())
