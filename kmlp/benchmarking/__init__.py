"""Inference speed: every form of a network, timed in turns in one process."""

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
from kmlp.benchmarking.reasons import why_not_twice
from kmlp.benchmarking.report import report, table
from kmlp.benchmarking.verdicts import Verdict, verdicts

__all__ = [
    "FORMS",
    "GROUPS",
    "PEAK",
    "Benchmark",
    "Contender",
    "Timing",
    "Verdict",
    "benchmark",
    "check_clock",
    "chosen_forms",
    "matmul_peak",
    "measure",
    "report",
    "table",
    "use_threads",
    "verdicts",
    "why_not_twice",
]
