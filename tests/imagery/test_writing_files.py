from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.listing import listing
from tilth.errors import TilthError
from tilth.imagery.write import atomic_path, write_json, write_text


def test_file_appears_whole_with_its_parents(tmp_path):
    target = tmp_path / "deep" / "er" / "a.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert listing(target.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            Path(f"{temporary}.aux.xml").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert listing(tmp_path) == ["a.txt"]


def test_failure_removes_the_folders_it_made(tmp_path):
    (tmp_path / "kept").mkdir()

    def fail() -> None:
        with atomic_path(tmp_path / "kept" / "new" / "newer" / "a.txt"):
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["kept"]


def test_sidecar_moves_along_and_an_outdated_one_goes(tmp_path):
    target, sidecar = tmp_path / "a.tif", tmp_path / "a.tif.aux.xml"
    with atomic_path(target) as temporary:
        temporary.write_text("1")
        Path(f"{temporary}.aux.xml").write_text("about 1")
    assert sidecar.read_text() == "about 1"
    write_text(target, "2")
    assert not sidecar.exists()


def test_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(TilthError, match=r"a\.txt: cannot be written"), atomic_path(tmp_path / "a.txt"):
        pass
    assert listing(tmp_path) == []


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TilthError, match="cannot be made"):
        write_text(tmp_path / "file" / "a.txt", "")
    with pytest.raises(TilthError, match="is a folder"):
        write_text(tmp_path, "")


def test_json_keeps_order_and_turns_what_is_no_number_into_null(tmp_path):
    value = {
        "z": np.float32(0.5),
        "a": [float("nan"), np.inf, -1],
        3: np.arange(2),
        "path": Path("x") / "y",
        "ü": None,
        "t": (np.bool_(True),),
    }
    path = write_json(tmp_path / "a.json", value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {"z": 0.5, "a": [None, None, -1], "3": [0, 1], "path": "x/y", "ü": None, "t": [True]}
    assert list(json.loads(text)) == ["z", "a", "3", "path", "ü", "t"]
    assert "ü" in text
    assert text.endswith("}\n")


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert listing(tmp_path) == []
