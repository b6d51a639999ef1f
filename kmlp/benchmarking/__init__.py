"""Speed: every form of a network, or networks on every backend, timed in turns."""

from kmlp.benchmarking.backends import benchmark_backends
from kmlp.benchmarking.findings import Findings, Speed
from kmlp.benchmarking.forms import FORMS, GROUPS, chosen_forms
from kmlp.benchmarking.job import Benchmark, benchmark, check_clock
from kmlp.benchmarking.measuring import (
    PEAK,
    Contender,
    Timing,
    matmul_peak,
    measure,
    use_threads,
)
from kmlp.benchmarking.networks import Source
from kmlp.benchmarking.reading import read
from kmlp.benchmarking.reasons import why_not_twice
from kmlp.benchmarking.report import report, table
from kmlp.benchmarking.verdicts import Verdict, verdicts

__all__ = [
    "FORMS",
    "GROUPS",
    "PEAK",
    "Benchmark",
    "Contender",
    "Findings",
    "Source",
    "Speed",
    "Timing",
    "Verdict",
    "benchmark",
    "benchmark_backends",
    "check_clock",
    "chosen_forms",
    "matmul_peak",
    "measure",
    "read",
    "report",
    "table",
    "use_threads",
    "verdicts",
    "why_not_twice",
]
