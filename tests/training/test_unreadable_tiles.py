"""Tiles that cannot be read: told once, passed over, and too many of them end the run."""

from __future__ import annotations

import json

import pytest

from support.training_sample import catalog_of, make_rows, make_trainer, metrics
from tilth.errors import RunError
from tilth.training.checkpoint import load_checkpoint


def spoilt_catalogs(folder, labelled: int, pool: int):
    """Six labelled tiles and twelve of a pool, of which some went bad."""
    made = catalog_of(make_rows(folder, "lab", 6, split="train")), catalog_of(make_rows(folder, "pool", 12, split=None, labelled=False))
    for name, count in (("lab", labelled), ("pool", pool)):
        for index in range(count):
            (folder / f"{name}{2 * index}.png").write_bytes(b"no image")
    return made


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_tiles_are_reported_once_and_the_run_goes_on(tmp_path, workers):
    made = spoilt_catalogs(tmp_path, labelled=1, pool=3)
    # Three of the pool and one labelled tile are within a quarter of each, though four are more than a quarter of six.
    loop = {"steps": 8, "batch_size": 4, "max_bad_share": 0.25, "workers": workers, "checkpoint_every": 8}
    trainer, recorder = make_trainer(tmp_path / "run", loop, catalogs=made)
    assert sorted(trainer.fit().bad_tiles) == ["lab/0", "pool/0", "pool/2", "pool/4"]
    assert len(recorder.warnings) == 4
    assert metrics(tmp_path / "run")[-1]["bad_tiles"] == 4
    finished = json.loads((tmp_path / "run" / "finished.json").read_text())
    assert "lab0.png" in finished["bad_tiles"]["lab/0"]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")["bad_tiles"]["labelled"].keys() == {"lab/0"}


@pytest.mark.parametrize(("labelled", "pool", "share"), [(2, 0, 0.16), (0, 4, 0.25), (1, 0, 0)])
def test_too_many_unreadable_tiles_stop_the_run(tmp_path, labelled, pool, share):
    made = spoilt_catalogs(tmp_path, labelled, pool)
    trainer, _ = make_trainer(tmp_path / "run", {"steps": 30, "batch_size": 4, "max_bad_share": share}, catalogs=made)
    with pytest.raises(RunError, match=r"tiles? cannot be read, more than loop\.max_bad_share allows; the last: .*\.png") as caught:
        trainer.fit()
    assert len(str(caught.value).splitlines()) == 1
