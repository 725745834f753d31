"""What a training would take, said before it, against what it takes."""

import functools
import json
from pathlib import Path

import pytest
import torch

import tilth
from support.tiny_farm import TRAINING, plant, tree
from tilth.classes import ClassScheme, LandClass
from tilth.errors import ConfigError
from tilth.methods.base import build_method
from tilth.models.config import NetworkConfig
from tilth.models.segmenter import build_segmenter
from tilth.training.config import LoopConfig
from tilth.training.estimate import _batch, _Counter, estimate_step
from tilth.training.rates import Rates, measure_rates

SENSOR = tilth.get_sensor("rgb")
SCHEME = ClassScheme(name="s", classes=tuple(LandClass(name=f"c{index}", colour=(index, 0, 0)) for index in range(5)))
VIT = NetworkConfig(name="upernet_vit_b", image_size=64, options={"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8})
RESNET = NetworkConfig.parse(TRAINING["network"])


@functools.cache
def _cost(method, network, size, settings, loop):
    options = LoopConfig(**{"batch_size": 4} | json.loads(loop))
    return estimate_step(method, json.loads(settings), NetworkConfig.model_validate_json(network), SENSOR, SCHEME, options, size)


def cost(method="supervised", network=RESNET, size=64, settings=None, **loop):
    return _cost(method, network.model_dump_json(), size, json.dumps(settings or {}), json.dumps(loop))


def counted(method_name: str, network: NetworkConfig, size: int, settings: dict) -> tuple[int, int]:
    """Bytes that live at once, and those of weights, in a real step: every tensor that it makes is watched."""
    model = build_segmenter(network, SENSOR, SCHEME, 0)
    method = build_method(method_name, settings, model, 0)
    method.trained.train()
    batches = {name: _batch(name, stream, 4, 3, size) for name, stream in method.streams.items()}
    for batch in batches.values():
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.fill_(1)

    class Watch(_Counter):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            for item in torch.utils._pytree.tree_iter(found):
                if isinstance(item, torch.Tensor):
                    self.note(item)
            return found

    watch = Watch(None)
    for tensor in [*method.trained.parameters(), *method.trained.buffers()]:
        watch.note(tensor)
    weights = watch.live
    for batch in batches.values():
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                watch.note(value)
    with watch:
        method.step(batches, 0).total.backward()
    return watch.peak, weights


@pytest.mark.parametrize(
    ("method", "network", "settings"),
    [
        ("s4p", RESNET, {}),
        pytest.param("supervised", RESNET, {}, marks=pytest.mark.slow),
        pytest.param("s4p", VIT, {"variant": "unimatch"}, marks=pytest.mark.slow),
        pytest.param("s4p", RESNET, {"variant": "corrmatch"}, marks=pytest.mark.slow),
        pytest.param("s4p", RESNET, {"variant": "wscl"}, marks=pytest.mark.slow),
        pytest.param("sep", VIT, {"confidence_weighting": "linear"}, marks=pytest.mark.slow),
        pytest.param("mae", VIT, {"decoder_width": 16, "decoder_heads": 2}, marks=pytest.mark.slow),
    ],
)
def test_memory_of_a_step_is_that_of_the_tensors_that_a_real_one_makes(method, network, settings):
    told = cost(method, network, settings=settings)
    peak, weights = counted(method, network, 64, settings)
    assert told.weights == weights
    # Kernels may make what they work with in another way than they say; the share is small.
    assert told.weights + told.batches + told.activations == pytest.approx(peak, rel=0.05)
    assert told.peak >= told.weights + told.batches + told.activations + told.optimiser


@pytest.mark.slow
def test_parts_follow_the_settings():
    plain, shared = cost(network=VIT, size=128), cost(network=VIT, size=128, devices=2, average_decay=0.9)
    count = sum(item.numel() for item in build_segmenter(VIT, SENSOR, SCHEME, 0).parameters() if item.requires_grad)
    assert (plain.parameters, plain.optimiser, plain.average) == (count, 8 * count, 0)
    assert plain.gradients == 4 * count
    assert (shared.average, shared.gradients) == (plain.weights, 2 * plain.gradients)
    assert shared.activations == pytest.approx(plain.activations / 2, rel=0.1)


@pytest.mark.slow
def test_accumulation_and_precision_spare_activations_and_no_operations():
    plain, halves = cost(network=VIT, size=128), cost(network=VIT, size=128, accumulate=2)
    assert halves.operations == plain.operations
    assert halves.activations == pytest.approx(plain.activations / 2, rel=0.1)
    assert cost(network=VIT, size=128, precision="bf16-mixed").activations < 0.85 * plain.activations


@pytest.mark.slow
def test_checkpointing_spares_memory_and_costs_operations():
    plain, spared = (cost("s4p", VIT, size=128, checkpointing=on) for on in (False, True))
    assert spared.activations < 0.9 * plain.activations
    assert plain.operations < spared.operations < 1.4 * plain.operations


@pytest.mark.slow
def test_operations_are_those_of_the_closed_form():
    """Four more layers: their linear maps forwards and for two gradients each, and attention."""
    one = VIT
    two = one.model_copy(update={"options": one.options | {"depth": 8, "taps": (3, 4, 5, 7)}})
    more = cost(network=two).products - cost(network=one).products
    tokens, width, layers = 4 * 16, 24, 4
    linear = 2 * tokens * width * width * (4 + 8) * 3
    # Softmax attention: two products of all pairs forwards; the fused backward pass makes five of them.
    attention = 2 * 2 * 4 * 16 * 16 * width + 5 * 2 * 4 * 16 * 16 * width
    assert more == layers * (linear + attention)


def test_time_is_work_over_speed():
    rates = Rates(convolutions=1e9, products=2e9, moved=None)
    told = cost(network=VIT)
    assert rates.seconds(told) == pytest.approx(told.convolutions / 1e9 + told.products / 2e9)


def test_measured_speed_is_one_that_a_machine_can_have():
    rates = measure_rates(torch.device("cpu"))
    assert 1e8 < rates.convolutions < 1e14
    assert 1e8 < rates.products < 1e14
    assert 1e8 < rates.moved < 1e13
    assert rates.call < 1e-2


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("field"))


def catalogs_of(field):
    return {"labelled": [field / "catalog.parquet"], "labelled_tiles": 4, "unlabelled": [field / "catalog.parquet"]}


def test_dry_run_tells_tiles_passes_and_steps_and_writes_nothing(field):
    before = tree(field)
    options = TRAINING | {"speed": {"tflops": 0.01}}
    catalogs = catalogs_of(field)
    found = tilth.pretrain(method="s4p", **catalogs, out=field / "run", dry_run=True, **options)
    assert tree(field) == before
    tiles = found.values["tiles"]
    real = tilth.pretrain(method="s4p", **catalogs, out=field / "run", **TRAINING)
    streams = json.loads((real.outputs["run"] / "data.json").read_text())["streams"]
    assert tiles == {name: streams[name]["tiles"] for name in ("labelled", "unlabelled")}
    assert found.values["passes"]["unlabelled"] == 2 * 2 / tiles["unlabelled"]
    assert found.values["parameters"] == json.loads((real.outputs["run"] / "finished.json").read_text())["parameters"]
    assert found.values["seconds"] == pytest.approx(2 * found.values["operations"] / 1e10)
    text = "\n".join(found.summary)
    for part in (
        "million parameters",
        "steps: 2 of 2 tiles",
        "passes over",
        "memory of each device",
        "at the speed given: 0.01 TFLOP/s",
        "not counted: reading",
    ):
        assert part in text
    # The network of the folder that the training would start from is the one that is counted.
    again = tilth.finetune(
        task="segment", labelled=catalogs["labelled"], out=field / "x", initial_weights=field / "run", dry_run=True, speed={"tflops": 1}
    )
    assert again.values["network"] == "resnet10t + unet"


def test_tiles_of_the_pool_are_always_the_same_and_more_hold_fewer(field):
    def pool(count):
        from tilth.verbs.train_data import choose_tiles
        from tilth.verbs.train_options import PretrainOptions

        options = PretrainOptions(
            method="s4p", labelled=(field / "catalog.parquet",), labelled_tiles=4, out=Path("x"), unlabelled_tiles=count
        )
        return set(choose_tiles(options, (field / "catalog.parquet",), ("train",)).pool.column("tile_id"))

    everything = pool(None)
    assert len(pool(2)) == 2
    assert pool(2) < pool(3) <= everything
    with pytest.raises(tilth.errors.CatalogError, match=r"unlabelled_tiles=99: the pool has only \d+ tiles; ask for fewer"):
        pool(99)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"speed": {"gigabytes_per_s": 3}}, "gigabytes_per_s is for a device whose tflops are given"),
        ({"settings": {"threshold": 7}}, "threshold"),
        ({"settings": {"teacher": "average"}}, "no average is kept"),
        ({"unlabelled": []}, "learns from unlabelled tiles, too"),
        ({"validation_split": None, "loop": TRAINING["loop"] | {"schedule": {"kind": "plateau"}}}, "waits for validation scores"),
    ],
)
def test_wrong_request_is_refused_in_a_dry_run_as_in_the_training(field, more, message):
    options = catalogs_of(field) | TRAINING | {"speed": {"tflops": 1}} | more
    with pytest.raises(ConfigError, match=message):
        tilth.pretrain(method="s4p", out=field / "y", dry_run=True, **options)
    assert not (field / "y").exists()
