"""Files of SR3, DDPM-CD and guided-diffusion come in and go out under their own names."""

import re

import numpy as np
import pytest
import torch

import tilth
from support.official_ddpm import LAYOUT, PUBLISHED, arrays, manifest, network_of, official_tensors, value
from tilth.errors import ConfigError
from tilth.models.weights.layouts.diffusion import PREFIX, SCHEDULE_NAMES, sr3_buffers

SCHEDULE = arrays("schedule_sr3_linear.npz")


def bare(name: str) -> str:
    return name.removeprefix(PREFIX)


def tiny_file(name: str) -> dict[str, torch.Tensor]:
    return official_tensors(name)


def own_sr3_names(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename as SR3's own program does: the stem is the first entry of ``downs``."""
    renamed = {}
    for name, tensor in stored.items():
        head, *rest = name.split(".")
        if head == "init_conv":
            renamed[f"downs.0.{rest[0]}"] = tensor
        elif head == "downs":
            renamed[".".join(["downs", str(int(rest[0]) + 1), *rest[1:]])] = tensor
        else:
            renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("name", PUBLISHED)
def test_exported_names_shapes_and_order_are_those_of_the_manifest(name):
    with torch.device("meta"):
        network = network_of(name)
    expected = manifest(name)
    exported = {key: tuple(tensor.shape) for key, tensor in tilth.models.official_state_dict(network).items()}
    if not any(key.startswith(PREFIX) for key in expected):
        # Manifests of reduced networks list the network alone.
        exported = {bare(key): shape for key, shape in exported.items() if key not in SCHEDULE_NAMES}
    assert list(exported.items()) == list(expected.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_manifest_is_recognised_and_converted_whole(name):
    shapes = manifest(name)
    with torch.device("meta"):
        network = network_of(name)
        stored = {key: torch.empty(shape) for key, shape in shapes.items() if key not in SCHEDULE_NAMES}
    assert [layout for layout in LAYOUT if LAYOUT[layout].recognises(shapes)] == [network.layout]
    converted = LAYOUT[network.layout].convert(stored, network, None)
    assert not converted.unexpected
    ours = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in converted.tensors.items()} == ours


@pytest.mark.parametrize("name", ["tiny_sr3", "tiny_gd"])
def test_weights_survive_the_round_trip_bit_by_bit(name):
    stored = tiny_file(name)
    network = network_of(name)
    report = tilth.models.load_weights(network, stored)
    assert [report.missing, report.unexpected, report.dropped, report.resized] == [[], [], {}, {}]
    back = {bare(key): tensor for key, tensor in tilth.models.official_state_dict(network).items()}
    assert all(torch.equal(back[key], tensor) for key, tensor in stored.items())


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("rename", [dict, own_sr3_names])
def test_sr3_and_ddpm_cd_names_are_taken_with_and_without_prefix_and_schedule(prefix, rename):
    stored = {prefix + key: tensor for key, tensor in rename(tiny_file("tiny_sr3")).items()}
    stored |= sr3_buffers(np.linspace(1e-6, 1e-2, 2000))
    network = network_of("tiny_sr3")
    report = tilth.models.load_weights(network, stored)
    assert report.layout == "sr3"
    assert [report.missing, report.unexpected] == [[], []]
    assert set(report.dropped) == set(SCHEDULE_NAMES)
    assert "noise schedule sr3_linear (2000 steps, betas 1e-06 to 0.01)" in report.dropped["betas"]
    with torch.no_grad():
        predicted = network.eval()(value("input:xT", (2, 3, 16, 16)), 0.7)
    np.testing.assert_allclose(predicted.numpy(), arrays("trajectories_tiny.npz")["tiny_sr3/eps_l0p7"], atol=1e-4, rtol=0)


def test_exported_schedule_holds_the_published_numbers():
    exported = LAYOUT["sr3"].export(network_of("tiny_sr3"))
    for name in ("betas", "alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped"):
        np.testing.assert_allclose(exported[name].numpy(), SCHEDULE[name].astype(np.float32), rtol=1e-5)
    for name in ("posterior_mean_coef1", "posterior_mean_coef2"):
        np.testing.assert_allclose(exported[name].numpy(), SCHEDULE[name], rtol=1e-5, atol=1e-7)
    products = SCHEDULE["alphas_cumprod"]
    derived = {
        "alphas_cumprod_prev": np.append(1.0, products[:-1]),
        "sqrt_alphas_cumprod": np.sqrt(products),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - products),
        "log_one_minus_alphas_cumprod": np.log(1 - products),
        "sqrt_recip_alphas_cumprod": 1 / np.sqrt(products),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / products - 1),
    }
    for name, table in derived.items():
        np.testing.assert_allclose(exported[name].numpy(), table, rtol=1e-5, err_msg=name)


def test_a_network_of_another_schedule_is_exported_without_one():
    exported = LAYOUT["sr3"].export(network_of("tiny_sr3", schedule=None))
    assert set(exported) == {PREFIX + key for key in manifest("tiny_sr3")}


COSINE = np.minimum(1 - np.cos(np.arange(1, 101) / 101 * np.pi / 2) ** 2, 0.999)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tables: sr3_buffers(COSINE), "other than sr3_linear .100 steps.*export writes sr3_linear"),
        (lambda tables: {**tables, "alphas_cumprod": tables["alphas_cumprod"].flip(0)}, "not the running product"),
        (lambda tables: {**tables, "alphas_cumprod": tables["alphas_cumprod"][:5]}, "not the running product"),
        (lambda tables: {**tables, "betas": torch.full((2000,), float("nan"))}, "betas are not between 0 and 1"),
        (lambda tables: {**tables, "betas": -tables["betas"]}, "betas are not between 0 and 1"),
        (lambda tables: {"alphas_cumprod": tables["alphas_cumprod"]}, "without its betas"),
    ],
)
def test_schedules_in_files_are_judged(change, reason):
    tables = change(sr3_buffers(np.linspace(1e-6, 1e-2, 2000)))
    report = tilth.models.load_weights(network_of("tiny_sr3"), {**tiny_file("tiny_sr3"), **tables})
    assert set(report.dropped) == set(tables)
    assert all(re.search(reason, said) for said in report.dropped.values()), report.dropped


def test_learned_variance_is_left_out_where_the_network_learns_none():
    network = network_of("tiny_gd")
    stored = tiny_file("tiny_gd")
    stored |= {
        f"out.2.{kind}": torch.cat([stored[f"out.2.{kind}"], torch.ones_like(stored[f"out.2.{kind}"])]) for kind in ("weight", "bias")
    }
    report = tilth.models.load_weights(network, stored)
    assert [report.missing, report.unexpected] == [[], []]
    assert set(report.dropped) == {"out.2.weight[3:]", "out.2.bias[3:]"}
    assert torch.equal(network.output.convolution.weight, stored["out.2.weight"][:3])


def test_an_output_without_variance_stays_fresh_where_the_network_learns_one():
    report = tilth.models.load_weights(network_of("tiny_gd", learned_sigma=True), tiny_file("tiny_gd"))
    assert set(report.missing) == {"output.convolution.weight", "output.convolution.bias"}
    assert report.dropped["out.2.weight"] == "predicts 3 channels, this network 6; its output stays fresh"


@pytest.mark.parametrize(("name", "output"), [("tiny_sr3", "denoise_fn.final_conv.block.3.weight"), ("tiny_gd", "out.2.weight")])
def test_other_bands_refit_the_stem_and_leave_the_output_fresh(name, output):
    created, options, _, _ = PUBLISHED[name]
    network = tilth.models.create(created, in_channels=4, **options)
    prefix = PREFIX if name == "tiny_sr3" else ""
    report = tilth.models.load_weights(network, {prefix + key: tensor for key, tensor in tiny_file(name).items()})
    assert set(report.resized) == {"encoder.0.convolution.weight"}
    assert set(report.missing) == {"output.convolution.weight", "output.convolution.bias"}
    assert report.dropped[output] == "predicts 3 channels, this network 4; its output stays fresh"


def test_class_embeddings_are_dropped_and_strangers_named():
    stored = {**tiny_file("tiny_gd"), "label_emb.weight": torch.ones(10, 256), "input_blocks.strange.weight": torch.ones(1)}
    report = tilth.models.load_weights(network_of("tiny_gd"), stored)
    assert set(report.dropped) == {"label_emb.weight"}
    assert report.unexpected == ["input_blocks.strange.weight"]


def test_strangers_are_named_as_they_stand_in_the_file():
    stored = {PREFIX + key: tensor for key, tensor in own_sr3_names(tiny_file("tiny_sr3")).items()} | {
        PREFIX + "downs.strange.bias": torch.ones(1)
    }
    assert tilth.models.load_weights(network_of("tiny_sr3"), stored).unexpected == [PREFIX + "downs.strange.bias"]


def test_parts_cannot_be_taken():
    with pytest.raises(ConfigError, match="no parts to take, such as 'encoder'"):
        LAYOUT["sr3"].convert({}, network_of("tiny_sr3"), "encoder")
