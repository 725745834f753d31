"""CromSS trains like every method: killed and resumed with the same bytes, in two processes as in one, and its branches are trained on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from support.cromss_method import scheme
from support.resuming import check_same, run_two, stop_after
from support.training_sample import SCHEME, metrics, words
from tilth.errors import SensorMismatchError, UsageError
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.models.fused import branch_segmenter
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor
from tilth.verbs.train_model import starting_model
from tilth.verbs.train_options import FinetuneOptions

BOTH = get_sensor("s1+s2_l2a_9")
OWN = [
    "network.fusion.kind=mid",
    "network.fusion.branches={warm: [red], cold: [green, blue]}",
    "settings.ramp_steps=4",
    "loop.steps=8",
    "loop.checkpoint_every=2",
    "loop.validate_every=8",
    "loop.average_decay=null",
]


def command(data: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    """Two groups of bands of one sensor are two modalities, too."""
    built = words(*data, out, *OWN, *more)
    place = built.index("--unlabelled")
    return ["pretrain", "cromss", *(word for word in built[2:place] + built[place + 2 :] if not word.startswith("settings.threshold"))]


def test_killed_and_resumed_it_leaves_the_same_bytes(server, data, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert server.run(command(data, whole), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert stop_after(server, command(data, run), run, 3, signal.SIGKILL) != 0
    assert server.run(command(data, run, "--resume"), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    check_same(run, whole)
    lines = [line for line in metrics(whole) if line["kind"] == "train"]
    # 8 steps of which 4 are the ramp: at first nearly all is selected, at last half of each class.
    assert [lines[place][f"selected_warm/{index}"] > bound for place, bound in ((0, 0.9), (-1, 0.45)) for index in range(3)] == [True] * 6
    assert lines[-1]["selected_warm/0"] < 0.7


@pytest.mark.slow
def test_two_processes_select_what_one_does(server, data, tmp_path):
    # Dice is a loss of a whole batch, so of the batch of each process.
    short = ["loop.steps=4", "loop.learning_rate=0.0003", "loop.denominator=global", "settings.terms=c"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert server.run(command(data, one, *short), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    run_two(server, command(data, two, *short, "loop.devices=2"), tmp_path / "log")
    first, second = ([line for line in metrics(run) if line["kind"] == "train"] for run in (one, two))
    for left, right in zip(first, second, strict=True):
        for name in ("loss", "loss_warm", "loss_cold", "loss_warm_consistency", "selected_warm/0", "selected_cold/2", "agreement"):
            assert right[name] == pytest.approx(left[name], rel=1e-4, abs=1e-6), (left["step"], name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    network = NetworkConfig(name="cromss_unet_resnet50", options={"encoder": "resnet18"}, fusion=FusionConfig())
    model = build_segmenter(network, BOTH, SCHEME)
    folder = tmp_path_factory.mktemp("run")
    model.save(folder / "model")
    return folder, model.eval()


def options(folder: Path, take: str | None, **more) -> FinetuneOptions:
    return FinetuneOptions(task="segment", labelled=(Path("x.parquet"),), out=Path("out"), initial_weights=folder, take=take, **more)


def same(left: Segmenter, right: Segmenter, image: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(left.eval()(image), right.eval()(image))


def test_one_modality_is_trained_on_with_or_without_its_decoder(trained):
    folder, model = trained
    image = torch.randn(1, 9, 32, 32)
    optical = get_sensor("s2_l2a_9")
    alone = branch_segmenter(model, "s2")
    start = starting_model(options(folder, "s2"), optical, SCHEME)
    assert same(start.model, alone, image)
    assert start.model.sensor == optical
    assert start.origin is not None
    others = starting_model(options(folder, "s2"), optical, scheme(5)).model
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(others.eval().encode(image), alone.encode(image), strict=True))
    wanted = NetworkConfig(name="cromss_fpn_resnet50", options={"encoder": "resnet18"})
    fresh = starting_model(options(folder, "s2:encoder", network=wanted), optical, SCHEME).model
    with torch.no_grad():
        for left, right in zip(fresh.eval().encode(image), alone.encode(image), strict=True):
            assert torch.equal(left, right)


def test_all_modalities_are_trained_on_together(trained):
    folder, model = trained
    start = starting_model(options(folder, None), BOTH, SCHEME)
    assert same(start.model, model, torch.randn(1, 11, 32, 32))


@pytest.mark.parametrize(
    "wanted",
    [
        NetworkConfig(name="cromss_fpn_resnet50", options={"encoder": "resnet18"}, fusion=FusionConfig(kind="late")),
        NetworkConfig(encoder="resnet18", decoder="upernet", fusion=FusionConfig()),
    ],
    ids=["fpn", "upernet"],
)
def test_encoders_of_all_modalities_go_under_other_decoders_together(trained, wanted):
    """Joint transfer, which the published program does not have."""
    folder, model = trained
    image = torch.randn(1, 11, 32, 32)
    start = starting_model(options(folder, "encoder", network=wanted), BOTH, scheme(5))
    with torch.no_grad():
        # The images themselves may or may not be among the maps.
        left, right = ([item for item in one.eval().encode(image) if item.shape[1] > 11] for one in (start.model, model))
        assert len(left) == len(right)
        for pair in zip(left, right, strict=True):
            torch.testing.assert_close(*pair)
        assert start.model(image).shape == (1, 5, 32, 32)


def test_decoder_of_one_modality_is_taken_block_by_block(trained):
    folder, model = trained
    alone = branch_segmenter(model, "s1").network.state_dict()
    for part, count in (("de1", 1), ("de4", 4), ("wocls", 5)):
        found = starting_model(options(folder, f"s1:{part}"), get_sensor("s1"), scheme(5)).model.network.state_dict()
        weights = [name for name in found if name.startswith("decoder.") and name.endswith("0.weight") and found[name].ndim == 4]
        same = {name.split(".")[2] for name in weights if torch.equal(found[name], alone[name])}
        assert same == {str(place) for place in range(count)}, part


def test_what_cannot_be_taken_is_refused_in_one_line(trained):
    folder, _ = trained
    for take, sensor, said, kind in (
        ("s3", "s1", "no branch 's3'", UsageError),
        ("s2", "s1", "model has bands B02", SensorMismatchError),
        ("s1:head", "s1", "no 'head'", UsageError),
        ("s3:de1", "s1", "no branch 's3'", UsageError),
        (None, "s1", "a model for sensor 's1\\+s2_l2a_9'.*; take=s1:encoder takes the encoder of its branch s1", SensorMismatchError),
        (None, "s2_l2a_9", "take=s2_l2a_9:encoder takes .*, take=s2_l2a_9 all of it$", SensorMismatchError),
        (None, "rgb", "the catalog red, green, blue$", SensorMismatchError),
    ):
        with pytest.raises(kind, match=said) as caught:
            starting_model(options(folder, take), get_sensor(sensor), SCHEME)
        assert "\n" not in str(caught.value)
    other = NetworkConfig(name="cromss_fpn_resnet50", options={"encoder": "resnet18"})
    with pytest.raises(UsageError, match=r"take=s1:de1: wants decoder\.blocks\.0\.") as caught:
        starting_model(options(folder, "s1:de1", network=other), get_sensor("s1"), SCHEME)
    assert "\n" not in str(caught.value)
    wrong = NetworkConfig(encoder="test_byobnet", options={"decoder_channels": [8] * 5})
    with pytest.raises(UsageError, match=r"its encoder \(cromss_unet_resnet50\) is not that of test_byobnet") as caught:
        starting_model(options(folder, "s1:encoder", network=wrong), get_sensor("s1"), SCHEME)
    assert "\n" not in str(caught.value)
