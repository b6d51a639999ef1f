"""Networks on several backends, timed in turns across their processes."""

import contextlib
import importlib.util
import random
import statistics
from pathlib import Path

from kmlp.benchmarking.asking import Failed, Worker
from kmlp.benchmarking.benchmarked import BACKENDS, PASSES, WORK, Case, why_not
from kmlp.benchmarking.findings import Findings, Speed
from kmlp.errors import InputError

# Where the drivers of GPUs show themselves.
_GPUS = ("/dev/nvidiactl", "/dev/kfd")


def benchmark_backends(
    sources,
    backends=tuple(BACKENDS),
    *,
    work=WORK,
    xla=(False, True),
    batches=(8,),
    precision="float32",
    device=None,
    threads=2,
    rounds=10,
    memory=True,
    progress=None,
    worker=Worker,
):
    """Times networks on several backends.

    Each backend has a process in which all networks stay ready. In every round each of
    them takes its turn in a new random order, whatever its backend, and so does each
    backend's matrix product.

    Args:
        sources: list of `kmlp.benchmarking.benchmarked.Source`.
        backends: of `"tensorflow"`, `"jax"`, `"torch"`.
        work: of `"inference"`, of the merged form, and `"training"`, a step of AdamW
            by the train form.
        xla: with XLA (`True`), without (`False`), or both, where a backend can.
        batches: images per call.
        precision: `"float32"`, `"bfloat16"` or `"float16"`.
        device: `"cpu"` or `"gpu"`; `None`: a GPU where the machine has one.
        threads: on a CPU, of every backend, each on a core of its own.
        rounds: interleaved rounds.
        memory: whether each case runs once more alone, in a process of its own, for
            its peak memory.
        progress: called with a line about what is being done, an empty one at the
            end; or `None`.
        worker: makes the processes, as `Worker`.

    Returns:
        A `Findings`. What a backend cannot do is named there, and the others go on.

    Raises:
        InputError: a network that does not exist, or nothing could be measured.
    """
    device = device or default_device()
    run = _Run(device, threads, precision, progress or (lambda line: None), worker)
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
        wanted = run.possible(cases)
        sizes = run.memories(wanted) if memory else {}
        ready = run.ready([one for one in wanted if one not in run.failed])
        run.turns(ready, rounds)
    run.say("")
    return run.findings(ready, sizes)


def installed(backend):
    """Whether this environment has a backend."""
    return importlib.util.find_spec(backend) is not None


def default_device():
    """`"gpu"` where the machine shows one, else `"cpu"`."""
    return "gpu" if any(map(lambda path: Path(path).exists(), _GPUS)) else "cpu"


class _Run:
    """The steps of a run, and what each leaves for the next."""

    def __init__(self, device, threads, precision, say, worker):
        self.settings = {"device": device, "threads": threads, "precision": precision}
        self.say = say
        self.missing = {}  # what -> why
        self.failed = set()  # pairs of backend and case
        self._workers, self._about, self._make_worker = {}, {}, worker
        self._speeds, self._products = {}, []

    def start(self, backends, stack):
        """Starts a process for each backend; those that fail are named."""
        for backend in backends:
            if not installed(backend):
                self.missing[backend] = (
                    f"{BACKENDS[backend]} is not installed: `python -m pip install "
                    f"{backend}`"
                )
                continue
            self._workers[backend] = stack.enter_context(self._new(backend))
        for backend, worker in list(self._workers.items()):
            self.say(f"starting {backend}")
            try:
                self._about[backend] = worker.ask("start", **self.settings)
            except Failed as error:
                self._lose(backend, error)

    def check(self, sources):
        """Raises `ValueError` where a network or its options do not exist."""
        for worker in self._workers.values():
            worker.ask("check", sources=sources)
            return

    def possible(self, cases):
        """The cases that their backends can do; why the others are left out.

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

    def memories(self, wanted):
        """`{(backend, case): bytes}`, each measured in a process of its own.

        What fails there is not timed either: it could end the process of all.
        """
        found = {}
        for backend, case in wanted:
            self.say(f"memory of {_label(backend, case)}")
            with self._new(backend) as worker:
                try:
                    worker.ask("start", **self.settings)
                    size = worker.ask("memory", case=case)
                except Failed as error:
                    self._fail(backend, case, error)
                    continue
            if size is None:
                self.missing["peak memory"] = (
                    "this system does not tell it, as Linux does by "
                    "/proc/self/clear_refs"
                )
            found[backend, case] = size
        return found

    def ready(self, wanted):
        """Makes the contenders: `{(backend, case): figures}`."""
        found = {}
        for backend, case in wanted:
            if backend not in self._workers:
                continue
            self.say(f"making {_label(backend, case)}")
            try:
                found[backend, case] = self._workers[backend].ask("make", case=case)
                self._speeds[backend, case] = []
            except Failed as error:
                self._fail(backend, case, error)
        return found

    def turns(self, ready, rounds):
        """The rounds."""
        for number in range(1, rounds + 1):
            self.say(f"round {number} of {rounds}")
            products = [(backend, None) for backend in self._workers]
            order = [*ready, *products]
            self._products.append({})
            for backend, case in random.sample(order, len(order)):
                if backend in self._workers and (backend, case) not in self.failed:
                    self._turn(backend, case, ready)

    def _turn(self, backend, case, ready):
        worker = self._workers[backend]
        try:
            if case is None:
                self._products[-1][backend] = worker.ask("product")
            else:
                number = ready[backend, case]["number"]
                speed = worker.ask("turn", number=number)
                self._speeds[backend, case].append(speed)
        except Failed as error:
            if case is None and worker.alive:
                self.missing[f"{backend}, matrix product"] = str(error)
            else:
                self._fail(backend, case, error)

    def findings(self, ready, sizes):
        """What was found.

        Raises:
            ValueError: nothing.
        """
        speeds = tuple(
            self._speed(backend, case, figures, sizes.get((backend, case)))
            for (backend, case), figures in ready.items()
            if backend in self._workers and (backend, case) not in self.failed
        )
        if not speeds:
            raise InputError(
                "Nothing could be measured: "
                + "; ".join(f"{what}: {why}" for what, why in self.missing.items())
            )
        for backend, about in self._about.items():
            own = [round_.get(backend, 0.0) for round_ in self._products]
            about["peak"] = max(own)
        measured = {speed.backend for speed in speeds}
        return Findings(
            **self.settings,
            backends={b: a for b, a in self._about.items() if b in measured},
            speeds=speeds,
            missing=self.missing,
        )

    def _speed(self, backend, case, figures, size):
        rounds = self._speeds[backend, case]
        work = PASSES[case.work] * figures["macs"]
        shares = [
            speed * work / max(products.values())
            for speed, products in zip(rounds, self._products, strict=True)
            if products
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

    def _new(self, backend):
        return self._make_worker(backend, self.settings["device"])

    def _fail(self, backend, case, error):
        worker = self._workers[backend]
        if not worker.alive:
            self._lose(backend, error)
            return
        self.failed.add((backend, case))
        self.missing[_label(backend, case)] = str(error)

    def _lose(self, backend, error):
        """A backend whose process has ended has no figures."""
        self.missing[backend] = str(error)
        del self._workers[backend]


def _label(backend, case):
    xla = " with XLA" if case.xla and backend == "tensorflow" else ""
    return f"{case.source.name}, {case.work}, batch {case.batch}, {backend}{xla}"
