"""A prepare that is killed - while it unpacks, while it decodes - goes on to the same bytes, and leaves nothing half written."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from support import public_sets
from tilth.cli.main import main
from tilth.datasets import prepared_folder
from tilth.datasets.shelf import load_card
from tilth.imagery.files import folder_lock

# A pause after each file is written and before it takes its place, so that the signal meets a half written one.
SLOW = """
import sys, time
from pathlib import Path
from PIL import Image
save, replace = Image.Image.save, Path.replace
Image.Image.save = lambda *words, **more: (save(*words, **more), time.sleep(0.1))[0]
Path.replace = lambda *words: (time.sleep(0.03), replace(*words))[1]
from tilth.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoveDA in three archives, its card, and the outcome of an uninterrupted call."""
    root = tmp_path_factory.mktemp("field")
    public_sets.plant_loveda(root / "set", each=5)
    sums = {}
    for split in ("Train", "Val", "Test"):
        with zipfile.ZipFile(root / "set" / f"{split}.zip", "w") as file:
            for item in sorted((root / "set" / split).rglob("*.png")):
                file.write(item, item.relative_to(root / "set"))
                item.unlink()
        sums[f"{split}.zip"] = {"md5": hashlib.md5((root / "set" / f"{split}.zip").read_bytes()).hexdigest()}
    card = load_card("loveda").model_dump(mode="json", exclude_defaults=True) | {"archives": sums}
    (root / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    assert main(words(root, "whole")) == 0
    return root


def words(root: Path, out: str) -> list[str]:
    return ["datasets", "prepare", str(root / "card.yaml"), str(root / "set"), "--out", str(root / out)]


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder, hidden ones too, with the hash of its bytes."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "folder"
        for file in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("pattern", "count"),
    [(".Train.*.part/**/*.png", 6), ("extracted/Val/**/*.png", 1), ("masks/**/[0-9]*.png", 1), ("masks/**/[0-9]*.png", 12)],
    ids=["first archive", "later archive", "first mask", "later mask"],
)
def test_killed_prepare_goes_on_to_the_same_bytes(pattern, count, field):
    out = f"killed-{pattern.strip('.').partition('/')[0].split('.')[0]}-{count}"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words(field, out)], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    place = field / out / "extracted" if pattern.startswith(".") else field / out
    while process.poll() is None and len(list(place.glob(pattern))) < count:
        time.sleep(0.005)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (field / out / "catalog.parquet").exists()
    whole = contents(field / "whole")
    left = contents(field / out)
    assert left.items() != whole.items()
    # What carries its final name is whole already.
    assert all(whole[name] == sum_ for name, sum_ in left.items() if name in whole)
    assert main(words(field, out)) == 0
    assert contents(field / out) == whole


def test_two_calls_do_not_write_into_one_folder(field, capsys):
    (field / "taken").mkdir()
    with folder_lock(field / "taken", "preparing a data set in"):
        assert main(words(field, "taken")) == 1
        assert "another process is preparing a data set in it" in capsys.readouterr().err
        assert not any((field / "taken").iterdir())
    assert main(words(field, "taken")) == 0
    # A call that is refused takes nothing back.
    before = contents(field / "taken")
    with folder_lock(field / "taken", "preparing a data set in"):
        assert main(words(field, "taken")) == 1
    assert contents(field / "taken") == before


def test_what_a_running_process_writes_is_not_swept(tmp_path):
    (tmp_path / "masks").mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        written = [tmp_path / "masks" / f".x.{number}-0.png" for number in (process.pid, 2**22 + 5)]
        for file in written:
            file.write_bytes(b"half")
        prepared_folder.sweep(tmp_path)
        assert [file.exists() for file in written] == [True, False]
        process.stdin.close()
    prepared_folder.sweep(tmp_path)
    assert not written[0].exists()
