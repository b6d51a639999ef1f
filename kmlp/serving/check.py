"""What a server will do with an artifact, found out without a server.

The artifact is loaded by the loader that is nearest to TensorFlow Serving's, run in a
session, and asked in the server's JSON. Run by itself, nothing of the model's Python
code is there to help: `kmlp serving check FOLDER`.
"""

import dataclasses
import sys

from kmlp.artifacts.locating import SAVED_MODEL, locate
from kmlp.errors import InputError
from kmlp.serving import checks
from kmlp.serving.session import reason


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: was checked.
        failure: what is wrong, or `None`.
        detail: what was seen.
    """

    what: str
    failure: str | None
    detail: str = ""


def check(folder):
    """Checks one version.

    Args:
        folder: of a SavedModel, or of its versions, of which the newest is taken.

    Yields:
        A `Finding` for each check.

    Raises:
        InputError: there is no SavedModel.
    """
    folder, form = locate(folder)
    if form != SAVED_MODEL:
        raise InputError(f"Served is a SavedModel. Received: {str(folder)!r}, a {form}")
    try:
        artifact = checks.Artifact(folder)
    except Exception as error:  # whatever it is, a server would not load it either
        yield Finding("loads in a session", reason(error))
        return
    names = sorted(artifact.session.signatures)
    seconds = f"{artifact.session.seconds:.1f} s: {', '.join(names)}"
    yield Finding("loads in a session", None, seconds)
    for what, function in (
        ("method names", checks.methods),
        ("class names", checks.class_names),
        ("warm-up records", checks.warmup),
        ("JSON, rows and columns", checks.formats),
        ("one at a time as in a batch", checks.batches),
        ("no images", checks.no_images),
        ("as in evaluation", checks.evaluation),
        ("scores", checks.scores),
        ("the pyramid", checks.pyramid),
        ("hostile bytes", checks.hostile),
    ):
        try:
            yield Finding(what, None, function(artifact))
        except Exception as error:
            yield Finding(what, reason(error))


def table(findings):
    """The findings as lines, each printed when it is there; whether all are good."""
    good = True
    for finding in findings:
        word = "ok  " if finding.failure is None else "FAIL"
        said = finding.detail if finding.failure is None else finding.failure
        print(f"{word}  {finding.what:<28} {said}", flush=True)
        good = good and finding.failure is None
    return good


if __name__ == "__main__":
    sys.exit(0 if table(check(sys.argv[1])) else 1)
