"""What macOS and Windows lack: another way is taken, or it is said."""

import ast
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmlp.benchmarking import contenders, devices, measuring
from kmlp.commands import benchmark_input, training_arguments
from kmlp.commands.predict import _Pictures
from kmlp.errors import InputError
from kmlp.locks import hold
from kmlp.training import checkpoints, loop
from kmlp.training.engine import cluster, meeting
from kmlp.training.engine.engine import WorkerLost
from kmlp.training.input import in_memory

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for top in ("kmlp", "training")
    for path in sorted((ROOT / top).rglob("*.py"))
}
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"}
OTHERS = {"winreg", "winsound", "msvcrt", "nt"}
# Attributes of modules that not every system has, or that mean something else there.
NAMES = {
    "os": """fork forkpty register_at_fork sched_getaffinity sched_setaffinity nice
        posix_fadvise posix_fallocate sysconf statvfs getuid geteuid getgid chown lchown
        mkfifo killpg getpgid setsid wait wait3 waitpid uname getloadavg O_DIRECTORY
        O_NOFOLLOW O_NONBLOCK O_SYNC execv execve execvp rename kill""",
    "signal": """SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGSTOP
        SIGCONT SIGWINCH SIGBREAK alarm setitimer pause sigwait pthread_kill""",
    "socket": "SO_REUSEADDR SO_REUSEPORT AF_UNIX socketpair",
    "ctypes": "CDLL windll WinDLL",
}
NAMES = {f"{module}.{name}" for module in NAMES for name in NAMES[module].split()}
FOLDERS = ("/proc", "/dev", "/sys", "/tmp", "/etc", "/usr", "/var")


# Without one of these words a file need not be parsed.
WORDS = {*NAMES, *FOLDERS, *(f"import {name}" for name in POSIX | OTHERS)}
WORDS |= {*(f"from {name}" for name in POSIX | OTHERS), "preexec_fn"}
WORDS = re.compile("|".join(map(re.escape, WORDS)))


def own_of_systems(text):
    """Everything in a module that not every system has."""
    if not WORDS.search(text):
        return
    for node in ast.walk(ast.parse(text)):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
            found = [name for name in found if name in POSIX | OTHERS]
        elif isinstance(node, ast.ImportFrom) and node.module in POSIX | OTHERS:
            found = [node.module]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = [f"{node.value.id}.{node.attr}"]
            found = [name for name in found if name in NAMES]
        elif isinstance(node, ast.Constant) and str(node.value).startswith(FOLDERS):
            found = [node.value]
        elif isinstance(node, ast.keyword) and node.arg == "preexec_fn":
            found = [node.arg]
        yield from found


# Where there is such, and what becomes of it elsewhere: a test below, or the reason.
KNOWN = {
    "kmlp/atomic.py": {"os.rename"},  # of a folder, to where nothing is, as everywhere
    "kmlp/benchmarking/backends.py": {
        "/dev/nvidiactl",
        "/dev/kfd",
    },  # else --device gpu
    "kmlp/benchmarking/devices.py": {
        *("os.sched_getaffinity", "os.sched_setaffinity"),
        *("/proc/self/status", "/proc/self/clear_refs", "ctypes.CDLL"),
    },
    "kmlp/benchmarking/measuring.py": {"/proc/cpuinfo"},
    "kmlp/commands/benchmark_input.py": {"/proc/", "os.sysconf"},
    "kmlp/commands/training_arguments.py": {"os.execv"},
    "kmlp/data/named.py": {"os.posix_fadvise"},  # a hint, where it can be given
    "kmlp/serving/check.py": {"resource"},
    "kmlp/serving/native_loader.py": {"ctypes.CDLL"},
    "kmlp/training/engine/cluster.py": {"socket.SO_REUSEADDR"},
    "kmlp/training/engine/meeting.py": {"/dev/fd"},
    "kmlp/training/input/in_memory.py": {"os.sysconf"},
}


def test_all_that_not_every_system_has_is_known():
    found = {name: set(own_of_systems(text)) for name, text in TEXTS.items()}
    assert {name: own for name, own in found.items() if own} == KNOWN


OPENING = re.compile(r"(?:_text|[^.\w]open)\(")


def test_text_files_name_their_encoding():
    """Windows' own is none that holds every name."""
    without = []
    for path, text in TEXTS.items():
        for call in ast.walk(ast.parse(text)) if OPENING.search(text) else ():
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", None))
            before = {"read_text": 0, "write_text": 1}.get(name)
            if isinstance(call.func, ast.Name) and name == "open":
                mode = [*call.args[1:2], *(k.value for k in call.keywords)]
                binary = any("b" in str(getattr(m, "value", "")) for m in mode)
                before = None if binary else 3
            named = any(keyword.arg == "encoding" for keyword in call.keywords)
            if before is not None and len(call.args) <= before and not named:
                without.append(f"{path}:{call.lineno}")
    assert not without


# Imports everything in a process where a module of POSIX is for nobody of ours, nor are
# names that Windows lacks, and prints what could be imported.
IMPORTER = """
import builtins, importlib, os, signal, sys
absent, libraries, *names = (words.split(",") for words in sys.argv[1:])
for name in filter(None, libraries):
    sys.modules[name] = None
if "keras" not in libraries:
    import keras
whole = builtins.__import__

def without(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    if importer in ("kmlp", "filelock") and name.partition(".")[0] in absent:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return whole(name, globals, locals, fromlist, level)

builtins.__import__ = without
for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "sysconf"):
    delattr(os, name)
del signal.SIGKILL
for (name,) in names:
    try:
        importlib.import_module(name)
        print(name)
    except ImportError as error:
        if error.name.partition(".")[0] not in libraries:
            raise
"""
WITHOUT_A_BACKEND = ("kmlp.__init__", "kmlp.commands", "kmlp.locks", "kmlp.atomic")
WITHOUT_A_BACKEND += ("kmlp.training.checkpoints", "kmlp.training.engine.meeting")
LIBRARIES = ("keras", "tensorflow", "jax", "torch")


@pytest.mark.parametrize(
    "libraries",
    [LIBRARIES, pytest.param((), marks=pytest.mark.long)],
    ids=["what needs no backend", "all"],
)
def test_the_package_imports_without_what_posix_alone_has(libraries):
    names = [path.removesuffix(".py").replace("/", ".") for path in TEXTS]
    names = [n for n in names if n != "kmlp.__main__" and not n.startswith("training.")]
    if libraries:
        names = [n for n in names if n.startswith(WITHOUT_A_BACKEND)]
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTER, ",".join(POSIX), ",".join(libraries), *names],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = set(ran.stdout.split())
    assert found == set(names)


# One by one.


def test_cores_that_are_not_told(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    assert devices.usable_cores() == os.cpu_count()
    # TensorFlow's threads cannot be counted anew once it runs.
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: "jax")
    devices.use_cores(1)


def test_memory_that_is_not_told(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sysconf")
    assert in_memory.allowance() == in_memory.LEAST_MEMORY * in_memory.MEMORY_SHARE
    monkeypatch.setattr(devices, "_RESET", tmp_path / "proc" / "clear_refs")
    monkeypatch.setattr(devices, "gpu_name", lambda: None)
    assert contenders.peak_memory(lambda: lambda: None, xla=False) is None
    monkeypatch.setattr(measuring, "_CPU_INFO", tmp_path / "proc" / "cpuinfo")
    assert measuring.cpu_flags() is None
    assert "unknown flags" in measuring.processor()


@pytest.mark.parametrize(
    ("platform", "peak", "expected"),
    [("linux", 5_000, 5.0), ("darwin", 5_000_000, 5.0), ("win32", None, None)],
)
def test_units_of_the_peak(platform, peak, expected, monkeypatch):
    from kmlp.serving import check

    used = SimpleNamespace(ru_maxrss=peak)
    module = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: used)
    monkeypatch.setitem(sys.modules, "resource", module if peak else None)
    monkeypatch.setattr(sys, "platform", platform)
    assert check._peak_megabytes() == expected


def test_the_processor_time_of_workers_that_is_not_told(monkeypatch):
    assert benchmark_input._processor_seconds() > 0
    child = [SimpleNamespace(pid="no/such")]
    monkeypatch.setattr(multiprocessing, "active_children", lambda: child)
    seconds = benchmark_input._processor_seconds()
    assert seconds != seconds


def test_workers_that_are_no_forks(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    with pytest.raises(InputError, match=r"forks of this one.*Received: spawn on"):
        benchmark_input._imported_torch()


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_process_comes_back(platform, monkeypatch, capsys):
    calls = []

    def lost(*_):
        raise WorkerLost("Socket closed")

    def called(command):
        calls.append(("call", command))
        return 3

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("kmlp.training.job.run", lost)
    monkeypatch.setattr(os, "execv", lambda _, command: calls.append(("exec", command)))
    monkeypatch.setattr(subprocess, "call", called)
    monkeypatch.setenv(training_arguments.RETURNS, "0")
    if platform == "win32":  # where a new program does not keep its process
        with pytest.raises(SystemExit) as end:
            training_arguments.run_or_return(None, None)
        assert end.value.code == 3
    else:
        training_arguments.run_or_return(None, None)
    ((how, command),) = calls
    assert how == ("call" if platform == "win32" else "exec")
    assert command == [sys.executable, *sys.orig_argv[1:]]
    assert "Another worker is gone" in capsys.readouterr().err


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_port_that_is_in_use_is_seen(platform, monkeypatch):
    given = []

    class Probe(socket.socket):
        def setsockopt(self, *option):
            given.append(option)
            super().setsockopt(*option)

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(cluster.socket, "socket", Probe)
    with Probe() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot listen on port"):
            cluster.check_port(cluster.Cluster((address,)))
    reused = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # On Windows a port in use could be taken again.
    assert (reused in given) == (platform != "win32")


def test_descriptors_are_cut_where_they_are_listed(monkeypatch):
    end, other = os.pipe()
    try:
        os.set_inheritable(end, True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", lambda _: os.scandir("no/such/folder"))
            meeting.cut_at_exec()
        assert os.get_inheritable(end)
        meeting.cut_at_exec()
        assert not os.get_inheritable(end)
    finally:
        os.close(end)
        os.close(other)


@pytest.mark.parametrize("lacks", ["SIGTERM", "SIGBREAK"])
def test_signals_that_a_system_lacks(lacks):
    names = {getattr(signal, n) for n in ("SIGTERM", "SIGINT") if n != lacks}
    system = SimpleNamespace(**{number.name: number for number in names})
    assert set(loop.ending(system)) == names


def test_a_folder_that_cannot_be_opened(monkeypatch, tmp_path):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        checkpoints._sync(tmp_path)


def test_a_lock_that_is_removed_once_it_is_free(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "win32")
    held, unlink = hold(tmp_path / "x"), Path.unlink

    def removed(path, **options):
        if held._lock.is_locked:
            raise PermissionError(13, "in use", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", removed)
    held.release()
    assert not list(tmp_path.iterdir())


def test_names_that_differ_in_case_are_two_files(tmp_path):
    class Picture(SimpleNamespace):
        def save(self, path):
            path.write_text(self.text, "utf-8")

    pictures = _Pictures(tmp_path, "--overlays")
    for name in ("a/Cat.jpg", "b/cat.jpg", "c/CAT.png"):
        pictures.save(name, lambda name: Picture(text=name), name)
    found = {path.name.casefold() for path in tmp_path.iterdir()}
    assert len(found) == 3
