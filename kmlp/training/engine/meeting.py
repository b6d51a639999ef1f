"""Bring the processes of a job together, under JAX too, and let them part.

They wait for each other before anything else is set up: JAX ends a process with a
stack trace where another one does not come; here whoever waits is told who is missing.
They also tell each other what they are about to do, and part where that differs.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kmlp.errors import InputError

PATIENCE = 300  # seconds
PAUSE = 0.2  # seconds between two attempts
WORD = b"kmlp"
LONGEST = 2**22  # bytes of what a process says
# What reading raises where something else than a process of the job calls.
_STRANGE = (ValueError, TypeError, RecursionError)
SILENCE = 60  # seconds after which JAX gives a process up


def meet(
    addresses: Sequence[str],
    index: int,
    about: Mapping[str, Any] | None = None,
    patience: float = PATIENCE,
) -> None:
    """Return in all processes once all are there.

    Args:
        addresses: Address `host:port` of each, alike in all; they meet at the first.
        index: Index of this process.
        about: Whatever must be alike in all processes, by name.
        patience: Seconds to wait.

    Raises:
        InputError: If not all came in time, they differ in `about`, or the first one's
            port is taken.
    """
    host, _, port = addresses[0].rpartition(":")
    deadline = time.monotonic() + patience
    said = json.dumps({"TF_CONFIG": list(addresses), **(about or {})}, default=str)
    try:
        if index:
            call = b"%s %d %s\n" % (WORD, index, said.encode())
            problem = _visit(host.strip("[]"), int(port), call, deadline)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server(("", int(port)), family=family)
            problem = _receive(listener, addresses, {0: json.loads(said)}, deadline)
    except OSError as error:
        raise InputError(
            f"The processes of the job cannot meet at {addresses[0]} ({error}): start "
            f"all of them, with one TF_CONFIG but its index. Received: index {index}"
        ) from error
    if problem:
        raise InputError(problem)


def difference(tables: Mapping[int, Mapping[str, Any]]) -> str:
    """Say in a line what the processes of a job first differ in; `""` if in nothing.

    Args:
        tables: What each process says, by name, as JSON has it, under its index.
    """
    for name in dict.fromkeys(name for table in tables.values() for name in table):
        first, *others = sorted(tables)
        for index in others:
            values = [tables[i].get(name) for i in (first, index)]
            if values[0] != values[1]:
                own, other = (
                    "none" if value is None else json.dumps(value)[:100]
                    for value in values
                )
                return (
                    f"Worker {index} differs from worker {first} in {name}: give all "
                    "workers one command, one code and the same data. Received: "
                    f"{other} of worker {index}, {own} of worker {first}"
                )
    return ""


def cut_at_exec() -> None:
    """Let connections end where another program replaces this one.

    Gloo's would live on in it, and the others wait for answers that never come. On
    Windows, where there is no such folder, nothing is inherited.
    """
    with contextlib.suppress(OSError):
        for number in os.listdir("/dev/fd"):
            if int(number) > 2:
                with contextlib.suppress(OSError):
                    os.set_inheritable(int(number), False)


def _receive(listener, addresses, tables, deadline):
    """Greet the others; tell them, and return, who is missing or what differs.

    Args:
        listener: Server at the address where they meet.
        addresses: Address of each.
        tables: What this process says, under its index.
        deadline: Time until which to wait.
    """
    missing = dict(enumerate(addresses[1:], 1))
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        visitors = []
        while missing and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                visitor = stack.enter_context(listener.accept()[0])
                visitor.settimeout(5)
                word, number, said = _line(visitor).split(b" ", 2)
                index, table = int(number), dict(json.loads(said))
            except (TimeoutError, ConnectionError, *_STRANGE):
                continue
            if word == WORD:
                missing.pop(index, None)
                tables[index] = table
                visitors.append(visitor)
        problem = difference(tables)
        if missing:
            problem = (
                "Not all processes of the job came in time: start all of them, with "
                f"one TF_CONFIG but its index. Missing: {', '.join(missing.values())}"
            )
        for visitor in visitors:
            with contextlib.suppress(OSError):
                visitor.sendall(b"%s %s\n" % (WORD, problem.encode()))
    return problem


def _visit(host, port, call, deadline):
    """Wait until the first process says that all are there, and whether they differ."""
    problem = TimeoutError("it does not answer")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(call)
                connection.settimeout(max(left, PAUSE))
                word, _, told = _line(connection).rstrip(b"\n").partition(b" ")
                if word == WORD:
                    return told.decode()
                problem = ConnectionError("it gave up waiting for others")
        except OSError as error:  # not there yet, or gone
            problem = error
        time.sleep(PAUSE)
    raise problem


def _line(connection):
    with connection.makefile("rb") as file:
        return file.readline(LONGEST)


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


def join_jax(
    addresses: Sequence[str],
    index: int,
    about: Mapping[str, Any] | None = None,
    patience: float = PATIENCE,
) -> None:
    """Connect the processes of a job, before anything else asks JAX for a device.

    Where one of them dies, the others raise `WorkerLost` if their devices notice, as
    CPUs do; JAX itself ends them, with SIGABRT, at once if it was the first and else
    after `SILENCE`. All leave together by `JaxEngine.close`; a process that ends
    otherwise must do so by `os._exit`, or it waits for the others as long.

    Args:
        addresses: Address `host:port` of each, alike on all processes; they meet at the
            first.
        index: Index of this process.
        about: Whatever must be alike in all processes, by name.
        patience: Seconds to wait for the others.

    Raises:
        InputError: If the others do not come, or differ.
    """
    import jax

    meet(addresses, index, about, patience)
    # Its handler would replace the one that saves the run at SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        addresses[0],
        num_processes=len(addresses),
        process_id=index,
        heartbeat_timeout_seconds=SILENCE,
        shutdown_timeout_seconds=SILENCE,
    )
