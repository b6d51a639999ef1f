"""What one run says about the forms: ratios of speeds within a round."""

import copy
import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np

from kmlp.artifacts.flatbuffer import operator_names, packed, unpacked
from kmlp.benchmarking.network_forms import FORMS

# Faster form, slower form, and how much the first should gain.
COMPARISONS = (
    ("merged", "train", 1.0),
    ("merged-xla", "train-xla", 1.0),
    ("saved-model", "train", 1.0),
    ("int8", "float32", 2.0),
    ("merged", "torch", None),
    ("torch-merged", "torch", None),
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One form against another.

    Attributes:
        faster, slower: labels of the forms, the first expected to be the faster.
        batch: images per call.
        ratio: of their images per second, median of the rounds' ratios.
        low, high: the quartiles of these.
        bar: what the ratio should reach; `None`: it is only reported.
        clear: whether the bar is to be passed beyond the spread.
    """

    faster: str
    slower: str
    batch: int
    ratio: float
    low: float
    high: float
    bar: float | None
    clear: bool = False

    @property
    def met(self):
        """Whether the bar is met; `None` without one.

        A form that must not be slower fails where the spread lies below the bar, one
        that must be clearly faster where it reaches down to it.
        """
        if self.bar is None:
            return None
        if self.clear:
            return self.low > self.bar
        return (self.high if self.bar == 1 else self.ratio) >= self.bar

    def __str__(self):
        bar = ""
        if self.bar is not None:
            wanted = "above 1" if self.clear else f"at least {self.bar:g}"
            bar = f"  {'met' if self.met else 'MISSED'}: {wanted}"
        return (
            f"{self.faster} / {self.slower}, batch {self.batch}: {self.ratio:.2f} "
            f"({self.low:.2f}-{self.high:.2f}){bar}"
        )


def verdicts(timings, *, local=False):
    """Compares the forms that were timed in one run.

    Args:
        timings: from `measure`, with their rounds.
        local: whether local branches merge, which must show: the merged form is to be
            faster beyond the spread.

    Returns:
        A tuple of `Verdict`.
    """
    found = {(timing.name, timing.batch): timing for timing in timings}
    batches = dict.fromkeys(timing.batch for timing in timings)
    pairs = [
        (FORMS[faster], FORMS[slower], bar, local and bar == 1)
        for faster, slower, bar in COMPARISONS
    ]
    return tuple(
        Verdict(
            faster,
            slower,
            batch,
            *ratio(found[faster, batch], found[slower, batch]),
            bar,
            clear,
        )
        for faster, slower, bar, clear in pairs
        for batch in batches
        if (faster, batch) in found and (slower, batch) in found
    )


def ratio(one, other):
    """Median and quartiles of two timings' ratios within a round."""
    ratios = [a / b for a, b in zip(one.rounds, other.rounds, strict=True)]
    if len(ratios) == 1:
        return (ratios[0],) * 3
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return median, low, high


# Kinds that compute the same in different files, by the name they are reported under.
_FAMILIES = {"FULLY_CONNECTED": "matrix products", "BATCH_MATMUL": "matrix products"}


@dataclasses.dataclass(frozen=True)
class Operations:
    """The operations of one kind in a file.

    Attributes:
        count: how many.
        floats: how many of them give floats.
        outside: how many XNNPACK does not take: they run one by one, as a rule on
            one thread.
        seconds: of one run of them all; the least of the rounds.
    """

    count: int
    floats: int
    outside: int
    seconds: float


def operations(files, threads, rounds=7, clock=None):
    """The operations of TFLite files of one network, by kind, timed in turns.

    Args:
        files: paths.
        threads: of the interpreter.
        rounds: how often each kind is timed.
        clock: as of `measure`.

    Returns:
        A list of `{kind: Operations}`, one per file; matrix products count as one
        kind.
    """
    from kmlp.artifacts.running import repeatable

    clock = clock or time.perf_counter
    found, runs = [], {}
    for index, file in enumerate(files):
        with open(file, "rb") as stream:
            content = stream.read()
        model = unpacked(content)
        kinds = _kinds(model)
        outside = _outside(content, threads)
        graph = model.subgraphs[0]
        floats = [graph.tensors[op.outputs[0]].type == 0 for op in graph.operators]
        found.append({})
        for kind in sorted(set(kinds)):
            own = [i for i, other in enumerate(kinds) if other == kind]
            runs[index, kind] = repeatable(_part(model, own), threads)
            found[index][kind] = (
                len(own),
                sum(floats[i] for i in own),
                sum(i in outside for i in own),
            )
    least = {key: float("inf") for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            start = clock()
            run()
            least[key] = min(least[key], clock() - start)
    return [
        {
            kind: Operations(*counts, least[index, kind])
            for kind, counts in kinds.items()
        }
        for index, kinds in enumerate(found)
    ]


def _kinds(model):
    """The kind of each operation."""
    names = operator_names()
    kinds = []
    for operation in model.subgraphs[0].operators:
        code = model.operatorCodes[operation.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        kinds.append(_FAMILIES.get(name, name))
    return kinds


def _part(model, chosen):
    """A file of some operations, each of which reads inputs and constants."""
    graph = copy.copy(model.subgraphs[0])
    graph.operators = [graph.operators[index] for index in chosen]
    read = [t for op in graph.operators for t in op.inputs if t >= 0]
    written = [t for op in graph.operators for t in op.outputs]
    buffers = {graph.tensors[t].buffer for t in read}
    part = copy.copy(model)
    empty = type(model.buffers[0])()
    part.buffers = [
        buffer if index in buffers else empty
        for index, buffer in enumerate(model.buffers)
    ]
    variable = [
        t
        for t in dict.fromkeys(read)
        if model.buffers[graph.tensors[t].buffer].data is None and t not in set(written)
    ]
    graph.inputs = np.array(variable, "int32")
    graph.outputs = np.array(written, "int32")
    part.subgraphs = [graph]
    part.signatureDefs = part.metadata = None
    size = sum(len(b.data) for b in part.buffers if b.data is not None)
    return packed(part, size)


def _outside(content, threads):
    """Indices of the operations that the default delegate leaves to the others."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    delegates = [op for op in details if op["op_name"] == "DELEGATE"]
    own = [op for op in details if op["op_name"] != "DELEGATE"]
    maker = {t: op["index"] for op in own for t in op["outputs"]}
    reads = {op["index"]: op["inputs"] for op in own}
    inside = set()
    for delegate in delegates:
        ends = set(delegate["inputs"])
        pending = list(delegate["outputs"])
        while pending:
            tensor = pending.pop()
            operation = maker.get(tensor)
            if tensor in ends or operation is None or operation in inside:
                continue
            inside.add(operation)
            pending.extend(reads[operation])
    return set(reads) - inside


BAR = 2.0
# A kind of operation is named where it takes this share of the int8 file's time.
_WORTH_NAMING = 0.05
# What moves or rescales values that a float file leaves alone.
_MOVING = ("QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "PACK", "UNPACK", "CONCATENATION")
# Flags of /proc/cpuinfo for instructions that multiply and add bytes.
_DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "asimddp")
_CPU_INFO = Path("/proc/cpuinfo")


def why_not_twice(float32, int8, threads, clock=None):
    """The reasons, from the two files and from the CPU.

    Args:
        float32, int8: paths of TFLite files of one network.
        threads: of the interpreter.
        clock: as of `measure`.

    Returns:
        A tuple of lines.
    """
    found = operations((float32, int8), threads, clock=clock)
    return reasons(*found, cpu_flags())


def reasons(float32, int8, flags=None):
    """The reasons, from what was found.

    Args:
        float32, int8: `{kind: Operations}` of the two files.
        flags: of the CPU; `None` where they are not known.
    """
    lines = []
    if flags is not None:
        found = [flag for flag in _DOT_PRODUCTS if flag in flags]
        lines.append(
            f"the CPU multiplies bytes with {', '.join(found)}"
            if found
            else "the CPU has no instruction that multiplies and adds bytes"
        )
    total = sum(kind.seconds for kind in int8.values())
    slow = {
        name: kind
        for name, kind in sorted(int8.items(), key=lambda item: -item[1].seconds)
        if kind.seconds > _WORTH_NAMING * total and _gain(float32, int8, name) < BAR
    }
    lines += [_line(name, float32, int8, total) for name in slow]
    before, after = (
        sum(k.seconds for name, k in kinds.items() if name not in slow)
        for kinds in (float32, int8)
    )
    if slow and after:
        lines.append(f"all other operations are {before / after:.1f}x as fast in int8")
    floats = {n: k.floats for n, k in int8.items() if k.floats and n != "DEQUANTIZE"}
    if floats:
        lines.append("operations that stay float in the int8 file: " + _counts(floats))
    had = {name: kind.count for name, kind in float32.items()}
    added = {
        name: int8[name].count - had.get(name, 0) for name in _MOVING if name in int8
    }
    added = {name: count for name, count in added.items() if count > 1}
    if added:
        lines.append("operations that int8 adds to move values: " + _counts(added))
    return tuple(lines)


def _gain(float32, int8, name):
    """How many times as fast a kind runs in int8; 0 for one that float32 lacks."""
    return float32[name].seconds / int8[name].seconds if name in float32 else 0.0


def _line(name, float32, int8, total):
    kind = int8[name]
    gain = _gain(float32, int8, name)
    speed = f"{gain:.1f}x as fast as in float32" if gain else "absent in float32"
    outside = f", {kind.outside} of them outside XNNPACK" if kind.outside else ""
    return (
        f"{name} ({kind.count}{outside}): {kind.seconds / total:.0%} of int8's time, "
        f"{speed}"
    )


def _counts(counts):
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def cpu_flags():
    """The CPU's flags, `None` where the system does not list them."""
    if not _CPU_INFO.is_file():
        return None
    for line in _CPU_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return None
