"""Why an int8 file is not twice as fast as its float32 file, measured."""

from pathlib import Path

from kmlp.benchmarking.tflite_operations import operations

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
