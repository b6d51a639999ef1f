"""Bring the processes of a job together, under JAX too, and let them part.

They wait for each other before anything else is set up: JAX ends a process with a
stack trace where another one does not come; here whoever waits is told who is missing.
"""

import contextlib
import os
import socket
import time
from collections.abc import Sequence

from kmlp.errors import InputError

PATIENCE = 300  # seconds
PAUSE = 0.2  # seconds between two attempts
WORD = b"kmlp"
SILENCE = 60  # seconds after which JAX gives a process up


def meet(addresses: Sequence[str], index: int, patience: float = PATIENCE) -> None:
    """Return in all processes once all are there.

    Args:
        addresses: Address `host:port` of each, alike in all; they meet at the first.
        index: Index of this process.
        patience: Seconds to wait.

    Raises:
        InputError: If not all came in time, or the first one's port is taken.
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


def cut_at_exec() -> None:
    """Let connections end where another program replaces this one.

    Gloo's would live on in it, and the others wait for answers that never come.
    """
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            if int(number) > 2:
                with contextlib.suppress(OSError):
                    os.set_inheritable(int(number), False)


def _receive(listener, missing, deadline):
    """Greet the other processes and return those that did not come."""
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
    """Wait until the first process says that all are there."""
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


def prepare_jax_devices(count: int) -> None:
    """Split the CPU into logical devices, before anything else asks JAX for one.

    Args:
        count: Devices of this process.

    Raises:
        InputError: If JAX has made its devices already.
    """
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise InputError(
            "The number of logical CPU devices is chosen before JAX is used. "
            f"Received: {count}"
        ) from error


def join_jax(addresses: Sequence[str], index: int) -> None:
    """Connect the processes of a job, before anything else asks JAX for a device.

    Where one of them dies, the others raise `WorkerLost` if their devices notice, as
    CPUs do; JAX itself ends them, with SIGABRT, at once if it was the first and else
    after `SILENCE`. All leave together by `JaxEngine.close`; a process that ends
    otherwise must do so by `os._exit`, or it waits for the others as long.

    Args:
        addresses: Address `host:port` of each, alike on all processes; they meet at the
            first.
        index: Index of this process.

    Raises:
        InputError: If the others do not come.
    """
    import jax

    meet(addresses, index)
    # Its handler would replace the one that saves the run at SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        addresses[0],
        num_processes=len(addresses),
        process_id=index,
        heartbeat_timeout_seconds=SILENCE,
        shutdown_timeout_seconds=SILENCE,
    )
