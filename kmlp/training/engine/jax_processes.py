"""What comes before JAX is used: its CPU devices, and the processes of a job."""

import jax

from kmlp.errors import InputError
from kmlp.training.engine.meeting import meet

SILENCE = 60  # seconds after which a process is given up


def prepare_devices(count):
    """Splits the CPU into logical devices; before anything else asks JAX for one.

    Args:
        count: devices of this process.

    Raises:
        InputError: JAX has made its devices already.
    """
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise InputError(
            "The number of logical CPU devices is chosen before JAX is used. "
            f"Received: {count}"
        ) from error


def join(addresses, index):
    """Connects the processes of a job; before anything else asks JAX for a device.

    Where one of them dies, the others raise `WorkerLost` if their devices notice, as
    CPUs do; JAX itself ends them, with SIGABRT, at once if it was the first and else
    after `SILENCE`. All leave together by `JaxEngine.close`; a process that ends
    otherwise must do so by `os._exit`, or it waits for the others as long.

    Args:
        addresses: `["host:port", …]`, alike on all processes; they meet at the first.
        index: of this process.

    Raises:
        InputError: the others do not come.
    """
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
