"""Choose the devices and processes that a job runs on, and the engine for them."""

import dataclasses
import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import keras

from kmlp.console import quiet
from kmlp.errors import InputError, check_choice, check_positive
from kmlp.training.engine.engine import Engine
from kmlp.training.engine.meeting import (
    PATIENCE,
    join_jax,
    meet,
    prepare_jax_devices,
)

STRATEGIES = ("auto", "single", "mirrored", "multi_worker", "tpu")
_ONE_DEVICE = ("auto", "single")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a job.

    Attributes:
        addresses: Address `host:port` of each, the chief's first; empty for a single
            process.
        index: Index of this process.
        about: Whatever must be alike in all, by name.
        patience: Seconds to wait for the others.
    """

    addresses: tuple[str, ...] = ()
    index: int = 0
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    patience: float = PATIENCE

    @property
    def workers(self) -> int:
        """Return the number of processes."""
        return max(1, len(self.addresses))


def open_engine(
    strategy: str = "auto",
    devices: int | None = None,
    tensorflow_reads: bool = True,
    about: Mapping[str, Any] | None = None,
    patience: float = PATIENCE,
) -> Engine:
    """Return the engine of Keras' backend on the devices that there are.

    Must come before anything makes the backend look for its devices.

    Args:
        strategy: One of `STRATEGIES`; `"auto"` takes a TPU where one is named or
            attached, all workers that `TF_CONFIG` names, all GPUs, or one device.
        devices: Number of this process's devices that take part. A machine without
            GPUs is cut into as many CPU devices. `None`: one device for `"single"`,
            else all GPUs.
        tensorflow_reads: Whether TensorFlow reads the images, whatever Keras'
            backend is; where it does not, it is not imported for another one.
        about: Whatever must be alike in all processes of the job, by name.
        patience: Seconds to wait for the other processes.

    Raises:
        InputError: If what is asked for does not fit the machine or `TF_CONFIG`, or
            the processes do not meet or differ.
    """
    check_choice(STRATEGIES, strategy=strategy)
    if devices is not None:
        check_positive(devices=devices)
    cluster = read_cluster(os.environ.get("TF_CONFIG", ""))
    cluster = dataclasses.replace(cluster, about=about or {}, patience=patience)
    if strategy == "single" and devices not in (None, 1):
        raise InputError(
            "The strategy single has one device: choose mirrored or leave the devices "
            f"out. Received: {devices} devices"
        )
    if cluster.workers > 1 and strategy not in ("auto", "multi_worker"):
        raise InputError(
            f"TF_CONFIG names {cluster.workers} workers: choose multi_worker or unset "
            f"TF_CONFIG. Received: {strategy}"
        )
    if cluster.workers == 1 and strategy == "multi_worker":
        raise InputError(
            "The strategy multi_worker needs TF_CONFIG to name at least two workers. "
            f"Received: TF_CONFIG={os.environ.get('TF_CONFIG', '')!r}"
        )
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_engine(strategy, devices, cluster)
    if backend == "jax":
        return _jax_engine(strategy, devices, cluster, tensorflow_reads)
    if backend == "torch":
        return _torch_engine(strategy, devices, cluster)
    raise InputError(
        "Training runs on the tensorflow, jax and torch backends. Received: "
        f"KERAS_BACKEND={backend}"
    )


def per_replica_batch(global_batch: int, replicas: int, accumulate: int = 1) -> int:
    """Return the images that a replica takes per step.

    Raises:
        InputError: If the global batch does not divide by replicas and micro-batches.
    """
    parts = replicas * accumulate
    if global_batch % parts or global_batch < parts:
        nearest = max(parts, round(global_batch / parts) * parts)
        raise InputError(
            f"The batch must be a multiple of {parts} ({replicas} replicas with "
            f"{accumulate} micro-batches each): {nearest} is the nearest. Received: "
            f"batch size {global_batch}"
        )
    return global_batch // replicas


def read_cluster(text: str) -> Cluster:
    """Return the cluster of a `TF_CONFIG`; a single process where it is empty.

    Raises:
        InputError: If it is no such description.
    """
    if not text.strip():
        return Cluster()
    try:
        config = json.loads(text)
        nodes = config.get("cluster") or {}
        task = config.get("task") or {}
        addresses = {role: list(nodes[role]) for role in nodes}
        kind, index = task.get("type", "worker"), task.get("index", 0)
    except (ValueError, AttributeError, TypeError) as error:
        raise _unreadable(
            text, "it is not an object in JSON as it should be"
        ) from error
    if not addresses:
        return Cluster()
    others = sorted(set(addresses) - {"chief", "worker"})
    if others:
        raise _unreadable(text, f"only chief and worker are known, not {others[0]}")
    if "task" not in config:
        raise _unreadable(text, 'it lacks "task"')
    if kind not in addresses:
        raise _unreadable(text, f'the task\'s type "{kind}" is not in the cluster')
    if type(index) is not int or not 0 <= index < len(addresses[kind]):
        raise _unreadable(
            text,
            f"the task's index must be in 0…{len(addresses[kind]) - 1}, not {index!r}",
        )
    chiefs = addresses.get("chief", [])
    everyone = chiefs + addresses.get("worker", [])
    for address in everyone:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise _unreadable(text, f"{address!r} is no host:port")
    if len(set(everyone)) < len(everyone):
        raise _unreadable(text, "an address occurs twice")
    return Cluster(tuple(everyone), index + (len(chiefs) if kind == "worker" else 0))


def check_port(cluster: Cluster) -> None:
    """Check that this worker's port is free.

    Raises:
        InputError: If it cannot be bound.
    """
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # The remains of a killed worker must not hinder its return. On Windows this
        # would take a port that is in use.
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise InputError(
                f"This worker cannot listen on port {port}: end what uses it or name "
                f"another in TF_CONFIG. Received: {error.strerror}"
            ) from error


def _unreadable(text, reason):
    shape = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", '
    return InputError(
        f'TF_CONFIG cannot be read, {reason}: give it as {shape}"index": 0}}}}, or '
        f"unset it. Received: {text[:200]}"
    )


def _tensorflow_engine(strategy, devices, cluster):
    if cluster.workers == 1:
        os.environ.pop("TF_CONFIG", None)  # TensorFlow reads even an empty one
    with quiet():
        import tensorflow as tf

        from kmlp.training.engine.tensorflow import TensorFlowEngine

        if strategy == "auto":
            strategy = _best(tf, devices, cluster)
        if strategy == "tpu":
            chosen, description = _tpu(tf)
        elif strategy == "multi_worker":
            chosen, description = _multi_worker(tf, devices, cluster)
        else:
            chosen, description = _local(tf, strategy, devices)
        tf.config.list_logical_devices()  # which writes lines, once
    return TensorFlowEngine(
        chosen,
        description,
        workers=cluster.workers,
        worker=cluster.index,
    )


def _best(tf, devices, cluster):
    if cluster.workers > 1:
        return "multi_worker"
    if "TPU_NAME" in os.environ or tf.config.list_physical_devices("TPU"):
        return "tpu"
    found = len(tf.config.list_physical_devices("GPU"))
    return "mirrored" if (devices or found) > 1 else "single"


def _local(tf, strategy, devices):
    """Return a strategy of one device, or a mirrored one over several."""
    if strategy == "single":
        devices = 1
    kind, count = _devices(tf, devices)
    description = f"{count} {kind} device{'s' * (count > 1)}"
    if strategy == "single":
        return tf.distribute.OneDeviceStrategy(f"/{kind}:0"), description
    names = [f"/{kind}:{i}" for i in range(count)]
    return tf.distribute.MirroredStrategy(names), f"{description}, MirroredStrategy"


def _devices(tf, devices):
    """Return the kind and number of devices to use; a CPU is cut into as many."""
    found = len(tf.config.list_physical_devices("GPU"))
    if found:
        if devices is not None and devices > found:
            raise InputError(f"There are {found} GPUs. Received: {devices} devices")
        return "GPU", devices or found
    count = devices or 1
    if count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        try:
            tf.config.set_logical_device_configuration(cpu, parts)
        except RuntimeError as error:
            if len(tf.config.list_logical_devices("CPU")) < count:
                raise InputError(
                    "The number of CPU devices is chosen before TensorFlow is used. "
                    f"Received: {count} devices"
                ) from error
    return "CPU", count


def _multi_worker(tf, devices, cluster):
    found = len(tf.config.list_physical_devices("GPU"))
    if devices is not None and devices != max(1, found):
        raise InputError(
            "A worker takes part with all its GPUs, or else with one CPU device: leave "
            f"the devices out or set CUDA_VISIBLE_DEVICES. Received: {devices} devices"
        )
    check_port(cluster)
    # TensorFlow would wait for an hour, and say nothing; so it would for the devices
    # that only some of the workers have.
    about = {**cluster.about, "GPUs": found}
    meet(cluster.addresses, cluster.index, about, cluster.patience)
    try:
        # Its coordination service gives up a silent worker after some ten seconds.
        chosen = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InputError(
            f"The workers did not meet: {str(error).splitlines()[0]}. Received: "
            f"index {cluster.index} of {', '.join(cluster.addresses)}"
        ) from error
    own = f"{found or 1} {'GPU' if found else 'CPU'} device{'s' * (found > 1)}"
    return chosen, f"{cluster.workers} workers, {own} each, MultiWorkerMirroredStrategy"


def _tpu(tf):
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise InputError(
            f"The TPU cannot be reached: {str(error).splitlines()[0]}. Set TPU_NAME "
            f"or choose another strategy. Received: TPU_NAME={name}"
        ) from error
    chosen = tf.distribute.TPUStrategy(resolver)
    return chosen, f"{chosen.num_replicas_in_sync} TPU cores, TPUStrategy"


def _torch_engine(strategy, devices, cluster):
    from kmlp.training.engine.torch import TorchEngine

    if cluster.workers > 1 or devices not in (None, 1) or strategy not in _ONE_DEVICE:
        raise InputError(
            "The torch backend trains on one device: leave --strategy, --devices and "
            "TF_CONFIG out, or choose another backend. Received: strategy "
            f"{strategy}, {devices or 1} devices, {cluster.workers} workers"
        )
    return TorchEngine()


def _jax_engine(strategy, devices, cluster, tensorflow_reads):
    from kmlp.training.engine.jax import JaxEngine

    if tensorflow_reads:
        _leave_gpus_to_jax()
    if strategy == "single":
        devices = 1
    if devices is not None:
        prepare_jax_devices(devices)
    if cluster.workers > 1:
        join_jax(cluster.addresses, cluster.index, cluster.about, cluster.patience)
        devices = None
    engine = JaxEngine(devices)
    if strategy == "tpu" and "TPU" not in engine.description:
        raise InputError(
            "JAX finds no TPU: leave the strategy out or install JAX for TPUs. "
            f"Received: {strategy}, with {engine.description}"
        )
    return engine


def _leave_gpus_to_jax():
    """Hide the GPUs from TensorFlow, which would take all of their memory."""
    with quiet():
        try:
            import tensorflow as tf
        except ImportError:
            return
        tf.config.set_visible_devices([], "GPU")
