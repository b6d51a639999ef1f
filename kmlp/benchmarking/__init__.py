"""Speed: every form of a network, or networks on every backend, timed in turns."""

from kmlp.benchmarking.backends import benchmark_backends
from kmlp.benchmarking.benchmarked import Source
from kmlp.benchmarking.findings import Findings, Speed, read
from kmlp.benchmarking.form_benchmark import (
    Benchmark,
    benchmark,
    check_clock,
    report,
    table,
)
from kmlp.benchmarking.measuring import (
    PEAK,
    Contender,
    Timing,
    matmul_peak,
    measure,
    use_threads,
)
from kmlp.benchmarking.network_forms import FORMS, GROUPS, chosen_forms
from kmlp.benchmarking.verdicts import Verdict, verdicts, why_not_twice

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
