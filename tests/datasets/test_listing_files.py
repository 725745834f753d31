"""Listing files of a data set: what they leave out is told, and long ones cost little."""

import time
from types import SimpleNamespace

import pytest

from support import public_pools
from tilth.datasets.membership import assign_splits
from tilth.datasets.options import PrepareConfig
from tilth.datasets.prepare import prepare_dataset
from tilth.datasets.shelf import load_card
from tilth.errors import DataError


def test_a_list_that_is_missing_does_not_make_a_pool_of_its_images(tmp_path):
    public_pools.plant_voc(tmp_path / "set")
    config = PrepareConfig(name="voc2012", folder=tmp_path / "set")
    file = tmp_path / "set" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    for spoil in (lambda: file.write_text("\r\n"), file.unlink):
        spoil()
        with pytest.raises(DataError, match=r"val.txt: no image listed for split 'val'"):
            prepare_dataset(config, tmp_path / "out")
    lines: list[str] = []
    prepare_dataset(config.model_copy(update={"partial": True}), tmp_path / "out", warn=lines.append)
    assert [line for line in lines if "no image listed for split 'val'" in line]


def test_long_lists_are_looked_up_in_linear_time(tmp_path):
    """One by one, 20,000 names take ten seconds and more, and a million hours."""
    card = load_card("openearthmap")
    names = [f"town_{number}" for number in range(20_000)]
    for split, listed in {"train": names[::2], "val": names[1::2], "test": ["town"]}.items():
        (tmp_path / f"{split}.txt").write_text("".join(f"{name}.tif\n" for name in listed))
    images = [SimpleNamespace(path=f"{name}.tif", values={"stem": name}) for name in names]
    start = time.process_time()
    splits = assign_splits(card, card.layers[0], images, tmp_path, partial=True, warn=lambda line: None)
    assert time.process_time() - start < 2
    assert splits == ["train", "val"] * 10_000
