"""Reading pictures while training, whatever became of their files."""

from kmlp.data.dense import Unreadable
from kmlp.data.reading import REMEDY, SUBSTITUTES
from kmlp.errors import RunError


def guarded(split, prepare):
    """Prepares an example, or one of the next few in its place.

    Args:
        split: `DenseSplit`; its `on_corrupt` says what befalls what cannot be read:
            `"stop"` ends the iteration with an error that `kmlp.data.reason` turns into
            words, `"skip"` takes one of the next few. A file that is gone ends it in
            either case.
        prepare: function of an index, and of what else there is, to an example.

    Returns:
        A function of the same to `(example, whether it is that of the index)`.
    """
    noted = set()

    def read(index, *arguments):
        failures = []
        for number in range(1 + SUBSTITUTES):
            try:
                return prepare((index + number) % split.count, *arguments), not number
            except Unreadable as error:
                failures.append(error)
                if split.on_corrupt == "stop":
                    break
                if error.place not in noted:
                    noted.add(error.place)
                    print(f"Skipped {error}", flush=True)
            except OSError as error:
                raise RunError(
                    "An image can no longer be read; what was reached is kept: bring "
                    f"it back, then give the same command to go on. Received: {error}",
                ) from error
        raise RunError(
            "An image or its annotation cannot be used; what was reached is kept: "
            f"{REMEDY}, then give the same command to go on. Received: {failures[0]}",
        ) from failures[0]

    return read
