"""The processes of a job meet: who is missing, and what they differ in."""

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmlp.commands.train import DETECTOR, parse
from kmlp.errors import InputError
from kmlp.recipes.choosing import CATALOGUE
from kmlp.training.engine.meeting import difference, meet
from kmlp.training.job import _command, _resolved
from kmlp.training.tasks.classification import Classification
from kmlp.version import code_mark

ROOT = Path(__file__).resolve().parents[2]


def addresses(count):
    """Addresses of which the first was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return [f"127.0.0.1:{port}", "there:1", "elsewhere:2", "far:3"][:count]


def told(calls, strangers=()):
    """`{index: message}` of processes that meet, `""` where they met.

    Args:
        calls: Arguments of `meet` by index.
        strangers: Bytes of others that call the first process.
    """
    messages = {}

    def wait(index, arguments):
        try:
            meet(*arguments)
            messages[index] = ""
        except InputError as stop:
            messages[index] = str(stop)

    threads = [threading.Thread(target=wait, args=call) for call in calls.items()]
    threads[0].start()
    for said in strangers:
        port = int(calls[0][0][0].rpartition(":")[2])
        while True:
            try:
                stranger = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionError:
                pass
        stranger.sendall(said)
        stranger.close()
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    return messages


@pytest.mark.parametrize("came", [(0,), (0, 2), (1, 2)])
def test_who_waits_is_told_who_is_missing(came):
    at = addresses(3)
    patience = {0: 0.5, 1: 0.5, 2: 0.5 if 0 not in came else 20}
    messages = told({index: (at, index, {}, patience[index]) for index in came})
    assert len(messages) == len(came)
    missing = ", ".join(at[index] for index in range(3) if index not in came)
    expected = f"Missing: {missing}" if 0 in came else f"meet at {at[0]}"
    assert all(expected in message for message in messages.values())


SAME = {"kmlp": "1", "--seed": 0, "--learning-rate": None, "--set": [["a=1"]]}
# What differs, who is at fault, and what all are told of it.
DIFFERENCES = {
    "nothing": ({}, ""),
    "an option": ({2: {"--learning-rate": 0.5}}, "0.5 of worker 2, none of worker 0"),
    "the first of two": (
        {1: {"--set": []}, 3: {"--seed": 7}},
        "7 of worker 3, 0 of worker 0",
    ),
    "the chief": ({0: {"--seed": 3}}, "0 of worker 1, 3 of worker 0"),
    "more options": ({1: {"--new": "x"}}, '"x" of worker 1, none of worker 0'),
    "code": ({3: {"kmlp": "2"}}, '"2" of worker 3, "1" of worker 0'),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_all_are_told_the_first_difference(case):
    changes, expected = DIFFERENCES[case]
    at = addresses(4)
    calls = {i: (at, i, {**SAME, **changes.get(i, {})}, 20) for i in range(4)}
    messages = set(told(calls).values())
    assert len(messages) == 1
    (message,) = messages
    assert message.endswith(expected)
    if expected:
        assert "give all workers one command, one code and the same data" in message


def test_another_cluster_is_a_difference():
    at = addresses(2)
    messages = told({0: (at, 0, {}, 20), 1: ([*at, "c:3"], 1, {}, 20)})
    assert all("differs from worker 0 in TF_CONFIG" in m for m in messages.values())


STRANGERS = (
    b"",
    b"GET / HTTP/1.1\r\n\r\n",
    b"kmlp 1\n",
    b"kmlp x {}\n",
    b"kmlp 1 5\n",
    b"kmlp 1 " + b"[" * 100_000 + b"\n",
    b"other 1 {}\n",
    bytes(range(256)),
)


def test_strangers_are_passed_over():
    at = addresses(2)
    calls = {index: (at, index, SAME, 20) for index in (0, 1)}
    assert told(calls, STRANGERS) == {0: "", 1: ""}


# What a run says of its command and, once it is resolved, of what it has read.


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (["--learning-rate", "0.5"], "--learning-rate"),
        (["--set", "mixup=0"], "--set"),
        (["--seed", "1"], "--seed"),
        (["--xla"], "--xla"),
        (["--checkpoint-steps", "5"], "--checkpoint-steps"),
        (["--output", "there", "--fresh", "--data", "mounted"], None),
        (["--patience", "9", "--data-dir", "x", "--download"], None),
    ],
)
def test_commands_that_differ(more, name):
    tables = []
    for words in ([], more):
        command = _command(parse(["--arch", "resmlp_s12", *words]))
        tables.append(json.loads(json.dumps(command, default=str)))
    found = difference(dict(enumerate(tables)))
    assert f" in {name}: " in found if name else not found
    assert tables[0]["the code of kmlp"] == code_mark()
    assert tables[0].keys() > {"kmlp", "keras", "backend", "--arch", "--batch-size"}
    assert "--head" in _command(DETECTOR.parse([]))


class Engine:
    """A worker's engine that hears the other; `other` says what."""

    workers, local_replicas = 2, 1

    def __init__(self, other=None):
        self.other, self.said = other, None

    def gather(self, data):
        self.said = data
        return [data, self.other or data]


def resolution(**changes):
    """A task's module whose jobs hold nothing but what is compared."""

    def resolve(options, engine):
        if "failure" in changes:
            raise changes["failure"]
        split = SimpleNamespace(count=changes.get("count", 9))
        names = tuple(changes.get("class_names", ("cat", "dog")))
        place = changes.get("place", "here")
        recipe = CATALOGUE["resmlp_imagenet"].recipe
        recipe = recipe.resolved(images=9, mean=(0.5,) * 3, std=(0.5,) * 3, flip=True)
        sha = {"sha256": changes.get("sha256", "00")}
        return SimpleNamespace(
            engine=engine,
            task=Classification(None),
            recipe=dataclasses.replace(recipe, mixup=changes.get("mixup", 0.5)),
            source=SimpleNamespace(
                name=place,
                class_names=names,
                train=split,
                validation=split,
                skipped=(),
                ignored=f"1 of {place}",
            ),
            steps_per_epoch=changes.get("steps", 3),
            initial=SimpleNamespace(identity=sha),
        )

    return SimpleNamespace(resolve=resolve)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"place": "mounted elsewhere"}, None),
        ({"sha256": "ff"}, "initial weights.sha256: "),
        ({"class_names": ("cat", "eel")}, "data.class_names.1: "),
        ({"class_names": ("cat",)}, "data.class_names.1: "),
        ({"count": 8}, "data.training_images: "),
        ({"mixup": 0.25}, "recipe.mixup: "),
        ({"steps": 4}, "steps of an epoch: "),
    ],
)
def test_jobs_that_differ(changes, expected):
    other = Engine()
    _resolved(resolution(), None, other)
    engine = Engine(other.said)
    if expected is None:
        assert _resolved(resolution(**changes), None, engine).engine is engine
        return
    with pytest.raises(InputError, match=f"^Worker 1 differs .* in {expected}.*Rec"):
        _resolved(resolution(**changes), None, engine)


def test_all_end_where_one_cannot_begin():
    stop = InputError("There are no images. Received: 'there'")
    for failure in (stop, OSError("no disk")):
        other = Engine()
        with pytest.raises(type(failure), match=str(failure)):
            _resolved(resolution(failure=failure), None, other)
        with pytest.raises(InputError, match=f"Worker 1 cannot begin: {failure}"):
            _resolved(resolution(), None, Engine(other.said))


def test_the_code_is_its_files_wherever_they_lie(tmp_path):
    copy = tmp_path / "kmlp"
    shutil.copytree(ROOT / "kmlp", copy, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-B", "-c"]
    command += ["from version import code_mark; print(code_mark())"]

    def mark():
        ran = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        return ran.stdout.strip()

    assert mark() == code_mark()
    with open(copy / "algebra.py", "a") as file:
        file.write("# another line\n")
    assert mark() not in ("", code_mark())
