"""Layouts of noise predictors: SR3 and DDPM-CD; guided- and improved-diffusion (ddpm.md sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tilth.errors import ConfigError
from tilth.models.diffusion.process import small_log_variance
from tilth.models.diffusion.schedule import SR3_LINEAR, NoiseSchedule, build_schedule
from tilth.models.weights.layout import Converted, Layout, Tensors

if TYPE_CHECKING:
    from tilth.models.diffusion.unet import DiffusionUnet, Stage

PREFIX = "denoise_fn."
_SR3_BLOCK = {
    "embedding": "noise_func.noise_func.0",
    "norm1": "block1.block.0",
    "convolution1": "block1.block.3",
    "norm2": "block2.block.0",
    "convolution2": "block2.block.3",
    "skip": "res_conv",
}
_SR3_OUTPUT = "final_conv.block.3.bias"
_SR3_ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "out"}
_GUIDED_BLOCK = {
    "norm1": "in_layers.0",
    "convolution1": "in_layers.2",
    "embedding": "emb_layers.1",
    "norm2": "out_layers.0",
    "convolution2": "out_layers.3",
    "skip": "skip_connection",
}
_GUIDED_ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
Pair = tuple[str, str]
"""Our name of a layer, or of a module, and theirs."""


def _sr3_pairs(network: DiffusionUnet) -> Iterator[Pair]:
    """Walk the network in the order in which SR3 numbers its layers; the stem as DDPM-CD names it."""
    yield from [
        ("embedding.linear1", "noise_level_mlp.1"),
        ("embedding.linear2", "noise_level_mlp.3"),
        ("encoder.0.convolution", "init_conv"),
    ]

    def stage(ours: str, theirs: str) -> Iterator[Pair]:
        yield f"{ours}.convolution", f"{theirs}.conv"
        yield from _inside(f"{ours}.residual", f"{theirs}.res_block", _SR3_BLOCK)
        yield from _inside(f"{ours}.attention", f"{theirs}.attn", _SR3_ATTENTION)

    for index in range(1, len(network.encoder)):
        yield from stage(f"encoder.{index}", f"downs.{index - 1}")
    yield from _inside("middle.first", "mid.0.res_block", _SR3_BLOCK)
    yield from _inside("middle.attention", "mid.0.attn", _SR3_ATTENTION)
    yield from _inside("middle.second", "mid.1.res_block", _SR3_BLOCK)
    place = 0
    for index, found in enumerate(network.decoder):
        part: Stage = found  # type: ignore[assignment]  # ModuleList is typed by nn.Module
        if part.upsample_before is not None:
            # An entry of its own in their list.
            yield f"decoder.{index}.upsample_before.convolution", f"ups.{place}.conv"
            place += 1
        yield from stage(f"decoder.{index}", f"ups.{place}")
        place += 1
    yield from [("output.norm", "final_conv.block.0"), ("output.convolution", "final_conv.block.3")]


def _guided_pairs(network: DiffusionUnet) -> Iterator[Pair]:
    """Walk the network in the order in which guided-diffusion numbers its layers."""
    yield from [("embedding.linear1", "time_embed.0"), ("embedding.linear2", "time_embed.2")]
    for index in range(len(network.encoder)):
        yield f"encoder.{index}.convolution", f"input_blocks.{index}.0" + (".op" if index else "")
        yield from _inside(f"encoder.{index}.residual", f"input_blocks.{index}.0", _GUIDED_BLOCK)
        yield from _inside(f"encoder.{index}.attention", f"input_blocks.{index}.1", _GUIDED_ATTENTION)
    yield from _inside("middle.first", "middle_block.0", _GUIDED_BLOCK)
    yield from _inside("middle.attention", "middle_block.1", _GUIDED_ATTENTION)
    yield from _inside("middle.second", "middle_block.2", _GUIDED_BLOCK)
    for index, found in enumerate(network.decoder):
        part: Stage = found  # type: ignore[assignment]  # ModuleList is typed by nn.Module
        yield from _inside(f"decoder.{index}.residual", f"output_blocks.{index}.0", _GUIDED_BLOCK)
        yield from _inside(f"decoder.{index}.attention", f"output_blocks.{index}.1", _GUIDED_ATTENTION)
        last = f"output_blocks.{index}.{1 if part.attention is None else 2}"
        yield f"decoder.{index}.upsample_after.convolution", f"{last}.conv"
        yield from _inside(f"decoder.{index}.upsample_after", last, _GUIDED_BLOCK)
    yield from [("output.norm", "out.0"), ("output.convolution", "out.2")]


def _inside(ours: str, theirs: str, names: Mapping[str, str]) -> Iterator[Pair]:
    for our_name, their_name in names.items():
        yield f"{ours}.{our_name}", f"{theirs}.{their_name}"


def _their_names(network: nn.Module, pairs: Callable[[Any], Iterator[Pair]]) -> dict[str, str]:
    """Give every tensor of the network its published name, in the published order."""
    held = set(network.state_dict())
    names = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in pairs(network) for kind in ("weight", "bias")}
    return {ours: theirs for ours, theirs in names.items() if ours in held}


def _convert(stored: Tensors, network: nn.Module, pairs: Callable[[Any], Iterator[Pair]], take: str | None) -> Converted:
    if take is not None:
        raise ConfigError(f"a noise predictor has no parts to take, such as {take!r}; leave take out")
    ours_of = {theirs: ours for ours, theirs in _their_names(network, pairs).items()}
    converted = Converted({})
    for name, tensor in stored.items():
        ours = ours_of.get(name)
        if ours is None:
            converted.unexpected.append(name)
        else:
            # Attention of guided-diffusion is stored as a convolution over one dimension.
            converted.tensors[ours] = tensor[..., None] if ours.endswith(("qkv.weight", "out.weight")) and tensor.dim() == 3 else tensor
    _fit_output(converted, network, ours_of)
    return converted


def _cut_condition(converted: Converted, network: nn.Module, bands: int) -> None:
    """Of a super-resolution model, keep the half of the stem that reads the noisy image: the small picture comes first (SR3's program)."""
    name = "encoder.0.convolution.weight"
    stem = converted.tensors.get(name)
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 2 * bands != network.state_dict()[name].shape[1]:
        converted.tensors[name] = stem[:, bands:]
        converted.notes.append(
            f"the file reads {2 * bands} bands, a picture to go by and the noisy image: the half for the noisy image is taken"
        )


def _fit_output(converted: Converted, network: nn.Module, ours_of: Mapping[str, str]) -> None:
    """Take off a variance that the network does not learn, and leave out an output for other bands."""
    wanted = network.state_dict()["output.convolution.bias"].shape[0]
    stem, bias = (converted.tensors.get(name) for name in ("encoder.0.convolution.weight", "output.convolution.bias"))
    if stem is None or bias is None or bias.shape[0] == wanted:
        return
    bands, given = stem.shape[1], bias.shape[0]
    for theirs, ours in ours_of.items():
        if not ours.startswith("output.convolution.") or ours not in converted.tensors:
            continue
        if given == 2 * bands and wanted == bands:
            converted.tensors[ours] = converted.tensors[ours][:wanted]
            converted.dropped[f"{theirs}[{wanted}:]"] = "learned variance; this network predicts noise alone"
        else:
            del converted.tensors[ours]
            converted.dropped[theirs] = f"predicts {given} channels, this network {wanted}; its output stays fresh"


def _is_sr3(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    names = {name.removeprefix(PREFIX) for name in shapes}
    return {"noise_level_mlp.1.weight", "final_conv.block.3.weight"} <= names


def _convert_sr3(stored: Tensors, network: nn.Module, take: str | None) -> Converted:
    bare = {name.removeprefix(PREFIX): name for name in stored}
    # The file's names by those of DDPM-CD without prefix; reports speak of the file's.
    names = {_shifted(name): full for name, full in bare.items()} if "downs.0.weight" in bare else dict(bare)
    schedule = {name: stored[names.pop(name)] for name in SCHEDULE_NAMES if name in names}
    converted = _convert({name: stored[full] for name, full in names.items()}, network, _sr3_pairs, take)
    _cut_condition(converted, network, stored[names[_SR3_OUTPUT]].numel() if _SR3_OUTPUT in names else 0)
    converted.unexpected = [names[name] for name in converted.unexpected]
    converted.dropped = {names.get(name, name): reason for name, reason in converted.dropped.items()}
    if schedule:
        reason = _judge_schedule(schedule, getattr(network, "schedule", None))
        converted.dropped |= dict.fromkeys((bare[name] for name in schedule), reason)
    return converted


def _shifted(name: str) -> str:
    """SR3 counts its stem as the first of ``downs``, DDPM-CD does not: turn the one into the other."""
    parts = name.split(".")
    if parts[0] != "downs" or not parts[1].isdigit():
        return name
    return f"init_conv.{parts[2]}" if parts[1] == "0" else ".".join(["downs", str(int(parts[1]) - 1), *parts[2:]])


def _export_sr3(network: nn.Module) -> Tensors:
    tensors = network.state_dict()
    named = {PREFIX + theirs: tensors[ours] for ours, theirs in _their_names(network, _sr3_pairs).items()}
    if getattr(network, "schedule", None) != "sr3_linear":
        return named
    return {**sr3_buffers(build_schedule("sr3_linear").betas), **named}


SCHEDULE_NAMES = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


def sr3_buffers(betas: np.ndarray[Any, np.dtype[np.float64]]) -> Tensors:
    """Compute the twelve tables that SR3 stores beside its network (ddpm.md sections 2 and 3).

    Args:
        betas: float64 (T,).

    Returns:
        float32 (T,) by name.
    """
    schedule = NoiseSchedule("stored", betas)
    products, posterior = schedule.alphas_cumprod, schedule.posterior
    tables = (
        betas,
        products,
        schedule.before,
        np.sqrt(products),
        np.sqrt(1.0 - products),
        np.log(1.0 - products),
        np.sqrt(1.0 / products),
        np.sqrt(1.0 / products - 1.0),
        posterior.variance,
        small_log_variance(schedule, "tiny"),
        posterior.clean,
        posterior.noisy,
    )
    return {name: torch.from_numpy(table.astype(np.float32)) for name, table in zip(SCHEDULE_NAMES, tables, strict=True)}


def _judge_schedule(stored: Tensors, exported: str | None) -> str:
    """Say what schedule a file holds, for the report: features need to be taken at its noise levels, and two are in use."""
    betas = stored.get("betas")
    if betas is None or betas.dim() != 1 or not betas.numel():
        return "part of a noise schedule without its betas; not used"
    values = betas.detach().double().cpu().numpy()
    if not (np.isfinite(values).all() and (values > 0).all() and (values < 1).all()):
        return "implausible noise schedule: betas are not between 0 and 1; not used"
    computed = sr3_buffers(values)
    products = stored.get("alphas_cumprod")
    if products is not None and (
        products.shape != betas.shape or not torch.allclose(products.float().cpu(), computed["alphas_cumprod"], atol=1e-4)
    ):
        return "implausible noise schedule: alphas_cumprod is not the running product of 1 - betas; not used"
    span = f"{len(values)} steps, betas {values[0]:.3g} to {values[-1]:.3g}"
    known = len(values) == SR3_LINEAR[0] and np.allclose(values, build_schedule("sr3_linear").betas, rtol=1e-3, atol=1e-9)
    if known:
        return f"noise schedule sr3_linear ({span}); computed where it is needed"
    note = "; export writes sr3_linear, so set schedule to nothing" if exported == "sr3_linear" else ""
    return f"noise schedule other than sr3_linear ({span}); choose noise levels by it{note}"


def _is_guided(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return {"time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight"} <= set(shapes)


def _convert_guided(stored: Tensors, network: nn.Module, take: str | None) -> Converted:
    labels = [name for name in stored if name.startswith("label_emb.")]
    converted = _convert({name: tensor for name, tensor in stored.items() if name not in labels}, network, _guided_pairs, take)
    converted.dropped |= dict.fromkeys(labels, "embedding of classes; this network is told none, and predicts less well without")
    return converted


def _export_guided(network: nn.Module) -> Tensors:
    tensors = network.state_dict()
    names = _their_names(network, _guided_pairs)
    flat = ("attention.qkv.weight", "attention.out.weight")
    return {theirs: tensors[ours].squeeze(-1) if ours.endswith(flat) else tensors[ours] for ours, theirs in names.items()}


def _predictor(network: nn.Module) -> tuple[nn.Module, str]:
    """Find the noise predictor that a network is, or that its encoder holds, and how names begin there."""
    unet = getattr(getattr(network, "encoder", None), "unet", None)
    return (unet, "encoder.unet.") if isinstance(unet, nn.Module) else (network, "")


def _fits(layout: str) -> Callable[[nn.Module], bool]:
    return lambda network: getattr(_predictor(network)[0], "layout", None) == layout


def _wherever(convert: Callable[[Tensors, nn.Module, str | None], Converted]) -> Callable[[Tensors, nn.Module, str | None], Converted]:
    """Convert for the noise predictor, by the names that it has in the network that it is a part of."""

    def converted(stored: Tensors, network: nn.Module, take: str | None) -> Converted:
        unet, beginning = _predictor(network)
        found = convert(stored, unet, take)
        return replace(found, tensors={beginning + name: tensor for name, tensor in found.tensors.items()})

    return converted


LAYOUTS = (
    Layout("sr3", "SR3 or DDPM-CD noise predictor", _is_sr3, _fits("sr3"), _wherever(_convert_sr3), _export_sr3),
    Layout("guided", "guided-diffusion noise predictor", _is_guided, _fits("guided"), _wherever(_convert_guided), _export_guided),
)
