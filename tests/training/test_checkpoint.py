from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from support.training_sample import tiny_model
from tilth.errors import OutputExistsError, RunError, UnreadableFileError
from tilth.training.average import Average
from tilth.training.checkpoint import load_checkpoint, save_checkpoint
from tilth.training.config import LoopConfig
from tilth.training.run import Run


def same(found, wanted) -> bool:
    if isinstance(wanted, torch.Tensor):
        return found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(same(a, b) for a, b in zip(found, wanted, strict=True))
    return type(found) is type(wanted) and found == wanted


def test_nested_state_comes_back_as_it_was(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "model": {"a.weight": torch.randn(2, 3), "half": torch.randn(3).bfloat16(), "count": torch.tensor(7), "empty": torch.zeros(0, 2)},
        "optimiser": {
            "state": {0: {"step": torch.tensor(1.0)}, 10: {"step": torch.tensor(2.0)}},
            "groups": [{"lr": 0.1, "params": [0, 1]}],
        },
        "twice": [shared, shared, shared[2:4], shared.view(2, 3).t()],
        "a/b": {"c": torch.tensor(1)},
        "a": {"b/c": torch.tensor(2), "list": [], "map": {}},
        "flag": True,
        "nothing": None,
        "bits": torch.tensor([True, False]),
        "text": "__tensor__",
        "number": 1e-30,
        "large": 2**60,
    }
    save_checkpoint(tmp_path / "x.safetensors", state)
    assert same(load_checkpoint(tmp_path / "x.safetensors"), state)


def test_optimiser_state_comes_back(tmp_path):
    model = tiny_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    save_checkpoint(tmp_path / "x.safetensors", {"optimiser": optimiser.state_dict()})
    other = torch.optim.AdamW(copy.deepcopy(model).parameters(), lr=0.5)
    other.load_state_dict(load_checkpoint(tmp_path / "x.safetensors")["optimiser"])
    assert same(json.loads(json.dumps(other.state_dict()["param_groups"])), json.loads(json.dumps(optimiser.state_dict()["param_groups"])))
    assert same(other.state_dict()["state"], optimiser.state_dict()["state"])


def test_file_is_plain_safetensors_and_replaced_in_one_go(tmp_path):
    file = tmp_path / "deep" / "x.safetensors"
    save_checkpoint(file, {"a": torch.ones(3)})
    with safe_open(file, framework="pt") as opened:
        assert len(list(opened.keys())) == 1
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(file, {"a": torch.ones(4), "b": object()})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["x.safetensors"]


def test_damaged_and_newer_files_are_refused_by_name(tmp_path):
    file = tmp_path / "x.safetensors"
    save_checkpoint(file, {"a": torch.ones(300)})
    whole = file.read_bytes()
    for damaged in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], b"\xff" * 40, whole.replace(b'[[\\"a\\"', b'[[\\"a"\\')):
        file.write_bytes(damaged)
        with pytest.raises(UnreadableFileError, match="damaged checkpoint") as caught:
            load_checkpoint(file)
        assert str(file) in str(caught.value)
    for version, state in (("2", "{}"), ("later", "{}"), (None, None)):
        save_file({"a": torch.ones(1)}, file, metadata={} if version is None else {"version": version, "state": state})
        with pytest.raises(UnreadableFileError):
            load_checkpoint(file)
    save_file({"a": torch.ones(1)}, file, metadata={"version": "2", "state": "{}"})
    with pytest.raises(UnreadableFileError, match="checkpoint version 2, this tilth reads 1"):
        load_checkpoint(file)


def test_average_follows_the_closed_form():
    model = tiny_model()
    average = Average(model, 0.7)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    name = next(iter(dict(model.named_parameters())))
    wanted = model.state_dict()[name].clone().double()
    for step in range(40):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1)
        average.update(model, step)
        decay = min(0.7, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * model.state_dict()[name]
        torch.testing.assert_close(average.model.state_dict()[name].double(), wanted, rtol=1e-5, atol=1e-5)
    counters = [key for key in model.state_dict() if key.endswith("num_batches_tracked")]
    assert counters
    assert all(average.model.state_dict()[key] == model.state_dict()[key] == 40 for key in counters)


RECIPE = {"loop": {"steps": 5, "workers": 0, "schedule": {"kind": "cosine"}}, "out": "a", "resume": False}
DATA = {"streams": {"labelled": {"fingerprint": "x"}, "unlabelled": {"fingerprint": "y"}}}


def test_run_may_be_resumed_with_the_same_recipe_and_data_only(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(RunError, match="start without --resume"):
        run.resume(RECIPE, DATA, frozenset())
    run.start(RECIPE, DATA)
    save_checkpoint(run.checkpoint, {})
    left = run.checkpoint.with_name(".last.77-0.safetensors")
    left.write_text("half")
    run.resume(RECIPE | {"out": "b", "resume": True, "loop": RECIPE["loop"] | {"workers": 3}}, DATA, frozenset({"workers"}))
    assert not left.exists()
    with pytest.raises(RunError, match=r"loop.schedule.kind \(cosine -> poly\)"):
        run.resume({"loop": RECIPE["loop"] | {"schedule": {"kind": "poly"}}}, DATA, frozenset())
    with pytest.raises(RunError, match="data of unlabelled changed"):
        run.resume(RECIPE, {"streams": DATA["streams"] | {"unlabelled": {"fingerprint": "z"}}}, frozenset())
    with pytest.raises(OutputExistsError, match="can be continued with --resume"):
        run.start(RECIPE, DATA)


def test_run_begun_before_there_was_an_option_may_be_resumed_where_the_option_changes_nothing(tmp_path):
    run = Run(tmp_path / "run")
    run.start(RECIPE, DATA)
    save_checkpoint(run.checkpoint, {})
    now = LoopConfig(steps=5).model_dump(mode="json")
    run.resume(RECIPE | {"loop": now}, DATA, frozenset())
    with pytest.raises(RunError, match=r"loop.transfer.encoder_rate \(1.0 -> 0.5\)"):
        run.resume(RECIPE | {"loop": now | {"transfer": now["transfer"] | {"encoder_rate": 0.5}}}, DATA, frozenset())


def test_rewinding_drops_later_and_torn_lines(tmp_path):
    run = Run(tmp_path)
    for step in (1, 2, 3, 4):
        run.log({"step": step, "loss": step / 3})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    run.rewind(2)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 0.3333333},
        {"step": 2, "loss": 0.6666667},
    ]
