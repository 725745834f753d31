"""One pool for all tests of labelling; see :mod:`support.curation_world`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.curation_world import make_model, plant
from support.labelling_calls import label
from tilth.models.segmenter import Segmenter


@pytest.fixture(scope="session")
def model() -> Segmenter:
    torch.set_num_threads(1)
    return make_model()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, model: Segmenter) -> Path:
    """``pool.parquet``, ``labelled.parquet`` and ``model/``; nothing in it is to be changed."""
    return plant(tmp_path_factory.mktemp("world"), model)


@pytest.fixture(scope="session")
def labelled(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels of the pool, those below 0.5 ignored; nothing in it is to be changed."""
    out = tmp_path_factory.mktemp("labelled") / "out"
    label(world, out, ignore_below=0.5)
    return out
