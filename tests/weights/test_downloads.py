"""Downloads from a server in this process, with all that goes wrong on the way."""

import dataclasses
import errno
import hashlib
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kmlp.weights import downloads as partial
from kmlp.weights import http_transfer
from kmlp.weights.catalogue import WEIGHTS
from kmlp.weights.downloads import cache_path, download

BODY = np.random.default_rng(0).bytes(400_000)
OTHER = np.random.default_rng(1).bytes(400_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PAGE = b"\n<!DOCTYPE html><html>Quota exceeded</html>"


@dataclasses.dataclass
class Site:
    """What the server has and how it behaves; asked: the ranges asked for."""

    body: bytes = BODY
    headers: dict = dataclasses.field(default_factory=lambda: {"ETag": '"one"'})
    ranges: bool = True
    checks_if_range: bool = True
    status: int = 200
    drops: list = dataclasses.field(default_factory=list)  # bytes before each break
    slow: float = 0.0
    redirect: dict | None = None
    chunked: bool = False
    length: bool = True
    asked: list = dataclasses.field(default_factory=list)
    address: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        if site.redirect is not None and self.path != "/elsewhere":
            self.send_response(302)
            for name, value in {"Location": "/elsewhere", **site.redirect}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        span = self.headers.get("Range")
        site.asked.append(span)
        start, status = 0, site.status
        condition = self.headers.get("If-Range")
        known = (site.headers.get("ETag"), site.headers.get("Last-Modified"), None)
        if span and site.ranges and (condition in known or not site.checks_if_range):
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(site.body) else 416
        body = site.body[start:] if status != 416 else b""
        self.send_response(status)
        if status == 206:
            total = len(site.body)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif site.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        for name, value in site.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if site.drops:
            self.wfile.write(body[: site.drops.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        for at in range(0, len(body), 50_000):
            time.sleep(site.slow)
            piece = body[at : at + 50_000]
            if site.chunked:
                piece = b"%x\r\n%s\r\n" % (len(piece), piece)
            self.wfile.write(piece)
        if site.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args):
        pass


@pytest.fixture
def site():
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args):  # clients that were interrupted
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.site = Site(address=f"http://127.0.0.1:{server.server_port}/file.pth")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.site
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(http_transfer, "PAUSES", (0.0, 0.0, 0.0))
    return tmp_path / "keras" / "models" / "kmlp"


def entry_of(address, sha256=None, page=None):
    return dataclasses.replace(
        WEIGHTS["convmlp_s.shi_in1k"], address=address, sha256=sha256, page=page
    )


CODE = """
import dataclasses, signal, sys
# A shell's background jobs start with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from kmlp.weights.downloads import download
from kmlp.weights.catalogue import WEIGHTS
entry = WEIGHTS["convmlp_s.shi_in1k"]
print(download(dataclasses.replace(entry, address=sys.argv[1])))
"""


def downloading(site):
    """Start another process that downloads."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, site.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_in(cache):
    return sorted(path.name for path in cache.iterdir())


NAME = "convmlp_s.shi_in1k.pth"
PART, ORIGIN = f"{NAME}.part", f"{NAME}.origin.part"


def keep(cache, body, **origin):
    """What an interrupted download leaves."""
    cache.mkdir(parents=True)
    (cache / PART).write_bytes(body)
    if origin:
        (cache / ORIGIN).write_text(json.dumps({"sha256": None, **origin}))


@pytest.mark.parametrize("sha256", [None, SHA256, SHA256[:8].upper()])
def test_fetched_once(site, cache, sha256):
    path = download(entry_of(site.address, sha256))
    assert path == cache / NAME
    assert path.read_bytes() == BODY
    assert download(entry_of(site.address, sha256)) == path
    assert site.asked == [None]
    assert left_in(cache) == [NAME]


def test_put_there_by_hand(cache):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(BODY)
    entry = entry_of("http://no.such.host.invalid/file.pth", SHA256[:8])
    assert download(entry) == cache / NAME


@pytest.mark.parametrize(
    ("home", "expected"),
    [("", "~/.keras"), ("~/elsewhere", "~/elsewhere"), ("/other", "/other")],
)
def test_keras_cache(monkeypatch, home, expected):
    monkeypatch.setenv("KERAS_HOME", home)
    entry = WEIGHTS["resmlp_s12.timm_fb_in1k"]
    folder = Path(expected).expanduser() / "models" / "kmlp"
    assert cache_path(entry) == folder / "resmlp_s12.timm_fb_in1k.safetensors"
    drive = WEIGHTS["repmlpnet_t224.dxh_in1k"]
    assert cache_path(drive) == folder / "repmlpnet_t224.dxh_in1k.pth"


@pytest.mark.parametrize("headers", [{"ETag": '"one"'}, {"Last-Modified": "yesterday"}])
def test_goes_on_where_a_connection_broke(site, cache, headers):
    site.headers, site.drops = headers, [150_000, 70_000]
    assert download(entry_of(site.address)).read_bytes() == BODY
    assert site.asked[0] is None
    starts = [int(asked[len("bytes=") : -1]) for asked in site.asked[1:]]
    # A piece that came in part is asked for again, all before it is not.
    assert 150_000 - http_transfer.PIECE <= starts[0] <= 150_000
    assert starts[0] < starts[1] <= 220_000
    assert left_in(cache) == [NAME]


@pytest.mark.parametrize(
    ("broken", "sha256"),
    [
        ({"ranges": False}, None),
        # Nothing tells versions apart: no piece is trusted.
        ({"headers": {}}, None),
        ({"headers": {"ETag": 'W/"weak"'}}, None),
    ],
)
def test_starts_again_where_it_must(site, cache, broken, sha256):
    for name, value in broken.items():
        setattr(site, name, value)
    site.drops = [150_000]
    assert download(entry_of(site.address, sha256)).read_bytes() == BODY
    assert len(site.asked) == 2
    assert left_in(cache) == [NAME]


def test_hash_makes_up_for_missing_etag(site):
    site.headers, site.drops = {}, [150_000]
    assert download(entry_of(site.address, SHA256)).read_bytes() == BODY
    assert site.asked[1] not in (None, "bytes=0-")


def test_breaks_without_end_keep_the_part(site, cache):
    site.drops = [70_000] * 4
    with pytest.raises(ConnectionError, match=r"broke off 4 times .*kept.*Received"):
        download(entry_of(site.address))
    assert left_in(cache) == [ORIGIN, PART]
    come = (cache / PART).stat().st_size
    assert BODY.startswith((cache / PART).read_bytes())
    assert come >= 4 * 65_536
    assert download(entry_of(site.address)).read_bytes() == BODY
    assert site.asked[-1] == f"bytes={come}-"
    assert left_in(cache) == [NAME]


def test_useless_part_is_not_kept(site, cache):
    site.headers, site.drops = {}, [70_000] * 4
    with pytest.raises(ConnectionError, match=r"broke off 4 times .*nothing is kept"):
        download(entry_of(site.address))
    assert left_in(cache) == []


@pytest.mark.parametrize("checks_if_range", [True, False])
def test_changed_file_is_not_mixed(site, cache, checks_if_range):
    keep(
        cache,
        OTHER[:100_000],
        address=site.address,
        validator='"zero"',
        length=len(BODY),
    )
    site.checks_if_range = checks_if_range
    assert download(entry_of(site.address)).read_bytes() == BODY
    # One answer where the server itself compares the versions.
    assert site.asked == ["bytes=100000-"] + [None] * (not checks_if_range)
    assert left_in(cache) == [NAME]


@pytest.mark.parametrize(
    ("come", "origin"),
    [
        # What has come, and what is known of it.
        (OTHER[:9], {"address": "http://other/", "validator": '"one"', "length": 9}),
        (OTHER[:9], {}),
        (BODY[:9], {"validator": '"one"', "length": 7_000}),
        (BODY + b"more", {"validator": '"one"', "length": len(BODY) + 9}),
    ],
    ids=("other address", "unknown", "other length", "too long"),
)
def test_part_that_cannot_be_continued(site, cache, come, origin):
    keep(cache, come, **({"address": site.address} | origin if origin else {}))
    assert download(entry_of(site.address)).read_bytes() == BODY
    assert site.asked[-1] is None
    assert len(site.asked) <= 2
    assert left_in(cache) == [NAME]


def test_damaged_origin(site, cache):
    keep(cache, OTHER[:9])
    (cache / ORIGIN).write_bytes(b'{"address": \xff')
    assert download(entry_of(site.address)).read_bytes() == BODY
    assert left_in(cache) == [NAME]


def test_whole_part_needs_no_network(cache):
    address = "http://no.such.host.invalid/file.pth"
    keep(cache, BODY, address=address, validator='"one"', length=len(BODY))
    assert download(entry_of(address, SHA256)).read_bytes() == BODY
    assert left_in(cache) == [NAME]


@pytest.mark.parametrize("kept", [False, True])
def test_wrong_hash(site, cache, kept):
    if kept:
        keep(cache, OTHER, address=site.address, validator='""', length=len(OTHER))
    site.body = OTHER
    with pytest.raises(ValueError, match="removed") as caught:
        download(entry_of(site.address, SHA256[:8]))
    found = hashlib.sha256(OTHER).hexdigest()
    for word in (found, f"not {SHA256[:8]}…", f"Received: {site.address}"):
        assert word in str(caught.value)
    assert left_in(cache) == []
    site.body = BODY
    assert download(entry_of(site.address, SHA256[:8])).read_bytes() == BODY


def test_wrong_file_in_its_place_is_replaced(site, cache):
    cache.mkdir(parents=True)
    for wrong in (OTHER, PAGE, b""):
        (cache / NAME).write_bytes(wrong)
        assert download(entry_of(site.address, SHA256)).read_bytes() == BODY
    assert left_in(cache) == [NAME]


@pytest.mark.parametrize("announced", [SHA256, hashlib.sha256(OTHER).hexdigest()])
def test_hash_that_the_server_announces(site, cache, announced):
    site.redirect = {"X-Linked-ETag": f'"{announced}"'}
    site.drops = [100_000]  # the hash outlasts the first answer
    if announced == SHA256:
        assert download(entry_of(site.address)).read_bytes() == BODY
        return
    with pytest.raises(ValueError, match=f"sha256 {SHA256}, not {announced}"):
        download(entry_of(site.address))
    assert left_in(cache) == []


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/x"])
def test_web_page_instead(site, cache, content_type):
    site.body = PAGE
    site.headers = {"Content-Type": content_type}
    entry = entry_of(site.address, page="https://drive.google.com/file/d/ID/view")
    with pytest.raises((ConnectionError, ValueError), match="web page") as caught:
        download(entry)
    assert f"fetch {entry.page} by hand and put it at {cache / NAME}" in str(
        caught.value
    )
    assert left_in(cache) == []


def test_web_page_does_not_cost_the_part(site, cache):
    come = BODY[:100_000]
    keep(cache, come, address=site.address, validator='"one"', length=len(BODY))
    site.body, site.ranges, site.headers = PAGE, False, {"Content-Type": "text/html"}
    with pytest.raises(ConnectionError, match="web page"):
        download(entry_of(site.address))
    assert (cache / PART).read_bytes() == come


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_refusal(site, cache, status):
    site.status, site.ranges = status, False
    with pytest.raises(ConnectionError, match=f"answers {status} ") as caught:
        download(entry_of(site.address))
    assert str(cache / NAME) in str(caught.value)
    assert left_in(cache) == []
    assert len(site.asked) == 1


def unused_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://no.such.host.invalid/file.pth", "no.such.host.invalid"),
        ("http://127.0.0.1:{port}/file.pth", "refused"),
    ],
)
def test_no_network(cache, address, reason, capsys):
    address = address.format(port=unused_port())
    entry = entry_of(address, page="https://page/of/it")
    with pytest.raises(ConnectionError) as caught:
        download(entry)
    message = str(caught.value)
    assert message.startswith(f"{cache / NAME} is not there")
    assert reason in message
    assert f"fetch https://page/of/it by hand and put it at {cache / NAME}" in message
    assert message.endswith(f"Received: {address}")
    assert "object at" not in message
    assert "\n" not in message
    assert left_in(cache) == []
    assert capsys.readouterr().err == ""


def test_chunked(site, cache):
    site.chunked = True
    assert download(entry_of(site.address)).read_bytes() == BODY
    assert left_in(cache) == [NAME]


def test_length_that_is_not_told(site, cache):
    """Such a file could end anywhere."""
    site.length = False
    with pytest.raises(ConnectionError, match="length"):
        download(entry_of(site.address))
    assert left_in(cache) == []


def without_locks(*_, **__):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("how", ["threads", "processes", "no locks"])
def test_two_at_once(site, cache, how, monkeypatch, capfd):
    site.slow = 0.3 if how == "processes" else 0.05
    entry = entry_of(site.address)
    if how == "processes":
        running = [downloading(site) for _ in "ab"]
        paths = [Path(process.communicate()[0].strip()) for process in running]
    else:
        if how == "no locks":
            monkeypatch.setattr("kmlp.locks.FileLock.acquire", without_locks)
        with ThreadPoolExecutor(2) as pool:
            paths = list(pool.map(download, [entry] * 2))
    assert paths == [cache / NAME] * 2
    assert (cache / NAME).read_bytes() == BODY
    assert left_in(cache) == [NAME]
    assert site.asked == [None] * (2 if how == "no locks" else 1)
    if how == "threads":
        assert "waiting for it" in capfd.readouterr().err


def test_the_second_goes_on_where_the_first_gives_up(site, cache):
    """A lock's end hands the part over."""
    site.drops, site.slow = [70_000] * 4, 0.0
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(download, entry_of(site.address)) for _ in "ab"]
        ends = [job.exception() for job in jobs]
    assert sorted(type(end).__name__ for end in ends) == ["ConnectionError", "NoneType"]
    assert (cache / NAME).read_bytes() == BODY
    assert left_in(cache) == [NAME]
    assert len(site.asked) == 5


def test_part_that_was_removed_while_waiting(tmp_path):
    """Its lock is worth nothing: the next one would not see it."""
    target, waits = tmp_path / "file", threading.Event()

    def second():
        with partial.part_of(target, waits.set) as part:
            return part.path.exists()

    with ThreadPoolExecutor(1) as pool:
        with partial.part_of(target) as part:
            job = pool.submit(second)
            assert waits.wait(60)
            part.remove()
        assert job.result(60)
    assert list(tmp_path.iterdir()) == []


def test_part_of_another_is_left_alone(tmp_path):
    target = tmp_path / "file"
    with partial.part_of(target) as part:
        part.path.write_bytes(BODY)
        part.become(target)
        part.path.touch()  # as another process begins one
    assert part.path.exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_killed_midway(site, cache, how):
    site.slow = 0.1
    process = downloading(site)
    deadline = time.monotonic() + 120
    part = cache / PART
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate()
    lock = [f".{NAME}.lock"] * (how == signal.SIGKILL)
    assert left_in(cache) == [*lock, ORIGIN, PART]
    come = part.stat().st_size
    assert 0 < come < len(BODY)
    site.slow = 0.0
    assert download(entry_of(site.address)).read_bytes() == BODY
    assert site.asked == [None, f"bytes={come}-"]
    assert left_in(cache) == [NAME]


def test_cache_that_cannot_be(tmp_path, monkeypatch, site):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"KERAS_HOME.*Received: .*file/models") as caught:
        download(entry_of(site.address))
    assert not isinstance(caught.value, ConnectionError)
    assert site.asked == []


def test_disk_without_room(site, cache, monkeypatch):
    monkeypatch.setattr(partial.Part, "room", 1000)
    with pytest.raises(OSError, match=r"0\.4 MB are needed and 0\.0 MB free.*room"):
        download(entry_of(site.address))
    assert left_in(cache) == []


def test_disk_that_fills_up(site, cache, monkeypatch):
    """What came before is kept."""

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(http_transfer, "open", Full, raising=False)
    with pytest.raises(OSError, match=r"No space left on device.*KERAS_HOME"):
        download(entry_of(site.address))
    monkeypatch.undo()
    monkeypatch.setenv("KERAS_HOME", str(cache.parents[1]))
    assert left_in(cache) == [ORIGIN, PART]
    assert download(entry_of(site.address)).read_bytes() == BODY


@pytest.mark.parametrize("progress", [True, False])
def test_one_line_elsewhere_than_on_a_terminal(site, capsys, progress):
    site.drops = [100_000]
    download(entry_of(site.address), progress=progress)
    captured = capsys.readouterr()
    line = "Fetching convmlp_s.shi_in1k, 0.4 MB, from 127.0.0.1\n"
    assert captured.err == (line if progress else "")
    assert captured.out == ""


def test_bar_on_a_terminal(site, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    download(entry_of(site.address))
    assert "convmlp_s.shi_in1k:" in sys.stderr.getvalue()
    assert "0.00/400k" in sys.stderr.getvalue()


def test_proxy_of_the_environment(site, monkeypatch):
    """The server as a proxy: it is asked for the whole address."""
    monkeypatch.setenv("http_proxy", site.address.removesuffix("/file.pth"))
    monkeypatch.delenv("no_proxy", raising=False)
    path = download(entry_of("http://no.such.host.invalid/file.pth"))
    assert path.read_bytes() == BODY
