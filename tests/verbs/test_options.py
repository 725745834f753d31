"""Options that several verbs share."""

import pytest

from tilth.errors import ConfigError, UsageError
from tilth.verbs.options import InferenceConfig, WindowConfig, pick_device


def test_windows_overlap_by_a_quarter_unless_told_otherwise():
    assert WindowConfig().overlap == 128
    assert WindowConfig(window=64).overlap == 16
    assert InferenceConfig.parse({"window": 100}).overlap == 25
    assert WindowConfig(window=64, overlap=0).overlap == 0


def test_overlap_must_be_smaller_than_the_window():
    with pytest.raises(ConfigError, match=r"^configuration: overlap \(64\) must be smaller than window \(64\), both in pixels$"):
        InferenceConfig.parse({"window": 64, "overlap": 64})
    with pytest.raises(ConfigError, match=r"overlap \(600\) must be smaller than window \(512\)"):
        InferenceConfig.parse({"overlap": 600})
    with pytest.raises(ConfigError, match="window") as caught:
        InferenceConfig.parse({"window": 8})
    assert "overlap" not in str(caught.value)


@pytest.mark.parametrize(("gpus", "found"), [(0, "cpu"), (2, "cuda")])
def test_device_is_picked_from_those_that_are_there(monkeypatch, gpus, found):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert pick_device("auto") == found
    assert pick_device("cpu") == "cpu"
    for name in ("cuda:2", "gpu", "mps", "cuda:", "") + (("cuda", "cuda:0") if not gpus else ()):
        with pytest.raises(UsageError, match=f"inference.device={name}: there is no such device here; choices: auto, cpu") as caught:
            pick_device(name)
        assert caught.value.exit_code == 2
    if gpus:
        assert [pick_device(name) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
