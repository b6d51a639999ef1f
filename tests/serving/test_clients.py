"""The clients and `kmlp serving ask`, against servers in this process."""

import contextlib
import socket

import numpy as np
import pytest
from serving import pictures, served, standin

from kmlp.commands import main
from kmlp.serving.client import Grpc, Rest, classes_and_scores

NAME = served.SMALL
CLIENTS = {"rest": (Rest, standin.rest), "grpc": (Grpc, standin.prediction_service)}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@contextlib.contextmanager
def asking(kind, model=NAME, delay=0.0, **options):
    client, serve = CLIENTS[kind]
    with serve(standin.Served(served.session(), NAME, version=3, delay=delay)) as place:
        yield client(place, model, **options)


def expected(image):
    tensors = {"image_bytes": np.array([image], object)}
    found = served.session().predict(tensors, "classify")
    names = [name.decode() for name in found["classes"][0]]
    return list(zip(names, found["scores"][0].tolist()))


@pytest.mark.parametrize("kind", CLIENTS)
def test_names_and_scores(kind):
    with asking(kind) as client:
        for case in ("JPEG", "PNG", "CMYK JPEG"):
            image = pictures.STRANGE[case]
            found = classes_and_scores(client.predict(image))
            assert [name for name, _ in found] == [n for n, _ in expected(image)]
            scores = [score for _, score in expected(image)]
            np.testing.assert_allclose([s for _, s in found], scores, rtol=1e-6)
        numbers = classes_and_scores(client.predict(image, "serving_bytes"), 3)
        assert [served.CLASS_NAMES[int(n)] for n, _ in numbers] == [
            n for n, _ in found[:3]
        ]


def test_status():
    with asking("rest") as client:
        assert client.status() == {"3": "AVAILABLE"}


@pytest.mark.parametrize("kind", CLIENTS)
def test_versions(kind):
    image = pictures.STRANGE["PNG"]
    with asking(kind, version=3) as client:
        assert client.predict(image)
    with asking(kind, version=4) as client, pytest.raises(LookupError, match="4"):
        client.predict(image)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_bad_image_fails_alone(kind):
    good = pictures.STRANGE["JPEG"]
    with asking(kind) as client:
        before = classes_and_scores(client.predict(good))
        with pytest.raises(ValueError, match=r"image_bytes\[0\] is none of") as error:
            client.predict(b"nothing such")
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match="Invalid JPEG data"):
            client.predict(good[: len(good) // 2])
        assert classes_and_scores(client.predict(good)) == before


@pytest.mark.parametrize("kind", CLIENTS)
def test_unknown_models(kind):
    refused = pytest.raises(LookupError, match=r"'weeds'.*Servable not found")
    with asking(kind, model="weeds") as client, refused:
        client.predict(pictures.STRANGE["JPEG"])


@pytest.mark.parametrize("kind", CLIENTS)
def test_late_answers(kind):
    late = pytest.raises(TimeoutError, match=r"--timeout.* within 0.5 s")
    with asking(kind, delay=3.0, timeout=0.5) as client, late:
        client.predict(pictures.STRANGE["JPEG"])


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("kind", CLIENTS)
def test_no_server(kind):
    place = f"127.0.0.1:{free_port()}"
    client = CLIENTS[kind][0](f"http://{place}" if kind == "rest" else place, NAME)
    with pytest.raises(ConnectionError, match=f"No TensorFlow Serving.*{place}"):
        client.predict(pictures.STRANGE["JPEG"])


@pytest.mark.parametrize(
    ("client", "place"),
    [(Rest, "localhost:8501"), (Grpc, "http://localhost:8500"), (Grpc, "localhost")],
)
def test_places_that_are_none(client, place):
    with pytest.raises(ValueError, match=f"such as .* Received: '{place}'"):
        client(place, NAME)


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_command(kind, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.jpg", "b.txt", "c.png")]
    for file, image in zip(files, ("JPEG", None, "PNG")):
        file.write_bytes(pictures.STRANGE[image] if image else b"text")
    serve = CLIENTS[kind][1]
    with serve(standin.Served(served.session(), NAME)) as place:
        asked = ["serving", "ask", *map(str, files), f"--{kind}", place, "--top", "2"]
        assert main.main([*asked, "--model", NAME]) == 1
        captured = capsys.readouterr()
        assert main.main([*asked, "--model", "weeds"]) == 2
    lines = captured.out.splitlines()
    assert [line for line in lines if line[0] != " "] == [str(files[0]), str(files[2])]
    name, score = expected(pictures.STRANGE["JPEG"])[0]
    assert lines[1].split(maxsplit=1) == [f"{score:.4f}", name]
    assert len(lines) == 6
    assert f"{files[1]}: The server refuses" in captured.err
    assert "kmlp: 1 of 3 images" in captured.err
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("kmlp: The server does not serve this.")


def test_the_commands_wrong_inputs(tmp_path, capsys):
    image = tmp_path / "a.png"
    image.write_bytes(pictures.STRANGE["PNG"])
    place = f"http://127.0.0.1:{free_port()}"
    ask = ["serving", "ask", "--model", NAME]
    for argv, word in (
        ([*ask, str(tmp_path / "none.png"), "--rest", place], "cannot be read"),
        ([*ask, str(image), "--rest", "localhost"], "'localhost'"),
        ([*ask, str(image), "--rest", place], "No TensorFlow Serving"),
    ):
        assert main.main(argv) == 2
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1
        assert word in errors[0]
