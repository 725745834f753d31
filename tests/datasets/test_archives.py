"""Archives: verified, unpacked safely and only where needed, gone on with after a stop; nothing lands outside."""

import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from support import public_sets
from support.tiny_farm import tree
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.datasets import archives
from tilth.datasets.archives import folder_name, unpack
from tilth.datasets.shelf import load_card
from tilth.errors import DataError, TilthError, UnreadableFileError
from tilth.imagery.read import read_label


def pack(folder: Path, target: Path) -> Path:
    """Put a folder into an archive, as the folder's own name, and remove it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as file:
            file.mkdir(f"{folder.name}/")
            for item in files:
                file.write(item, item.relative_to(folder.parent))
    else:
        with tarfile.open(target, "w:gz" if target.name.endswith("gz") else "w") as tar:
            tar.add(folder, folder.name)
    shutil.rmtree(folder)
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def card_of(tmp_path: Path, **sums: dict[str, str]) -> Path:
    """The card of LoveDA with other archives."""
    tree = load_card("loveda").model_dump(mode="json", exclude_defaults=True) | {"archives": sums}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return tmp_path / "card.yaml"


def prepare(card: Path, folder: Path, out: Path) -> int:
    return main(["datasets", "prepare", str(card), str(folder), "--out", str(out)])


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar"])
def test_set_in_its_archives_is_prepared_as_if_unpacked(suffix, tmp_path, capsys):
    public_sets.plant_loveda(tmp_path / "plain")
    assert main(["datasets", "prepare", "loveda", str(tmp_path / "plain"), "--out", str(tmp_path / "one")]) == 0
    public_sets.plant_loveda(tmp_path / "set")
    sums = {}
    for split in ("Train", "Val", "Test"):
        file = pack(tmp_path / "set" / split, tmp_path / "set" / f"{split}{suffix}")
        sums[file.name] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "md5": hashlib.md5(file.read_bytes()).hexdigest()}
    before = contents(tmp_path / "set")
    assert prepare(card_of(tmp_path, **sums), tmp_path / "set", tmp_path / "two") == 0
    assert contents(tmp_path / "set") == before
    assert contents(tmp_path / "one" / "masks") == contents(tmp_path / "two" / "masks")
    assert sorted(file.name for file in (tmp_path / "two" / "extracted").iterdir()) == ["Test", "Train", "Val"]
    # A second call neither unpacks nor decodes again.
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "two").rglob("*.png")}
    assert prepare(tmp_path / "card.yaml", tmp_path / "set", tmp_path / "two") == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "two").rglob("*.png")} == times


def test_flat_archives_of_one_set_keep_apart(tmp_path):
    """The label archive of Vaihingen holds files of the images' own names."""
    truth = public_sets.plant_vaihingen(tmp_path / "set")
    labels = tmp_path / "set" / "labels"
    labels.mkdir()
    for file in list((tmp_path / "set").glob("*.tif")):
        file.rename(labels / file.name)
    names = list(load_card("isprs-vaihingen").archives)
    with zipfile.ZipFile(tmp_path / "set" / names[1], "w") as complete:
        for file in sorted(labels.iterdir()):
            complete.write(file, file.name)
    shutil.rmtree(labels)
    with zipfile.ZipFile(tmp_path / "set" / names[0], "w") as images:
        for folder in ("top", "gts_for_participants", "dsm"):
            for file in sorted((tmp_path / "set" / folder).iterdir()):
                images.write(file, f"{folder}/{file.name}")
            shutil.rmtree(tmp_path / "set" / folder)
    tree = load_card("isprs-vaihingen").model_dump(mode="json", exclude_defaults=True) | {"archives": {name: {} for name in names}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert prepare(tmp_path / "card.yaml", tmp_path / "set", tmp_path / "out") == 0
    catalog = Catalog.open(tmp_path / "out" / "catalog.parquet")
    assert catalog.counts("split") == {"train": 16, "test": 17}
    for tile in catalog.tiles():
        np.testing.assert_array_equal(read_label(tile.label), truth[tile.tile_id.split("/")[1].removesuffix("_r0_c0")])


def test_what_lies_there_unpacked_is_not_unpacked_again(tmp_path):
    public_sets.plant_loveda(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set" / "Train.zip", "w") as file:
        for item in sorted((tmp_path / "set" / "Train").rglob("*.png")):
            file.write(item, item.relative_to(tmp_path / "set"))
    assert prepare(card_of(tmp_path, **{"Train.zip": {}}), tmp_path / "set", tmp_path / "out") == 0
    assert not (tmp_path / "out" / "extracted").exists()
    # One file too short: the archive's is taken, and the folder stays as it is.
    short = next((tmp_path / "set" / "Train" / "Rural" / "images_png").iterdir())
    short.write_bytes(b"cut")
    assert prepare(tmp_path / "card.yaml", tmp_path / "set", tmp_path / "out") == 0
    assert (tmp_path / "out" / "extracted" / "Train" / "Train").is_dir()
    assert short.read_bytes() == b"cut"


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_archive_that_was_published_anew_is_unpacked_anew(suffix, tmp_path):
    target = tmp_path / "out" / "a"
    for number in (1, 2, 1):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / "mask.png").write_bytes(bytes([number]) * 1000)
        os.utime(tmp_path / "set" / "mask.png", (1e9 + number, 1e9 + number))
        archive = pack(tmp_path / "set", tmp_path / f"a{suffix}")
        unpack(archive, (), target)
        found = next(target.rglob("mask.png"))
        assert found.read_bytes() == bytes([number]) * 1000
    before = found.stat().st_ino, found.stat().st_mtime_ns
    unpack(archive, (), target)
    assert before == (found.stat().st_ino, found.stat().st_mtime_ns)


def test_wrong_checksum_is_refused(tmp_path, capsys):
    public_sets.plant_loveda(tmp_path / "set")
    file = pack(tmp_path / "set" / "Train", tmp_path / "set" / "Train.zip")
    before = tree(tmp_path)
    for kind, digits in (("md5", 32), ("sha256", 64)):
        assert prepare(card_of(tmp_path, **{"Train.zip": {kind: "0" * digits}}), tmp_path / "set", tmp_path / "out") == 1
        err = capsys.readouterr().err
        assert f"Train.zip: {kind} is {hashlib.new(kind, file.read_bytes()).hexdigest()}, expected {'0' * digits}" in err
        assert tree(tmp_path) == sorted([*before, "card.yaml"])


def zip_with(path: Path, name: str, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good.txt", "x")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        file.writestr(info, "/etc/passwd")
    return path


def tar_with(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        info.size = 1 if kind == tarfile.REGTYPE else 0
        file.addfile(info, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda path: zip_with(path, "../escape.txt"),
        lambda path: zip_with(path, "a/../../escape.txt"),
        lambda path: zip_with(path, "/escape.txt"),
        lambda path: zip_with(path, "C:/escape.txt"),
        lambda path: zip_with(path, "link", 0o120777),
        lambda path: zip_with(path, "good.txt"),
        lambda path: tar_with(path, "../escape.txt"),
        lambda path: tar_with(path, "/escape.txt"),
        lambda path: tar_with(path, "link", tarfile.SYMTYPE),
        lambda path: tar_with(path, "link", tarfile.LNKTYPE),
        lambda path: tar_with(path, "pipe", tarfile.FIFOTYPE),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_dangerous_archives_are_refused_before_anything_is_written(make, tmp_path):
    path = make(tmp_path / "evil.zip")
    with pytest.raises(DataError, match=r"evil\.zip: .*(outside of the folder|link or special file|holds 'good\.txt' twice)"):
        unpack(path, (), tmp_path / "deep" / "out")
    assert tree(tmp_path) == ["evil.zip"]


@pytest.mark.parametrize("kind", ["text", "cut zip", "cut tar", "damaged zip", "encrypted"])
def test_damaged_archives_are_named(kind, tmp_path):
    path = tmp_path / ("a.tar.gz" if kind == "cut tar" else "a.zip")
    public_sets.plant_pairs(tmp_path / "set")
    pack(tmp_path / "set", path)
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("text")
    elif kind.startswith("cut"):
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "damaged zip":
        place = whole.index(b"\xff\xd8") + 200
        path.write_bytes(whole[:place] + bytes(20) + whole[place + 20 :])
    else:
        # Bit 0 of the flags, in the directory and before the file.
        for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
            place = whole.rindex(mark) + offset
            whole = whole[:place] + b"\x01" + whole[place + 1 :]
        path.write_bytes(whole)
    with pytest.raises(UnreadableFileError, match=r"a\.(zip|tar\.gz): (truncated, damaged or encrypted|neither a zip nor a tar)"):
        unpack(path, (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stopped_unpacking_goes_on(tmp_path, monkeypatch):
    public_sets.plant_pairs(tmp_path / "set", count=8)
    expected = contents(tmp_path)
    path = pack(tmp_path / "set", tmp_path / "a.zip")
    written: list[str] = []
    plain = archives._write

    def stop_at_fifth(stream, target, member, archive):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(member.name)
        plain(stream, target, member, archive)

    monkeypatch.setattr(archives, "_write", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        unpack(path, (), tmp_path / "out" / "a")
    assert not (tmp_path / "out" / "a").exists()
    (tmp_path / "out" / ".a.7.part").mkdir()
    monkeypatch.setattr(archives, "_write", lambda *words: (written.append(words[2].name), plain(*words)))
    assert unpack(path, (), tmp_path / "out" / "a") == tmp_path / "out" / "a"
    assert len(written) == len(set(written)) == len(expected)
    found = contents(tmp_path / "out" / "a")
    assert found.pop(archives.VERSION_FILE)
    assert found == expected
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a"]


def test_no_room_is_said_before_unpacking(tmp_path, monkeypatch):
    public_sets.plant_pairs(tmp_path / "set")
    path = pack(tmp_path / "set", tmp_path / "a.zip")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(TilthError, match=r"a\.zip: unpacked it takes .* GB, .* has 0\.0 GB free; choose another --out"):
        unpack(path, (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_are_named_after_archives():
    assert [folder_name(name) for name in ("a.zip", "b.tar.gz", "c.TGZ", "d.1.tar", "e")] == ["a", "b", "c", "d.1", "e"]
