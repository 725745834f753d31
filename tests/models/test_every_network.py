"""What holds for every network by name; networks are small unless a test is marked slow."""

from __future__ import annotations

import copy
import functools
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.tiny_networks import OPTIONS, images_for, of_tensors, outputs, stirred, tiny_network
from tilth.classes import ClassScheme, LandClass
from tilth.errors import ConfigError
from tilth.models.by_name import available, create
from tilth.models.config import NetworkConfig
from tilth.models.folder import load_network, save_network
from tilth.models.named import NAMES
from tilth.models.network import set_checkpointing
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor
from tilth.training.optimiser import decays

SENSORS = {3: "rgb", 10: "s2_l2a_10", 13: "s2_l1c"}
LARGE = ("upernet_vit_b", "upernet_swin_t")
"""Of different making, for what takes too long for all."""

ALIKE = {
    *("upernet_vit_l", "upernet_vit_h", "upernet_vit_l_rvsa", "upernet_vit_l_moe", "upernet_vit_h_moe", "deeplabv3plus_resnet101"),
    *("ddpm_sr3_128", "cromss_mid2_resnet50", "cromss_late3_resnet50"),
}
"""Differ from another network in size or in the number of branches alone: the short suite leaves them out."""

EVERY = [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in NAMES]

PUBLISHED = {
    # s5_pretrain.md section 7: 16 classes, 512 px.
    "upernet_vit_b": 103_158_289,
    "upernet_vit_l": 327_427_345,
    "upernet_vit_h": 663_383_057,
    "upernet_vit_b_rvsa": 103_588_433,
    "upernet_vit_l_rvsa": 329_185_937,
    "upernet_swin_t": 36_747_211,
    "deeplabv3plus_resnet101": 59_466_800,
    # s5_finetune.md section 4: four data sets.
    "upernet_vit_b_moe": 160_402_206,
    "upernet_vit_l_moe": 435_012_126,
    "upernet_vit_h_moe": 824_451_358,
    # ddpm.md sections 4 and 5.
    "ddpm_sr3_64": 97_805_763,
    "ddpm_sr3_128": 391_048_067,
    "ddpm_guided_256": 552_814_086,
}
"""Numbers of parameters that are published or counted in published files."""

FROZEN = {
    # Published files hold these stages of the encoder; PSPNet looks at strides up to 8 only.
    "cromss_pspnet_resnet50": ("encoder.layer3.", "encoder.layer4."),
    # Sinusoids, which the published program does not train.
    "cromss_upernet_dofa_l": ("encoder.position_embedding", "encoder.class_position"),
    # What follows the first block at H/2, the last map of the noise predictor that is used.
    "ddpm_segmentor": ("encoder.unet.output.", *(f"encoder.unet.decoder.{place}." for place in range(7, 15))),
}
"""Parameters that do not train, besides those whose name begins with ``unused_``, with the reason."""

CAPTURED = [name for name in NAMES if name != "ddpm_segmentor"]
"""Networks that are one graph in evaluation; noise that belongs to a place is made outside of any."""

NO_CHECKPOINTING = {name for name in NAMES if name.startswith("cromss_") and name.endswith("_resnet50")}
"""ResNets of segmentation_models.pytorch keep their activations."""

SIZES = [(64, 64), (65, 97), (203, 70)]
"""Height and width; 1024 px are below."""


SIDES = {
    **{"upernet_vit": (16, 32), "upernet_swin": (4, 4), "deeplabv3plus": (4, 4), "ddpm_s": (16, 16), "ddpm_guided": (32, 32)},
    **{"cromss_pspnet": (8, 8), "cromss_deeplabv3plus": (16, 16), "cromss_upernet": (16, 16), "cromss_upernet_satmae": (8, 8)},
}
"""What sides are multiples of inside, and their least, by the beginning of names; 32 and 32 for all others."""


def stated_sides(name: str) -> tuple[int, int]:
    known = [start for start in SIDES if name.startswith(start)]
    return SIDES[max(known, key=len)] if known else (32, 32)


@functools.cache
def shared(name: str) -> nn.Module:
    """A network that no test changes."""
    return tiny_network(name)


@torch.no_grad()
def compute(name: str, network: nn.Module, images: tuple[Tensor, ...]) -> list[Tensor]:
    return outputs(name, network, images)


def wanted_channels(name: str, network: nn.Module) -> list[int]:
    match NAMES[name].kind:
        case "multi-task":
            return list(network.tasks.values())
        case "fusion":
            return [5] * len(network.branches)
        case "diffusion":
            return [6 if "guided" in name else 3]  # noise, and a variance of each where it is learned
    return [5]


def check_near(found: list[Tensor], wanted: list[Tensor], share: float) -> None:
    """Differences stay below a share of the spread."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert float((one.detach().float() - other).abs().max()) <= share * float(other.std())


def test_small_options_exist_for_every_network():
    assert set(OPTIONS) == set(NAMES)


def test_numbers_of_parameters_are_the_published_ones():
    counted = available()
    assert list(counted) == list(NAMES)
    assert {name: counted[name] for name in PUBLISHED} == PUBLISHED
    assert all(count > 1_000_000 for count in counted.values())


@pytest.mark.parametrize("name", EVERY)
def test_images_of_any_size_are_padded_and_cut_back(name):
    network = shared(name)
    divisor, least = stated_sides(name)
    for height, width in SIZES:
        images = images_for(name, height, width)
        found = compute(name, network, images)
        assert [tuple(one.shape) for one in found] == [(1, count, height, width) for count in wanted_channels(name, network)]
        assert all(torch.isfinite(one).all() and one.std() > 0 for one in found)
        bottom, right = (max(-(-side // divisor) * divisor, least) - side for side in (height, width))
        padded = tuple(nn.functional.pad(image, (0, right, 0, bottom), mode="replicate") if image.ndim == 4 else image for image in images)
        check_near([one[..., :height, :width] for one in compute(name, network, padded)], found, 0)


@pytest.mark.parametrize("name", EVERY)
def test_images_whose_sides_fit_are_not_padded(name, monkeypatch):
    padded, pad = [], nn.functional.pad
    monkeypatch.setattr(nn.functional, "pad", lambda *given, **named: padded.append(named.get("mode")) or pad(*given, **named))
    divisor, least = stated_sides(name)
    side = max(divisor, least)
    compute(name, shared(name), images_for(name, side, side + divisor))
    assert "replicate" not in padded
    compute(name, shared(name), images_for(name, side, side + 1))
    assert "replicate" in padded


@pytest.mark.parametrize("name", LARGE)
def test_large_images_work(name):
    check_large(name, [(1024, 1024)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_large_images_of_odd_sides_work(name):
    check_large(name, [(1024, 1024), (1023, 65)])


def check_large(name: str, sizes: list[tuple[int, int]]) -> None:
    for height, width in sizes:
        found = compute(name, shared(name), images_for(name, height, width))
        assert all(one.shape[-2:] == (height, width) and torch.isfinite(one).all() for one in found)


def backward(name: str, network: nn.Module, batch: int = 2, side: int = 64) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    torch.manual_seed(4)  # dropout
    found = outputs(name, network, images_for(name, side, side + 16, batch))
    torch.stack([(one * torch.randn(one.shape, generator=draw)).sum() for one in found]).sum().backward()
    return [one.detach() for one in found]


def kept_paths(name: str) -> dict[str, float]:
    """Options with which no branch is left out by chance: it would get no gradient."""
    return {"drop_path": 0.0} if name.startswith("upernet_") else {}


def check_gradients(name: str, network: nn.Module) -> None:
    idle = {key for key, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    frozen = {key for key, parameter in network.named_parameters() if not parameter.requires_grad}
    assert idle == frozen
    assert all(".unused_" in key or key.startswith(FROZEN.get(name, ())) for key in frozen)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_every_parameter_that_trains(name):
    network = tiny_network(name, **kept_paths(name)).train()
    backward(name, network)
    check_gradients(name, network)


@pytest.mark.parametrize("name", EVERY)
def test_checkpointing_gives_the_same_gradients(name):
    if name in NO_CHECKPOINTING:
        with pytest.raises(ConfigError, match="checkpointing: no part of this network"):
            set_checkpointing(shared(name), on=True)
        return
    network = tiny_network(name).train()
    again = copy.deepcopy(network)
    set_checkpointing(again, on=True)
    check_near(backward(name, again), backward(name, network), 0)
    for (key, one), (_, other) in zip(again.named_parameters(), network.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), key
        assert one.grad is None or torch.equal(one.grad, other.grad), key
    for (key, one), (_, other) in zip(again.named_buffers(), network.named_buffers(), strict=True):
        assert torch.equal(one, other), key


def scheme(classes: int) -> ClassScheme:
    return ClassScheme(name="some", classes=tuple(LandClass(name=f"class {index}", colour=(index,) * 3) for index in range(classes)))


def saved_and_loaded(name: str, folder: Path, image_size: int, options: dict) -> tuple[nn.Module, nn.Module]:
    """A network and what its folder gives back; as a Segmenter where it can be one."""
    if NAMES[name].kind == "segmentation":
        config = NetworkConfig(name=name, image_size=image_size, options=options)
        model = build_segmenter(config, get_sensor(SENSORS[NAMES[name].in_channels]), scheme(5))
        stirred(model).eval().save(folder)
        return model, Segmenter.load(folder)
    network = stirred(create(name, num_classes=5, image_size=image_size, seed=0, **options)).eval()
    save_network(network, folder)
    return network, load_network(folder)


@pytest.mark.parametrize("name", EVERY)
def test_saved_and_loaded_network_gives_the_same_bits(name, tmp_path):
    network, again = saved_and_loaded(name, tmp_path, 64, OPTIONS[name])
    images = images_for(name, 70, 90)
    check_near(compute(name, again, images), compute(name, network, images), 0)
    assert not any(module.training for module in again.modules())
    # The folder says how to build it and all that was learned: nothing else may be in the network.
    assert network.state_dict().keys() == again.state_dict().keys()


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_stays_near_full_precision(name):
    network, images = shared(name), images_for(name, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        found = compute(name, network, images)
    wanted = compute(name, network, images)
    assert any(not torch.equal(one.float(), other) for one, other in zip(found, wanted, strict=True))
    for one, other in zip(found, wanted, strict=True):
        # The largest difference is that of single pixels near a kink; what counts is the spread of all.
        assert float((one.float() - other).square().mean().sqrt()) <= 0.04 * float(other.std())


@pytest.mark.parametrize("name", EVERY)
def test_channels_last_gives_the_same_but_for_rounding(name):
    images = images_for(name, 64, 96)
    last = copy.deepcopy(shared(name)).to(memory_format=torch.channels_last)
    turned = tuple(image.contiguous(memory_format=torch.channels_last) if image.ndim == 4 else image for image in images)
    check_near(compute(name, last, turned), compute(name, shared(name), images), 1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if ("upernet" in name or "ddpm" in name) and name not in ALIKE])
def test_fused_attention_gives_the_same_but_for_rounding(name):
    images = images_for(name, 80, 96)
    option: dict[str, Any] = {"attention": "explicit"}
    explicit = tiny_network(name, **({"unet_options": OPTIONS[name]["unet_options"] | option} if name == "ddpm_segmentor" else option))
    explicit.load_state_dict(shared(name).state_dict())
    check_near(compute(name, explicit, images), compute(name, shared(name), images), 1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_weights_of_layers_decay_and_nothing_else(name):
    network = shared(name)
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    weights = {f"{key}.weight" for key, module in network.named_modules() if isinstance(module, layers)}
    assert {key for key, parameter in network.named_parameters() if decays(key, parameter)} == weights


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURED)
def test_whole_network_is_captured_by_compilation(name):
    module, images = of_tensors(name, tiny_network(name)), images_for(name, 72, 100)
    captured = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        found, wanted = captured(*images), module(*images)
    check_near(*([list(one) if isinstance(one, tuple) else [one] for one in (found, wanted)]), 1e-4)
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upernet_vit_b", "deeplabv3plus_resnet50"])
def test_compiled_network_gives_the_same_gradients_but_for_rounding(name):
    network = tiny_network(name, **kept_paths(name)).train()
    again = copy.deepcopy(network)
    check_near(backward(name, torch.compile(again)), backward(name, network), 1e-3)
    pairs = {
        key: (one.grad, other.grad)
        for (key, one), (_, other) in zip(again.named_parameters(), network.named_parameters(), strict=True)
        if other.requires_grad
    }
    largest = max(float(other.norm()) for _, other in pairs.values())
    for key, (one, other) in pairs.items():
        # The second term is for gradients that are nothing but rounding, such as that of a bias before a batch norm.
        assert float((one - other).norm()) <= 1e-3 * float(other.norm()) + 1e-5 * largest, key


@pytest.fixture
def exportable(name) -> tuple[nn.Module, tuple[Tensor, ...], list[Tensor]]:
    """A network of tensors, what it is called with, and what it then gives."""
    module, images = of_tensors(name, tiny_network(name)), images_for(name, 72, 100)
    with torch.no_grad():
        found = module(*images)
    return module, images, list(found) if isinstance(found, tuple) else [found]


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURED)
def test_exported_program_computes_the_same(name, exportable):
    module, images, wanted = exportable
    program = torch.export.export(module, images)
    found = program.module()(*images)
    check_near(list(found) if isinstance(found, tuple) else [found], wanted, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURED)
def test_onnx_file_computes_the_same(name, exportable, tmp_path):
    module, images, wanted = exportable
    check_near(through_onnx(module, images, tmp_path / "network.onnx"), wanted, 1e-4)


def through_onnx(module: nn.Module, images: tuple[Tensor, ...], file: Path) -> list[Tensor]:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with torch.no_grad():
        program = torch.onnx.export(module, images, dynamo=True, verbose=False)
    program.save(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = {value.name: image.numpy() for value, image in zip(session.get_inputs(), images, strict=True)}
    return [torch.from_numpy(one) for one in session.run(None, given)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_size_takes_odd_images_and_learns_with_every_parameter(name):
    network = stirred(create(name, seed=0, **kept_paths(name))).eval()
    height, width = 65, 97
    found = compute(name, network, images_for(name, height, width))
    assert all(one.shape[-2:] == (height, width) and torch.isfinite(one).all() for one in found)
    del found
    backward(name, network.train(), side=64)
    check_gradients(name, network)
    del network
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_size_is_saved_and_loaded_bit_by_bit(name, tmp_path):
    network, again = saved_and_loaded(name, tmp_path, 512, {})
    images = images_for(name, 64, 96)
    check_near(compute(name, again, images), compute(name, network, images), 0)
    del network, again
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upernet_vit_b", "upernet_vit_b_rvsa", "upernet_swin_t", "deeplabv3plus_resnet101"])
def test_published_size_computes_the_same_through_onnx(name, tmp_path):
    network = stirred(create(name, seed=0)).eval()
    images = images_for(name, 128, 160)
    check_near(through_onnx(network, images, tmp_path / "network.onnx"), compute(name, network, images), 1e-4)
    gc.collect()
