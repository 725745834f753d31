"""Files that are no weights, whatever they are called, get one clear line."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import pytest
import torch
from safetensors.torch import save
from torch import nn

from tilth.errors import UnreadableFileError
from tilth.models.weights.read import read_weights

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


def saved(value=None, **options):
    buffer = io.BytesIO()
    torch.save({"model": STATE} if value is None else value, buffer, **options)
    return buffer.getvalue()


def zip_with(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


def tar_with(name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return buffer.getvalue()


def script():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), buffer)
    return buffer.getvalue()


WRONG = {
    "empty": ("a.pth", b"", "is empty"),
    "jpeg": ("a.pth", b"\xff\xd8\xff\xe0" + b"x" * 400, "is a JPEG picture; expected a torch file"),
    "png": ("a.pt", b"\x89PNG\r\n" + b"x" * 400, "is a PNG picture"),
    "page": ("a.pth", b"\n<!DOCTYPE html><html>quota exceeded</html>", "is a web page"),
    "lfs": ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "safetensors and is not|Git LFS"),
    "lfs torch": ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "pointer of Git LFS"),
    "json": ("a.pth", json.dumps({"a": 1}).encode(), "is JSON, not weights"),
    "text": ("a.pth", b"hello there", "is text, not weights"),
    "noise": ("a.pth", bytes(range(129, 250)) * 9, "is of no known format"),
    "gzip": ("a.pth", gzip.compress(b"x"), "compressed with gzip"),
    "hdf5": ("a.h5", b"\x89HDF\r\n\x1a\n" + b"0" * 99, "HDF5"),
    "npy": ("a.npy", b"\x93NUMPY\x01\x00" + b"0" * 99, "one NumPy array"),
    "zip": ("a.zip", zip_with("inner/model.pth"), r"zip archive with inner/model.pth inside"),
    "tar": ("a.tar", tar_with("model.pth"), "is a tar archive"),
    "script": ("a.pt", script(), "TorchScript program"),
    "cut new": ("a.pth", saved()[:600], "cut short or damaged"),
    "cut old": ("a.pth", saved(_use_new_zipfile_serialization=False)[:-9], "cut short or damaged"),
    "cut safetensors": ("a.safetensors", save(STATE)[:-4], "cut short or damaged"),
    "broken header": ("a.safetensors", b"\x10" + bytes(7) + b"{'not json'     }", "cut short or damaged"),
    "torch called safetensors": ("a.safetensors", saved(), "is a torch file"),
    "plain pickle": ("a.pkl", pickle.dumps({"w": [1.0]}, protocol=2), "is a plain pickle"),
    "plain pickle of tensors": ("a.pkl", pickle.dumps(STATE, protocol=2), "is a plain pickle"),
    "one tensor": ("a.pth", saved(torch.ones(3)), r"holds no named tensors but one tensor of shape \(3,\)"),
    "settings": ("a.pth", saved({"lr": 1, "epochs": 2}), "holds no named tensors but a dictionary of lr, epochs"),
    "list": ("a.pth", saved([torch.ones(1)]), "holds no named tensors but a list of 1"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_wrong_file_gets_one_clear_line(tmp_path, case):
    name, content, expected = WRONG[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=expected) as refused:
        read_weights(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value)
