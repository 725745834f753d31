"""What all tests of networks share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_draws():
    """Draw the same images and weights in every run: a tolerance holds always or never."""
    torch.manual_seed(0)
