from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.prefork import Server
from support.training_sample import tiles_and_pool, write_catalogs
from tilth.catalog.table import Catalog


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_catalogs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, Catalog]:
    """Labelled tiles and a pool, in memory."""
    return tiles_and_pool(tmp_path_factory.mktemp("tiles"))
