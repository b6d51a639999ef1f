"""Networks on several backends, timed in turns across their processes."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from kmlp.benchmarking.benchmarked import (
    BACKENDS,
    PASSES,
    WORK,
    Case,
    Source,
    why_not,
)
from kmlp.benchmarking.findings import Findings, Speed
from kmlp.benchmarking.measuring import in_turns
from kmlp.benchmarking.worker import Failed, Worker
from kmlp.errors import InputError

# Where the drivers of GPUs show themselves.
_GPUS = ("/dev/nvidiactl", "/dev/kfd")
_Key = tuple[str, Case]


def benchmark_backends(
    sources: Sequence[Source],
    backends: Sequence[str] = tuple(BACKENDS),
    *,
    work: Sequence[str] = WORK,
    xla: Sequence[bool] = (False, True),
    batches: Sequence[int] = (8,),
    precision: str = "float32",
    device: str | None = None,
    threads: int = 2,
    rounds: int = 10,
    memory: bool = True,
    progress: Callable[[str], object] | None = None,
    worker: Callable[[str, str], Any] = Worker,
) -> Findings:
    """Time networks on several backends.

    Each backend has a process in which all networks stay ready. In every round each of
    them takes its turn in a new random order, whatever its backend, and so does each
    backend's matrix product.

    Args:
        sources: Where the networks come from.
        backends: Some of `"tensorflow"`, `"jax"`, `"torch"`.
        work: Some of `"inference"`, of the merged form, and `"training"`, a step of
            AdamW by the train form.
        xla: With XLA (`True`), without (`False`), or both, where a backend can.
        batches: Images per call.
        precision: Compute precision, `"float32"`, `"bfloat16"` or `"float16"`.
        device: Device, `"cpu"` or `"gpu"`; `None`: a GPU where the machine has one.
        threads: Threads of every backend on a CPU, each on a core of its own.
        rounds: Interleaved rounds.
        memory: Whether each case runs once more alone, in a process of its own, for
            its peak memory.
        progress: Function that is called with a line about what is being done, an
            empty one at the end; or `None`.
        worker: Function that makes the processes, as `Worker`.

    Returns:
        The findings. What a backend cannot do is named there, and the others go on.

    Raises:
        InputError: If a network does not exist, or nothing could be measured.
    """
    device = device or ("gpu" if any(map(os.path.exists, _GPUS)) else "cpu")
    settings = {"device": device, "threads": threads, "precision": precision}
    run = _Run(settings, progress or (lambda line: None), worker)
    cases = [
        (backend, Case(source, kind, with_xla, batch, precision))
        for source in sources
        for kind in work
        for batch in batches
        for backend in backends
        for with_xla in xla
    ]
    with contextlib.ExitStack() as stack:
        run.start(backends, stack)
        run.check(sources)
        cases = run.possible(cases)
        sizes = run.memories(cases) if memory else {}
        ready = run.ready(cases)
        found = run.turns(ready, rounds)
    run.say("")
    return run.findings(ready, sizes, found)


def installed(backend: str) -> bool:
    """Return whether this environment has a backend."""
    return importlib.util.find_spec(backend) is not None


class _Run:
    """The steps of a run; `missing` says what could not be measured, and why.

    What is measured is named by a backend and a case, or `None` for its product.
    """

    def __init__(self, settings, say, make_worker):
        self.settings, self.say = settings, say
        self.missing, self._about, self._workers = {}, {}, {}
        self._failed = set()
        self._new = lambda backend: make_worker(backend, settings["device"])

    def start(self, backends: Sequence[str], stack: contextlib.ExitStack) -> None:
        """Start a process for each backend; name those that fail."""
        for backend in backends:
            if installed(backend):
                self._workers[backend] = stack.enter_context(self._new(backend))
            else:
                self.missing[backend] = (
                    f"{BACKENDS[backend]} is not installed: `python -m pip install "
                    f"{backend}`"
                )
        for backend, worker in [*self._workers.items()]:
            self.say(f"starting {backend}")
            try:
                self._about[backend] = worker.ask("start", **self.settings)
            except Failed as error:
                self._lose(backend, error)

    def check(self, sources: Sequence[Source]) -> None:
        """Raise `InputError` where a network or its options do not exist."""
        for worker in [*self._workers.values()][:1]:
            worker.ask("check", sources=sources)

    def possible(self, cases: list[_Key]) -> list[_Key]:
        """Return the cases that their backends can do; name why others are left out.

        Where both ways are asked for, a backend that has one is no matter.
        """
        ways = {case.xla for _, case in cases}
        found = []
        for backend, case in cases:
            why = why_not(backend, case.xla)
            if why is None and backend in self._workers:
                found.append((backend, case))
            elif why is not None and len(ways) == 1:
                self.missing.setdefault(backend, why)
        return found

    def memories(self, cases: list[_Key]) -> dict[_Key, int | None]:
        """Return the bytes of each case, measured in a process of its own.

        What fails there is not timed either: it could end the process of all.
        """
        found = {}
        for backend, case in cases:
            self.say(f"memory of {_label(backend, case)}")
            with self._new(backend) as worker:
                try:
                    worker.ask("start", **self.settings)
                    found[backend, case] = worker.ask("memory", case=case)
                except Failed as error:
                    self._fail((backend, case), error)
        if None in found.values():
            self.missing["peak memory"] = (
                "this system does not tell it, as Linux does by /proc/self/clear_refs"
            )
        return found

    def ready(self, cases: list[_Key]) -> dict[_Key, dict[str, Any]]:
        """Make the contenders and return their figures."""
        found = {}
        for key in cases:
            self.say(f"making {_label(*key)}")
            found[key] = self._answer(key, "make", case=key[1])
        return {key: figures for key, figures in found.items() if figures is not None}

    def turns(self, ready: dict[_Key, dict], rounds: int) -> list[dict[Any, float]]:
        """Return images per second, and products' speeds, of each round."""
        ask = functools.partial
        turns: dict[Any, Callable[[], float]] = {
            key: ask(self._answer, key, "turn", number=figures["number"])
            for key, figures in ready.items()
        }
        for backend in self._workers:
            turns[backend, None] = ask(self._answer, (backend, None), "product")
        return in_turns(turns, rounds, lambda n: self.say(f"round {n} of {rounds}"))

    def findings(
        self,
        ready: dict[_Key, dict],
        sizes: dict[_Key, int | None],
        rounds: list[dict[Any, float]],
    ) -> Findings:
        """Return what was found.

        Raises:
            InputError: If that is nothing.
        """
        products = [
            {backend: v for (backend, case), v in values.items() if case is None}
            for values in rounds
        ]
        speeds = tuple(
            _speed(key, figures, sizes.get(key), [r[key] for r in rounds], products)
            for key, figures in ready.items()
            if self._measures(key)
        )
        if not speeds:
            raise InputError(
                "Nothing could be measured: "
                + "; ".join(f"{what}: {why}" for what, why in self.missing.items())
            )
        measured = {speed.backend for speed in speeds}
        backends = {b: about for b, about in self._about.items() if b in measured}
        for backend, about in backends.items():
            about["peak"] = max(product.get(backend, 0.0) for product in products)
        return Findings(
            **self.settings, backends=backends, speeds=speeds, missing=self.missing
        )

    def _measures(self, key):
        return key[0] in self._workers and key not in self._failed

    def _answer(self, key, question, **arguments):
        """Return an answer, `None` where there is none, or was none before."""
        if not self._measures(key):
            return None
        try:
            return self._workers[key[0]].ask(question, **arguments)
        except Failed as error:
            return self._fail(key, error)

    def _fail(self, key, error):
        backend = key[0]
        if self._workers[backend].alive:
            self._failed.add(key)
            self.missing[_label(*key)] = str(error)
        else:
            self._lose(backend, error)

    def _lose(self, backend, error):
        """Forget a backend whose process has ended: it has no figures."""
        self.missing[backend] = str(error)
        del self._workers[backend]


def _speed(key, figures, size, rounds, products):
    backend, case = key
    work = PASSES[case.work] * figures["macs"]
    shares = [
        speed * work / max(product.values())
        for speed, product in zip(rounds, products, strict=True)
        if product
    ]
    return Speed(
        network=case.source.name,
        image_size=figures["image_size"],
        work=case.work,
        backend=backend,
        xla=case.xla,
        batch=case.batch,
        rounds=tuple(rounds),
        share=statistics.median(shares) if shares else None,
        memory=size,
        parameters=figures["parameters"],
        macs=figures["macs"],
        first_call_seconds=figures["first_call_seconds"],
    )


def _label(backend, case):
    if case is None:
        return f"{backend}, matrix product"
    xla = " with XLA" if case.xla and backend == "tensorflow" else ""
    return f"{case.source.name}, {case.work}, batch {case.batch}, {backend}{xla}"
