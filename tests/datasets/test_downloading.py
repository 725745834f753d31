"""Downloads go through torchgeo; without it, or without a network, one line says what to do."""

import sys
import types
import urllib.error
from pathlib import Path

import pytest

from support import public_sets
from support.tiny_farm import tree
from tilth.cli.main import main


@pytest.fixture
def calls(monkeypatch) -> list[dict]:
    """torchgeo.datasets with a LoveDA that writes the stand-in, loudly."""
    made: list[dict] = []

    def love_da(**words: object) -> None:
        made.append(words)
        print("Files already downloaded and verified")
        if not (Path(words["root"]) / "Train").exists():
            public_sets.plant_loveda(Path(words["root"]))

    datasets = types.ModuleType("torchgeo.datasets")
    datasets.LoveDA = love_da
    torchgeo = types.ModuleType("torchgeo")
    torchgeo.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchgeo", torchgeo)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", datasets)
    return made


def prepare(tmp_path: Path) -> int:
    return main(["datasets", "prepare", "loveda", str(tmp_path / "set"), "--out", str(tmp_path / "out"), "--download"])


def test_download_asks_torchgeo_for_every_split_and_then_prepares(calls, tmp_path, capsys):
    assert prepare(tmp_path) == 0
    root = str(tmp_path / "set")
    assert calls == [{"root": root, "download": True, "checksum": True, "split": split} for split in ("train", "val", "test")]
    assert capsys.readouterr().out.startswith("12 tiles of 12 images, 8 with labels (")


def test_no_network_is_one_line(calls, tmp_path, capsys, monkeypatch):
    def fail(**words: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(sys.modules["torchgeo.datasets"], "LoveDA", fail)
    assert prepare(tmp_path) == 1
    err = capsys.readouterr().err
    assert "LoveDA could not be downloaded into" in err
    assert "Name or service not known" in err
    assert "put Train.zip, Val.zip, Test.zip from https://github.com/Junjue-Wang/LoveDA there by hand" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_torchgeo_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchgeo", None)
    assert prepare(tmp_path) == 1
    assert "download of LoveDA" in (err := capsys.readouterr().err)
    assert "pip install 'tilth[datasets]'" in err
    assert tree(tmp_path) == []
