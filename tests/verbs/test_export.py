"""Graphs for other programs compute what the model computes."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import tilth
from support.tiny_farm import tree
from support.training_sample import SCHEME
from tilth.errors import OutputExistsError, RunError
from tilth.models import export as exporting
from tilth.models.config import NetworkConfig
from tilth.models.export import export_model


@pytest.fixture(scope="module")
def model() -> tilth.Segmenter:
    torch.set_num_threads(1)
    network = NetworkConfig(name="upernet_vit_b", image_size=32, options={"width": 16, "depth": 4, "heads": 2, "decoder_channels": 8})
    return tilth.build_segmenter(network, tilth.get_sensor("s1"), SCHEME).eval()


@pytest.fixture(scope="module")
def onnx_file(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    model.save(folder / "model")
    done = tilth.export(model=folder / "model", out=folder / "deep" / "graph.onnx", size=[48, 40], normalisation=True)
    assert done.summary[0] == "image (B, 2, 48, 40) float32 as stored -> logits (B, 3, 48, 40)"
    assert done.values["difference"] < 1e-4
    assert done.values["batch"] is None
    assert sorted(done.outputs) == ["graph"]
    assert [name for name in tree(folder) if not name.startswith("model")] == ["deep", "deep/graph.onnx"]
    return folder / "deep" / "graph.onnx"


def test_graph_takes_any_number_of_stored_images(model, onnx_file):
    session = onnxruntime.InferenceSession(onnx_file)
    for count in (1, 3):
        stored = np.random.default_rng(0).normal(-12, 5, (count, 2, 48, 40)).astype(np.float32)
        stored[0, 0, 0, :5] = np.nan
        found = session.run(["logits"], {"image": stored})[0]
        with torch.no_grad():
            expected = model(model.normalise(torch.from_numpy(stored))).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_note_in_the_graph_says_what_goes_in_and_what_comes_out(model, onnx_file):
    note = json.loads(onnxruntime.InferenceSession(onnx_file).get_modelmeta().custom_metadata_map["tilth"])
    assert note["input"] == {"dtype": "float32", "shape": ["B", 2, 48, 40]}
    assert note["values"] == "as stored"
    assert tilth.Sensor.model_validate(note["sensor"]) == model.sensor
    assert tilth.ClassScheme.model_validate(note["scheme"]) == model.scheme


def test_program_of_torch_computes_the_same_bits(model, tmp_path):
    done = export_model(model, tmp_path / "model.pt2", "torch", (32, 32), batch=2)
    assert (done.batch, done.difference) == (2, 0.0)
    program = torch.export.load(tmp_path / "model.pt2").module()
    image = torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        assert torch.equal(program(image), model(image))


def test_graph_that_computes_something_else_is_not_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write", lambda *_: 1)
    monkeypatch.setattr(exporting, "_run_torch", lambda _written, _image: torch.full((1, 3, 32, 32), 7.0))
    with pytest.raises(RunError, match=r"differs from the model by .* it was not kept"):
        export_model(model, tmp_path / "deep" / "model.pt2", "torch", (32, 32), batch=1)
    assert tree(tmp_path) == []


def test_network_of_a_fixed_number_of_images_is_said_to_be(model, tmp_path, monkeypatch):
    write = exporting._write_torch

    def refuse(graph, image, target, batch, note):
        if batch is None:
            raise ValueError("batch is specialised")
        write(graph, image, target, batch, note)

    monkeypatch.setattr(exporting, "_write_torch", refuse)
    assert export_model(model, tmp_path / "model.pt2", "torch", (32, 32)).batch == 1


def test_network_that_cannot_be_written_is_named(model, tmp_path, monkeypatch):
    def refuse(*_):
        raise NotImplementedError("no such operator\nat great length")

    monkeypatch.setattr(exporting, "_write_onnx", refuse)
    with pytest.raises(RunError, match=r"^upernet_vit_b at 32 x 32 pixels cannot be written as a graph of onnx: no such operator$"):
        export_model(model, tmp_path / "model.onnx", "onnx", (32, 32))
    assert tree(tmp_path) == []


def test_checks_are_left_out_where_onnxruntime_is_not(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write", lambda _graph, _model, target, *_: target.write_bytes(b"graph") and None)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert export_model(model, tmp_path / "model.onnx", "onnx", (32, 32)).difference is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (torch.full((1, 3, 32, 32), torch.nan), "gives logits that are not finite, the model does not"),
        (torch.zeros(1, 1, 1, 1), r"gives logits of shape \(1, 1, 1, 1\), the model \(1, 3, 32, 32\)"),
    ],
)
def test_graph_of_no_numbers_or_another_shape_is_not_kept(model, tmp_path, monkeypatch, found, said):
    monkeypatch.setattr(exporting, "_write", lambda *_: 1)
    monkeypatch.setattr(exporting, "_run_torch", lambda _written, _image: found)
    with pytest.raises(RunError, match=said):
        export_model(model, tmp_path / "model.pt2", "torch", (32, 32), batch=1)
    assert tree(tmp_path) == []


def test_model_whose_own_logits_are_no_numbers_is_refused(model, tmp_path):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.network.encoder.blocks[1].norm1.weight[3] = torch.nan
    with pytest.raises(RunError, match=r"logits of upernet_vit_b are not finite, .* so are its weights in encoder.blocks.1.norm1.weight;"):
        export_model(broken, tmp_path / "model.pt2", "torch", (32, 32), batch=1)
    assert tree(tmp_path) == []


def quick(monkeypatch) -> None:
    """Let a graph be a file of a few bytes that is not run."""
    monkeypatch.setattr(exporting, "_write", lambda _graph, _model, target, *_: target.write_bytes(b"graph") and None)
    monkeypatch.setattr(exporting, "_compare", lambda *_: 0.0)


def test_graph_that_is_there_is_replaced_only_if_that_is_said(model, tmp_path, monkeypatch):
    quick(monkeypatch)
    model.save(tmp_path / "model")
    (tmp_path / "x.onnx").write_bytes(b"old")
    (tmp_path / "x.onnx.data").write_bytes(b"weights of the old one")
    with pytest.raises(OutputExistsError, match=r"x.onnx: exists already; give another --out, or --overwrite"):
        tilth.export(model=tmp_path / "model", out=tmp_path / "x.onnx")
    assert (tmp_path / "x.onnx").read_bytes() == b"old"
    tilth.export(model=tmp_path / "model", out=tmp_path / "x.onnx", overwrite=True)
    assert (tmp_path / "x.onnx").read_bytes() == b"graph"
    assert not (tmp_path / "x.onnx.data").exists()


def test_what_a_killed_export_left_goes_with_the_next(model, tmp_path, monkeypatch):
    quick(monkeypatch)
    (tmp_path / ".x.onnx.export").mkdir()
    (tmp_path / ".x.onnx.export" / "x.onnx.data").write_bytes(b"gigabytes")
    done = export_model(model, tmp_path / "x.onnx", "onnx", (32, 32))
    assert done.files == (tmp_path / "x.onnx",)
    assert tree(tmp_path) == ["x.onnx"]


def test_termination_leaves_nothing(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")

    def die(_graph, _model, target, *_):
        target.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(exporting, "_write", die)
    before = signal.getsignal(signal.SIGTERM)
    # A handler that lets the test live if the verb sets none.
    signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nobody unwinds"))
    try:
        with pytest.raises(SystemExit) as ended:
            tilth.export(model=tmp_path / "model", out=tmp_path / "deep" / "x.onnx")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "deep").exists()
