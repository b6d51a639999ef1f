"""From an address to a model: published weights with one argument."""

import dataclasses
import functools
import http.server
import threading

import keras
import numpy as np
import pytest
from cases import FAMILIES, REFERENCE, build_reference, reference, relative_error, run

import kmlp
from kmlp import pytorch
from kmlp.weights.catalogue import WEIGHTS

TOLERANCE = 1e-5


def arrays(model):
    return {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}


def randomized(torch, network):
    """A network whose every parameter, scale and shift too, is random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.02 * noise)
    return network.eval()


class Recorder(http.server.SimpleHTTPRequestHandler):
    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """PyTorch's ResMLP-S12, its file under the published name, and its features."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("published")
    network = randomized(torch, pytorch.build("resmlp_s12"))
    state = network.state_dict()
    torch.save(state, folder / "resmlp_12_no_dist.pth")
    headless = {k: v for k, v in state.items() if not k.startswith("head.")}
    # What a trainer without labels may have put behind the features.
    headless["head.mlp.0.weight"] = torch.zeros(2048, 384)
    torch.save(headless, folder / "resmlp_12_dino.pth")
    return folder, network


@pytest.fixture
def server(published, monkeypatch, tmp_path):
    """The catalogue's addresses led to a server of this machine, an empty cache."""
    folder, _ = published
    handler = functools.partial(Recorder, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        for name, entry in list(WEIGHTS.items()):
            address = f"http://127.0.0.1:{running.server_port}/"
            address += entry.address.rpartition("/")[2]
            monkeypatch.setitem(
                WEIGHTS, name, dataclasses.replace(entry, address=address)
            )
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
        Recorder.asked.clear()
        yield running
        running.shutdown()


def logits_of(network, images):
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


def pictures(size, seed=0):
    shape = (2, size, size, 3)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_published_weights_with_one_argument(published, server, capsys):
    _, network = published
    model = kmlp.create_model("resmlp_s12", weights="fb_in1k")
    x = pictures(224)
    assert relative_error(run(model, x), logits_of(network, x)) <= TOLERANCE
    assert model.name == "resmlp_s12"
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)
    assert model.preprocessing.test_crop == 0.9
    assert model.preprocessing.test_interpolation == "bicubic"
    assert len(model.class_names) == 1000
    assert (model.class_names[0], model.class_names[-1]) == ("tench", "toilet tissue")
    assert model.weights_source["licence"] == "Apache-2.0"
    assert model.weights_source["name"] == "resmlp_s12.fb_in1k"
    assert capsys.readouterr().out == ""  # nothing is new, nothing to say
    assert Recorder.asked == ["/resmlp_12_no_dist.pth"]

    # From the cache, another head and size in one call.
    server.shutdown()
    other = kmlp.create_model("resmlp_s12.fb_in1k", 10, (256, 256, 3))
    assert other.output_shape == (None, 10)
    assert other.preprocessing.image_size == 256
    assert other.class_names is None
    assert Recorder.asked == ["/resmlp_12_no_dist.pth"]
    expected = arrays(kmlp.resize(model, (256, 256, 3)))
    for path, value in arrays(other).items():
        if not path.startswith("head/dense/"):
            assert (value == expected[path]).all(), path
    assert "the head is new, for 10 classes" in capsys.readouterr().out


def test_features_of_weights_without_a_head(published, server, capsys):
    torch = pytest.importorskip("torch")
    _, network = published
    model = kmlp.create_model("resmlp_s12", weights="fb_dino")
    x = pictures(224)
    headless = {**network.state_dict()}
    eye = pytorch.build("resmlp_s12", num_classes=384).eval()
    headless |= {"head.weight": torch.eye(384), "head.bias": torch.zeros(384)}
    eye.load_state_dict(headless)
    assert model.output_shape == (None, 384)
    assert relative_error(run(model, x), logits_of(eye, x)) <= TOLERANCE
    assert capsys.readouterr().out == ""
    classifier = kmlp.create_model("resmlp_s12", 7, weights="fb_dino")
    assert classifier.output_shape == (None, 7)
    assert "the head is new, for 7 classes (none came)" in capsys.readouterr().out


def test_a_file_that_was_fetched_by_hand(published, tmp_path):
    """Under its published name it is known; under another, its names tell enough."""
    folder, network = published
    x = pictures(224)
    known = kmlp.create_model(weights=folder / "resmlp_12_no_dist.pth")
    assert relative_error(run(known, x), logits_of(network, x)) <= TOLERANCE
    assert known.name == "resmlp_s12"
    assert len(known.class_names) == 1000
    cached = tmp_path / "resmlp_s12.fb_in1k.pth"  # its name in Keras' cache
    cached.write_bytes((folder / "resmlp_12_no_dist.pth").read_bytes())
    assert kmlp.create_model(weights=cached).preprocessing == known.preprocessing
    renamed = tmp_path / "mine.bin"
    renamed.write_bytes((folder / "resmlp_12_no_dist.pth").read_bytes())
    unknown = kmlp.create_model("resmlp_s12", weights=renamed)
    assert unknown.preprocessing is None
    assert unknown.weights_source["file"] == "mine.bin"
    assert (
        arrays(unknown)["head/dense/kernel"] == arrays(known)["head/dense/kernel"]
    ).all()
    with pytest.raises(
        ValueError, match=r"seem to be of resmlp_s12 .*not of resmlp_s24"
    ):
        kmlp.create_model("resmlp_s24", weights=renamed)
    with pytest.raises(
        ValueError, match=r"seem to be of resmlp_s12 .*not of convmlp_s"
    ):
        kmlp.create_model("convmlp_s", weights=renamed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_networks_without_a_name(family, suffix):
    """The reference networks are of no variant: names and shapes tell them."""
    name = f"{family}_small"
    recorded, _ = reference(name)
    x = recorded["case0/images"]
    expected = build_reference(name, x.shape[1:])
    # What no shape tells is given.
    told = {"drop_path_rate": 0.0} if family in ("convmlp", "msmlp") else {}
    model = kmlp.create_model(weights=REFERENCE / f"{name}{suffix}", **told)
    assert type(model) is type(expected)
    if model.inputs[0].shape[1:] != x.shape[1:]:
        model = kmlp.create_model(
            input_shape=x.shape[1:], weights=REFERENCE / f"{name}{suffix}", **told
        )
    outputs = run(model, x)
    assert relative_error(outputs, recorded["case0/outputs"]) <= TOLERANCE


def test_the_merged_form_of_repmlpnet(tmp_path):
    """Files of RepMLPNet circulate after Locality Injection too."""
    recorded, _ = reference("repmlpnet_small")
    prefix = "deploy_state/"
    state = {
        key.removeprefix(prefix): recorded[key]
        for key in recorded.files
        if key.startswith(prefix)
    }
    np.savez(tmp_path / "deploy.npz", **state)
    model = kmlp.create_model(weights=tmp_path / "deploy.npz")
    assert model.locality_injected
    x = recorded["case0/images"]
    outputs = run(model, x)
    assert relative_error(outputs, recorded["case0/outputs_deploy"]) <= TOLERANCE
    assert relative_error(run(kmlp.merge(model), x), outputs) <= TOLERANCE
    model.save_preset(tmp_path)
    again = kmlp.create_model(weights=tmp_path)
    assert again.get_config() == model.get_config()
    assert (run(again, x) == outputs).all()


def test_no_network(monkeypatch, tmp_path):
    """What to fetch and where to put it; the cache stays empty."""
    entry = WEIGHTS["resmlp_s12.fb_in1k"]
    closed = http.server.HTTPServer(("127.0.0.1", 0), Recorder)
    closed.server_close()
    address = f"http://127.0.0.1:{closed.server_port}/resmlp_12_no_dist.pth"
    monkeypatch.setitem(
        WEIGHTS, entry.name, dataclasses.replace(entry, address=address, page=None)
    )
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(OSError, match="cannot be reached") as caught:
        kmlp.create_model("resmlp_s12", weights="fb_in1k")
    place = tmp_path / "models" / "kmlp" / "resmlp_s12.fb_in1k.pth"
    assert str(place) in str(caught.value)
    assert address in str(caught.value)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
