"""Data for wrong calls, planted once."""

from pathlib import Path

import pytest
import torch

from support import bad_data


@pytest.fixture(scope="session")
def weeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data as they should not be; see :mod:`support.bad_data`."""
    torch.set_num_threads(1)
    return bad_data.plant(tmp_path_factory.mktemp("weeds"))
