"""Files of weights are read without running anything in them; what is no such file gets one clear line."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tilth.errors import MissingFileError, UnreadableFileError, UsageError
from tilth.models.weights.read import read_weights

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


class Writes:
    """A pickle of this writes a file when a plain unpickler reads it."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (pathlib.Path.write_text, (self.place, "executed"))


class Calls:
    """A pickle of this calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(marker):
    write = f"open({str(marker)!r}, 'w').write('executed')"
    return {
        "posix.system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, write),
        "exec": Calls(exec, write),
        "write_text": Writes(marker),
        "getattr": Calls(getattr, "text", "upper"),
    }


def files_with(tmp_path, value):
    """The same object in every kind of file that torch has ever written, and as a bare pickle."""
    for protocol in (2, 4):
        torch.save(value, tmp_path / f"new{protocol}.pth", pickle_protocol=protocol)
        torch.save(value, tmp_path / f"old{protocol}.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        (tmp_path / f"bare{protocol}.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    return sorted(path for path in tmp_path.iterdir() if path.suffix in {".pth", ".pkl"})


@pytest.mark.parametrize("attack", ["posix.system", "eval", "exec", "write_text", "getattr"])
@pytest.mark.parametrize("where", ["alone", "beside", "deep"])
def test_a_malicious_pickle_executes_nothing_and_is_refused_in_one_line(tmp_path, attack, where):
    marker = tmp_path / "executed"
    evil = attacks(marker)[attack]
    holds = {"alone": evil, "beside": {"state_dict": STATE, "hook": evil}, "deep": {"state_dict": STATE, "a": [{"b": (1, {"c": evil})}]}}[
        where
    ]
    files = files_with(tmp_path, holds)
    assert len(files) == 6
    for file in files:
        with pytest.raises(UnreadableFileError) as refused:
            read_weights(file)
        message = str(refused.value)
        assert "\n" not in message
        assert message.startswith(str(file))
        assert not marker.exists(), file
        # A bare pickle of tensors is refused for those already.
        if "4" not in file.name and attack in ("eval", "exec", "getattr") and (where == "alone" or file.suffix == ".pth"):
            assert f"it names {attack}," in message
            assert "nothing was run" in message
    # The attack is a real one: whoever unpickles the file runs it.
    if attack in ("eval", "exec", "write_text", "posix.system"):
        pickle.loads(pickle.dumps(evil))
        assert marker.exists()


def test_no_setting_of_the_surroundings_lets_a_pickle_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "executed"
    torch.save(attacks(marker)["eval"], tmp_path / "a.pth")
    with pytest.raises(UnreadableFileError, match="it names eval"):
        read_weights(tmp_path / "a.pth")
    assert not marker.exists()


def test_a_pickle_that_sets_state_on_a_known_class_runs_no_method_of_it(tmp_path):
    """Namespace is read as inert data, so a state that would replace its methods replaces nothing."""
    spoilt = argparse.Namespace(lr=0.1)
    spoilt.__dict__["__class__"] = spoilt.__dict__["__setstate__"] = "shadow"
    torch.save({"model": STATE, "args": spoilt}, tmp_path / "a.pth")
    found = read_weights(tmp_path / "a.pth")
    assert set(found.tensors) == set(STATE)


def lightning(tensors):
    """A Lightning checkpoint as CromSS leaves it (cromss.md section 7.2), with what else training programs pickle."""
    return {
        "epoch": np.int64(3),
        "global_step": 5,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": collections.OrderedDict(tensors),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"best": {"score": torch.tensor(0.5), "path": pathlib.PurePosixPath("a/b")}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"args": argparse.Namespace(lr=np.float64(1e-3), path=pathlib.Path("x"), bands=[1, 2], seen={3})},
        "history": collections.defaultdict(list, {"loss": [1.0]}),
        "mean": np.zeros(3, dtype=np.float32),
    }


@pytest.mark.parametrize("new", [True, False])
def test_what_training_programs_leave_beside_weights_is_read_as_data(tmp_path, new):
    file = tmp_path / "last.ckpt"
    torch.save(lightning({f"net.{name}": tensor for name, tensor in STATE.items()}), file, _use_new_zipfile_serialization=new)
    found = read_weights(file)
    assert list(found.tensors) == ["net.conv.weight", "net.conv.bias"]
    assert torch.equal(found.tensors["net.conv.weight"], STATE["conv.weight"])
    assert found.notes == ["inside state_dict"]
    assert found.sha256 is not None
    assert len(found.sha256) == 64


@pytest.mark.parametrize(
    ("module", "name", "base"),
    [
        ("easydict", "EasyDict", dict),
        ("pytorch_lightning.utilities.parsing", "AttributeDict", dict),
        ("omegaconf.dictconfig", "DictConfig", object),
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", object),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_classes_of_training_programs_are_read_without_importing_them(tmp_path, monkeypatch, module, name, base, new):
    def started(self, *_):
        raise AssertionError("a method of the class ran")

    kind = type(name, (base,), {"__module__": module, "__setstate__": started})
    home = types.ModuleType(module)
    setattr(home, name, kind)
    parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
    for parent in parents:
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, module, home)
    settings = kind()
    settings.__dict__["keys"] = "shadow"
    if base is dict:
        settings["lr"] = 0.1
    torch.save(
        {"config": settings, "callbacks": {kind: {"best": 1}}, "model": STATE}, tmp_path / "a.pth", _use_new_zipfile_serialization=new
    )
    for known in (module, *parents):
        monkeypatch.delitem(sys.modules, known)
    assert set(read_weights(tmp_path / "a.pth").tensors) == set(STATE)
    assert module not in sys.modules


def test_what_is_laid_over_the_methods_of_a_dictionary_changes_nothing(tmp_path):
    """Programs leave attributes on ordered dictionaries (torch leaves ``_metadata``); one may be called like a method."""
    spoilt = collections.OrderedDict(STATE)
    spoilt.keys = spoilt.get = spoilt.values = "shadow"
    torch.save({"state_dict": spoilt}, tmp_path / "a.pth")
    assert set(read_weights(tmp_path / "a.pth").tensors) == set(STATE)


def test_an_unknown_class_beside_the_weights_is_named(tmp_path):
    torch.save({"model": STATE, "config": io.StringIO}, tmp_path / "a.pth")
    with pytest.raises(UnreadableFileError, match=r"it names _io\.StringIO, .* save model\.state_dict\(\) alone"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("wrapped", "take", "notes"),
    [
        (lambda s: s, None, []),
        (lambda s: {"model": s, "epoch": 3}, None, ["inside model"]),
        (
            lambda s: {"state_dict": {f"module.{name}": value for name, value in s.items()}},
            None,
            ["inside state_dict", "module. taken off"],
        ),
        (lambda s: {f"_orig_mod.module.{name}": value for name, value in s.items()}, None, ["_orig_mod. taken off", "module. taken off"]),
        (lambda s: {"model": {"state_dict": s}}, None, ["inside model", "inside state_dict"]),
        (lambda s: {"student": {}, "teacher": s, "dino_loss": {"center": torch.ones(1)}}, None, ["inside teacher"]),
        (lambda s: {"teacher": {"x": torch.ones(1)}, "student": s}, "student", ["inside student (take='teacher' takes that instead)"]),
        (lambda s: {"teacher": {"x": torch.ones(1)}, "student": s}, "dinos", ["inside student (take='teacher' takes that instead)"]),
        (lambda s: {"model": {"x": torch.ones(1)}, "model_ema": s}, "model_ema", ["inside model_ema (take='model' takes that instead)"]),
        (lambda s: {"my_own": s, "model": {"x": torch.ones(1)}}, "my_own", ["inside my_own (take='model' takes that instead)"]),
        (lambda s: {name: nn.Parameter(value) for name, value in s.items()}, None, []),
        (lambda s: {name: value.numpy() for name, value in s.items()}, None, []),
    ],
)
def test_wrappings_are_taken_off_and_said(tmp_path, wrapped, take, notes):
    found = read_weights(wrapped(STATE), take)
    assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {name: tensor.tolist() for name, tensor in STATE.items()}
    assert not any(tensor.requires_grad for tensor in found.tensors.values())
    assert found.notes == notes


def test_a_prefix_that_only_some_names_have_stays():
    tensors = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(read_weights(tensors).tensors) == ["module.a", "b"]


def test_safetensors_are_told_by_content_not_by_name(tmp_path):
    save_file(STATE, tmp_path / "weights.pth")
    assert set(read_weights(tmp_path / "weights.pth").tensors) == set(STATE)


def test_tensors_of_a_mapped_file_are_those_that_were_saved(tmp_path):
    """Also of a file that was packed again with compression, which cannot be mapped."""
    torch.save({"model": STATE}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    for name in ("a.pth", "b.pth"):
        assert torch.equal(read_weights(tmp_path / name).tensors["conv.weight"], STATE["conv.weight"])


def test_a_module_pickled_whole_is_refused_by_name(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "whole.pth")
    with pytest.raises(UnreadableFileError, match=r"it names torch\.nn\.modules\.linear\.Linear"):
        read_weights(tmp_path / "whole.pth")


def test_folders(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        read_weights(tmp_path / "nothing.pth")
    (tmp_path / "sub").mkdir()
    with pytest.raises(MissingFileError, match=r"without model\.safetensors; give a file"):
        read_weights(tmp_path / "sub")
    torch.save(STATE, tmp_path / "sub" / "best.pth")
    with pytest.raises(MissingFileError, match=r"it holds best\.pth: give one of them"):
        read_weights(tmp_path / "sub")
    (tmp_path / "sub" / "config.json").write_text('{"model_type": "vit"}')
    save_file(STATE, tmp_path / "sub" / "model.safetensors")
    found = read_weights(tmp_path / "sub")
    assert set(found.tensors) == set(STATE)
    assert not found.own
    (tmp_path / "sub" / "config.json").write_text('{"model_type": "tilth-network"}')
    assert read_weights(str(tmp_path / "sub")).own


def test_an_unfinished_run_and_shards_are_told(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(MissingFileError, match="not finished"):
        read_weights(tmp_path)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UnreadableFileError, match="several shards"):
        read_weights(tmp_path)


def test_neither_path_nor_dictionary():
    with pytest.raises(UsageError, match="type list"):
        read_weights([1])
