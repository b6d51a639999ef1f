"""The exceptions of the library, for people to read in one line.

A message says what was wrong, what was received and the remedy. Exit codes are the
command line's affair (`kmlp.console.exit_code`).
"""

import difflib
from collections.abc import Collection, Iterable
from typing import Any


class KmlpError(Exception):
    """An error that was foreseen, whose message is meant for people."""


class InputError(KmlpError, ValueError):
    """Input that cannot be worked with: a wrong argument, option, file or data set."""


class RunError(KmlpError, RuntimeError):
    """Work that was begun and cannot be finished, such as by a disk that is full."""


class Interrupted(RunError):
    """A run that was asked to stop by a signal; what it reached is kept.

    Args:
        message: What was reached and how to go on.
        signal: Number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class TimeUp(KmlpError):
    """The end of the time that a run was given; what it reached is kept."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names that are spelled most like `name`, the nearest first.

    Args:
        name: Name that somebody gave.
        known: Names that there are.
        most: Number of names at most; none that is unlike is among them.
    """
    spelled = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(name).lower(), spelled, most, cutoff=0.4)
    return [spelled[one] for one in near]


def check_known(name: str, known: Collection[str], kind: str) -> None:
    """Refuse a name that is not in `known`; the message offers the nearest.

    Raises:
        InputError: If the name is unknown.
    """
    if name not in known:
        choose = " or ".join(nearest(name, known)) or f"one of {', '.join(known)}"
        raise InputError(f"Unknown {kind}: choose {choose}. Received: {name!r}")


def check_positive(**numbers: int) -> None:
    """Check that arguments are positive integers.

    Raises:
        InputError: If one is not.
    """
    for name, value in numbers.items():
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
            raise InputError(
                f"`{name}` must be a positive integer. Received: {name}={value!r}"
            )


def check_choice(allowed: Iterable, **argument: Any) -> None:
    """Check that an argument is one of the values that it takes.

    Args:
        allowed: Values that may be given.
        **argument: The one argument, by name.

    Raises:
        InputError: If it is another.
    """
    ((name, value),) = argument.items()
    if value not in allowed:
        raise InputError(
            f"`{name}` must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )
