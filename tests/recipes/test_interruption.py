"""A recipe that is killed in a training goes on by itself, to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import tilth
from support.tiny_farm import TRAINING, plant
from tilth.errors import OutputExistsError

STEPS = 12
LOOP = TRAINING["loop"] | {"steps": STEPS, "checkpoint_every": 1, "validate_every": 1000}
OPTIONS = TRAINING | {"task": "segment", "labelled": ["catalog.parquet"], "out": "${out}/run", "loop": LOOP}
RECIPE = {"name": "r", "description": "d", "stages": [{"name": "train", "verb": "finetune", "options": OPTIONS}]}

# A pause in every step, so that a signal meets the training and not its end.
SLOW = """
import sys, time
from tilth.methods.supervised import METHOD
step = METHOD.step
METHOD.step = lambda *words: (time.sleep(0.15), step(*words))[1]
from tilth.cli.main import main
sys.exit(main(["run", "recipe.yaml", "--out", sys.argv[1]]))
"""


def start(folder: Path, out: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SLOW, out], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for_step(process: subprocess.Popen, metrics: Path, wanted: int) -> None:
    while process.poll() is None:
        if metrics.is_file() and metrics.read_text().count("\n") >= wanted:
            return
        time.sleep(0.02)
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plant(tmp_path_factory.mktemp("field"))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_training_goes_on_to_the_same_bytes(field, number, monkeypatch):
    monkeypatch.chdir(field)
    if not Path("whole").exists():
        assert tilth.run(recipe="recipe.yaml", out="whole").values["done"] == ["train"]
    out = number.name.lower()
    process = start(field, out)
    wait_for_step(process, field / out / "run" / "metrics.jsonl", 3)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        last = err.splitlines()[-1]
        assert last.startswith("tilth: error: stage 'train' stopped after step ")
        assert last.endswith(f"of {STEPS}; the same command goes on from there")
    lines = tilth.run(recipe="recipe.yaml", out=out, dry_run=True).summary
    assert lines == ("train: tilth finetune - to do (it did not come to its end)",)
    # With other settings it is neither gone on with nor replaced.
    Path("other.yaml").write_text(yaml.safe_dump(RECIPE).replace(f"steps: {STEPS}", "steps: 20"))
    with pytest.raises(OutputExistsError, match=rf"{out}/run \(loop.steps {STEPS} -> 20\); remove the folder to train anew"):
        tilth.run(recipe="other.yaml", out=out)
    assert tilth.run(recipe="recipe.yaml", out=out).values["done"] == ["train"]
    whole, pieces = (Path(place, "run", "model", "model.safetensors").read_bytes() for place in ("whole", out))
    assert whole == pieces
    assert tilth.run(recipe="recipe.yaml", out=out).values["done"] == []
