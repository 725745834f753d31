"""Names on the hub, against a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import http.server
import threading

import pytest
import torch
from safetensors.torch import save

from tilth.errors import RunError, UnreadableFileError, UsageError
from tilth.models import create, load_weights
from tilth.models.folder import save_network
from tilth.models.weights.read import read_weights

STATE = {"conv.weight": torch.arange(3.0)}
COMMIT = "0123456789012345678901234567890123456789"


def point_to(monkeypatch, port):
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between its attempts; half a minute in all


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Files by ``owner/name/file``; what is asked for is noted."""
    from huggingface_hub import constants

    files: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            asked.append(f"{self.command} {self.path}")
            repository, _, rest = self.path.strip("/").partition("/resolve/")
            _, _, file = rest.partition("/")
            known = any(name.startswith(f"{repository}/") for name in files)
            content = files.get(f"{repository}/{file}")
            self.send_response(200 if content is not None else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
            else:
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            body = content or b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    point_to(monkeypatch, server.server_port)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server.files, server.asked = files, asked
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_usual_files_are_tried_in_turn_and_the_hash_is_that_of_the_file(hub, tmp_path):
    torch.save({"model": STATE}, tmp_path / "a.bin")
    content = (tmp_path / "a.bin").read_bytes()
    hub.files["owner/name/pytorch_model.bin"] = content
    found = read_weights("hf-hub:owner/name")
    assert torch.equal(found.tensors["conv.weight"], STATE["conv.weight"])
    assert found.title == "hf-hub:owner/name"
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert any("model.safetensors" in line for line in hub.asked)


def test_a_file_and_a_revision_can_be_named(hub):
    hub.files["owner/name/sub/best.pth"] = save(STATE)
    assert list(read_weights("hf-hub:owner/name/sub/best.pth@v2").tensors) == ["conv.weight"]
    assert any("/resolve/v2/sub/best.pth" in line for line in hub.asked)


def test_what_was_fetched_once_needs_no_network(hub, monkeypatch):
    hub.files["owner/name/model.safetensors"] = save(STATE)
    read_weights("hf-hub:owner/name")
    point_to(monkeypatch, 9)
    assert list(read_weights("hf-hub:owner/name").tensors) == ["conv.weight"]


def test_the_configuration_of_a_model_of_tilth_comes_along(hub, tmp_path):
    network = create("upernet_vit_b", num_classes=2, image_size=32, width=16, depth=4, heads=2, decoder_channels=8, seed=0)
    folder = save_network(network, tmp_path / "folder")
    for file in folder.iterdir():
        hub.files[f"owner/name/{file.name}"] = file.read_bytes()
    assert read_weights("hf-hub:owner/name").config == read_weights(folder).config
    other = create("upernet_vit_b", num_classes=2, image_size=32, width=16, depth=4, heads=4, decoder_channels=8, seed=0)
    with pytest.raises(UnreadableFileError, match="its network computes otherwise"):  # numbers of heads show in no tensor
        load_weights(other, "hf-hub:owner/name")


def test_names_of_timm_are_looked_up_there(hub):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_vit")
    hub.files["timm/test_vit.r160_in1k/model.safetensors"] = save(model.state_dict())
    assert set(read_weights("timm:test_vit.r160_in1k").tensors) == set(model.state_dict())
    with pytest.raises(UsageError, match="timm publishes no weights of that name"):
        read_weights("timm:no_such_model")


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("hf-hub:nobody/nothing", RunError, "the hub has no 'nobody/nothing', or it is private"),
        ("hf-hub:owner/name", RunError, r"owner/name holds no model\.safetensors nor .*; name the file"),
        ("hf-hub:owner/name/other.pth", RunError, r"owner/name holds no other\.pth"),
        ("hf-hub:owner", UsageError, "expected hf-hub:owner/name"),
    ],
)
def test_what_is_not_there_gets_one_line(hub, name, error, expected):
    hub.files["owner/name/readme.md"] = b"x"
    with pytest.raises(error, match=expected) as refused:
        read_weights(name)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(name)


def test_without_a_network_there_is_one_line_and_the_network_stays(hub, monkeypatch):
    point_to(monkeypatch, 9)  # where nobody listens
    network = create("upernet_vit_b", num_classes=2, image_size=32, width=16, depth=4, heads=2, decoder_channels=8, seed=0)
    before = network.encoder.position_embedding.clone()
    with pytest.raises(RunError, match=r"cannot be fetched.*give a file instead") as refused:
        load_weights(network, "hf-hub:owner/name")
    assert "\n" not in str(refused.value)
    assert torch.equal(network.encoder.position_embedding, before)


def test_a_malicious_file_on_the_hub_is_refused_too(hub, tmp_path):
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'executed'}",))

    torch.save({"model": Evil()}, tmp_path / "evil.bin")
    hub.files["owner/name/pytorch_model.bin"] = (tmp_path / "evil.bin").read_bytes()
    hub.files["owner/name/plain.pkl"] = pickle.dumps(Evil())
    for name in ("hf-hub:owner/name", "hf-hub:owner/name/plain.pkl"):
        with pytest.raises(UnreadableFileError):
            read_weights(name)
    assert not (tmp_path / "executed").exists()
