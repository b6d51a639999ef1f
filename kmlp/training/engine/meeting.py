"""How the processes of a job meet, and how they let go of each other.

They wait for each other before anything else is set up: JAX ends a process with a
stack trace where another one does not come; here whoever waits is told who is missing.
"""

import contextlib
import os
import socket
import time

from kmlp.errors import InputError

PATIENCE = 300  # seconds
PAUSE = 0.2  # seconds between two attempts
WORD = b"kmlp"


def meet(addresses, index, patience=PATIENCE):
    """Returns in all processes once all are there.

    Args:
        addresses: `["host:port", …]`, alike in all; they meet at the first.
        index: of this process.
        patience: seconds.

    Raises:
        InputError: not all came in time, or the first one's port is taken.
    """
    host, _, port = addresses[0].rpartition(":")
    deadline = time.monotonic() + patience
    try:
        if index:
            _visit(host.strip("[]"), int(port), index, deadline)
            return
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server(("", int(port)), family=family)
        missing = _receive(listener, set(range(1, len(addresses))), deadline)
    except OSError as error:
        raise InputError(
            f"The processes of the job cannot meet at {addresses[0]} ({error}): start "
            f"all of them, with one TF_CONFIG but its index. Received: index {index}"
        ) from error
    if missing:
        raise InputError(
            f"Not all processes of the job came within {patience:g} s: start all of "
            "them, with one TF_CONFIG but its index. Missing: "
            + ", ".join(addresses[i] for i in sorted(missing))
        )


def cut_at_exec():
    """Lets connections end where another program replaces this one.

    Gloo's would live on in it, and the others wait for answers that never come.
    """
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            if int(number) > 2:
                with contextlib.suppress(OSError):
                    os.set_inheritable(int(number), False)


def _receive(listener, missing, deadline):
    """Greets the others; those that did not come."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        visitors = []
        while missing and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                visitor = stack.enter_context(listener.accept()[0])
                visitor.settimeout(5)
                word, _, number = visitor.recv(64).partition(b" ")
            except (TimeoutError, ConnectionError):
                continue
            if word == WORD and number.isdigit():
                missing.discard(int(number))
                visitors.append(visitor)
        if not missing:
            for visitor in visitors:
                with contextlib.suppress(OSError):
                    visitor.sendall(WORD)
    return missing


def _visit(host, port, index, deadline):
    """Waits until the first process says that all are there."""
    problem = TimeoutError("it does not answer")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(WORD + b" %d" % index)
                connection.settimeout(max(left, PAUSE))
                if connection.recv(64) == WORD:
                    return
                problem = ConnectionError("it gave up waiting for others")
        except OSError as error:  # not there yet, or gone
            problem = error
        time.sleep(PAUSE)
    raise problem
