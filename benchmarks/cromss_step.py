"""CromSS: pieces of a step and whole steps, ours beside the way of the published program, in turns in one run.

    python benchmarks/cromss_step.py [--batch 2] [--size 256] [--classes 9] [--step-size 256] [--step-batch 2] [--encoder resnet50]
        [--fusion mid|late] [--repeats 5] [--step-repeats 3] [--threads 1] [--device cpu|cuda] [--no-step]

Pieces, on ``--batch`` images of ``--size`` pixels (the prior: on the stored 264 where the size is 256, as the published loader does):

- confidence: softmax, then probabilities times their logarithm, for labels and predictions of both modalities; ours takes one log-softmax,
  which the losses then use again.
- selection: of each modality and class the pixels are taken out, ``topk``, and weights are put back; ours is three histograms. Also one
  histogram, whose thresholds are up to 1/2048 too low. On a GPU the published way waits for the device in every class.
- prior: for each image, season average and season alone, nine filters each by scipy on the CPU, as data loading does; ours is
  one product a side on the device, for all images. It is compared as time for the whole batch.
- losses: cross-entropy, Dice and consistency with backward to the logits; the published way computes softmax and log-softmax anew in each.

Whole steps: network, loss and backward, without optimiser, on ``--step-batch`` images of ``--step-size`` pixels with 2 + 13 bands. The
published way gets its prior for nothing, since loader processes make it; ours computes it within the step. All ways have the same weights,
and their losses are compared: "loss" is the relative difference from the published way. "32" is full precision (on GPUs with torch's
defaults), "last" channels last, "bf16" autocast. On a CPU ours keeps freed memory, as our training loop does; the published program does
not, and "published 32, kept" tells how much that alone would bring it.

Given are medians of the rounds with smallest and largest, and the ratio to the published way round by round; on a CPU of the processor's
time, which hardly feels other programs, on a GPU of the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from measuring import machine, spread, timed
from tilth.batch import Batch
from tilth.classes import ClassScheme, LandClass
from tilth.methods.base import build_method
from tilth.methods.cromss.confidence import enhance, label_confidence, prediction_confidence
from tilth.methods.cromss.method import Cromss
from tilth.methods.cromss.objective import consistency_losses, segmentation_loss
from tilth.methods.cromss.ramps import kept_ratio, ramp
from tilth.methods.cromss.selection import select
from tilth.methods.cromss.settings import CromssConfig
from tilth.methods.cromss.smoothing import label_prior, soft_labels
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.models.fused import FusedNetwork
from tilth.models.segmenter import build_segmenter
from tilth.sensors import get_sensor
from tilth.training.memory import kept_memory

EPOCH, LENGTH, SHARE = 40, 80, 0.5
SMOOTH = (0.15, 0.05)
CONFIG = CromssConfig(rare_class="drop", ramp_steps=LENGTH)


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print("\n".join(machine(options.threads, device.type)))
    print(f"\npieces: {options.batch} x {options.size} px, {options.classes} classes, epoch {EPOCH} of a ramp of {LENGTH}")
    for name, ways in _pieces(options, device).items():
        _report(name, _measure(ways, options.repeats, device), device)
    if options.no_step:
        return
    print(f"\nstep: {options.encoder}, {options.fusion} fusion, 2 + 13 bands, {options.step_batch} x {options.step_size} px")
    ways, losses = _steps(options, device)
    kept = [way for way in ways if device.type == "cpu" and way != "published 32"]
    _report("step", _measure(ways, options.step_repeats, device, kept), device)
    for way, loss in losses.items():
        print(f"  loss {way:32s} {loss:.6f}  {abs(loss / losses['published 32'] - 1):.1e}")


# The published way, written from its description.


def published_confidence(logits: list[Tensor], label: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Enhanced confidences of labels and predictions."""
    known, sure = [], []
    for item in logits:
        probabilities = item.detach().softmax(1)
        known.append((probabilities * F.one_hot(label, item.shape[1]).permute(0, 3, 1, 2)).sum(1))
        entropy = -(probabilities * (probabilities + 1e-30).log()).sum(1)
        sure.append((1 - entropy / math.log(item.shape[1])).clamp(0, 1))
    return tuple([(one + one * two) / 2, (two + one * two) / 2] for one, two in (known, sure))  # type: ignore[return-value]


def published_selection(confidence: list[Tensor], label: Tensor, ratio: float) -> list[Tensor]:
    """One top-k for each class and modality."""
    weights = []
    for values in confidence:
        weight = torch.zeros_like(values)
        for index in label.unique():
            inside = label == index
            chosen = values[inside]
            count = int(chosen.numel() * ratio)
            if count == 0:
                continue
            limit = torch.topk(chosen, count).values[-1]
            weight[inside] = (chosen / limit).clamp(max=1) if limit > 0 else torch.ones_like(chosen)
        weights.append(weight)
    return weights


def published_prior(seasons: np.ndarray, season: int, classes: int) -> np.ndarray:
    """Prior of one image, on the CPU: (K, H, W)."""
    hard = np.eye(classes, dtype=np.float32)[seasons]
    found = []
    for maps in (hard.mean(0), hard[season]):
        smooth = np.stack([gaussian_filter(maps[..., index], 3, truncate=4) for index in range(classes)], -1)
        found.append(smooth / smooth.sum(-1, keepdims=True))
    return ((found[0] + found[1]) / 2).transpose(2, 0, 1)


def published_losses(logits: list[Tensor], target: Tensor, weights: list[Tensor], trusted: list[Tensor]) -> Tensor:
    """Cross-entropy, Dice and consistency."""
    total = logits[0].new_zeros(())
    for place, item in enumerate(logits):
        weight, other = weights[place], logits[1 - place]
        total = total + (-(target * item.log_softmax(1)).sum(1) * weight).sum() / weight.sum()
        probabilities, wide = item.softmax(1), weight.unsqueeze(1)
        both = (wide * probabilities * target).sum((0, 2, 3))
        either = (wide * (probabilities + target)).sum((0, 2, 3))
        total = total + torch.where(target.sum((0, 2, 3)) > 0, 1 - 2 * both / either.clamp(min=1e-7), 0).mean()
        taught = -(other.detach().softmax(1) * item.log_softmax(1)).sum(1)
        total = total + (taught * trusted[1 - place]).sum() / trusted[1 - place].sum()
    return total


def published_objective(logits: list[Tensor], label: Tensor, prior: Tensor) -> Tensor:
    """All of it."""
    progress, classes = ramp("exp", EPOCH, LENGTH), logits[0].shape[1]
    known, sure = published_confidence(logits, label)
    weights = published_selection(known, label, kept_ratio(progress, SHARE))
    hard = F.one_hot(label, classes).permute(0, 3, 1, 2).float()
    target = (1 - sum(SMOOTH)) * hard + SMOOTH[0] * prior + SMOOTH[1] / classes
    return published_losses(logits, target, weights, [(1 - progress) + progress * item for item in sure])


# Pieces and steps.


def _pieces(options: argparse.Namespace, device: torch.device) -> dict[str, dict[str, Callable[[], object]]]:
    torch.manual_seed(0)
    label = _labels(options.batch, options.size, options.classes).to(device)
    logits = [3 * torch.randn(options.batch, options.classes, options.size, options.size, device=device) for _ in range(2)]
    ratio, progress = kept_ratio(ramp("exp", EPOCH, LENGTH), SHARE), ramp("exp", EPOCH, LENGTH)
    known, sure = published_confidence(logits, label)
    together = torch.stack(known)
    exact = torch.stack(published_selection(known, label, ratio))
    assert torch.equal(select(together, label, options.classes, ratio, rare="drop").weight, exact)

    def own_confidence() -> object:
        found = [item.log_softmax(1) for item in logits]
        return [
            enhance(torch.stack([label_confidence(item, label) for item in found])),
            enhance(torch.stack([prediction_confidence(item, "ce") for item in found])),
        ]

    side = 264 if options.size == 256 else options.size
    seasons = torch.stack([_labels(options.batch, side, options.classes) for _ in range(4)], 1)
    plain, moved = seasons.numpy(), seasons.to(device)
    own = label_prior(moved[:, 2], moved, options.classes, "ts").cpu().numpy()
    print(f"prior: largest difference {abs(own[0] - published_prior(plain[0], 2, options.classes)).max():.1e}")
    target = soft_labels(label, None, options.classes, uniform_share=0.05)
    trusted = torch.stack([(1 - progress) + progress * item for item in sure])

    def theirs() -> object:
        leaves = [item.clone().requires_grad_() for item in logits]
        published_losses(leaves, target, list(exact), list(trusted)).backward()
        return leaves

    def ours() -> object:
        leaves = [item.clone().requires_grad_() for item in logits]
        found = [item.log_softmax(1) for item in leaves]
        terms = [
            segmentation_loss(*each, label, target, exact[place], CONFIG) for place, each in enumerate(zip(leaves, found, strict=True))
        ]
        torch.stack([*terms, *consistency_losses(found, trusted, CONFIG)]).sum().backward()
        return leaves

    return {
        "confidence": {"published": lambda: published_confidence(logits, label), "ours": own_confidence},
        "selection": {
            "published": lambda: published_selection(known, label, ratio),
            "ours, exact": lambda: select(together, label, options.classes, ratio),
            "ours, histogram": lambda: select(together, label, options.classes, ratio, ranking="histogram"),
        },
        "prior": {
            "published": lambda: [published_prior(item, 2, options.classes) for item in plain],
            "ours": lambda: label_prior(moved[:, 2], moved, options.classes, "ts"),
        },
        "losses": {"published": theirs, "ours": ours},
    }


def _steps(options: argparse.Namespace, device: torch.device) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    torch.manual_seed(0)
    scheme = ClassScheme(name="c", classes=tuple(LandClass(name=f"c{index}", colour=(index, 0, 0)) for index in range(options.classes)))
    network = NetworkConfig(name="cromss_unet_resnet50", options={"encoder": options.encoder}, fusion=FusionConfig(kind=options.fusion))
    model = build_segmenter(network, get_sensor("s1+s2_l1c"), scheme).to(device).train()
    image = torch.randn(options.step_batch, 15, options.step_size, options.step_size, device=device)
    label = _labels(options.step_batch, options.step_size, options.classes).to(device)
    batch = Batch(image=image, mask=label, valid=torch.ones_like(label, dtype=torch.bool), tile_id=[], draw=[])
    prior = label_prior(label, None, options.classes, "s")
    losses: dict[str, float] = {}

    def published(way: str, mixed: bool) -> Callable[[], object]:
        built = copy.deepcopy(model)
        assert isinstance(built.network, FusedNetwork)

        def step() -> None:
            with _mixed(device, mixed):
                logits = built.network.branch_logits(image)  # type: ignore[operator]  # checked above
            loss = published_objective([item.float() for item in logits], label, prior)
            loss.backward()
            losses.setdefault(way, loss.item())
            built.zero_grad()

        return step

    def own(way: str, mixed: bool, last: bool) -> Callable[[], object]:
        method = build_method("cromss", CONFIG.model_dump(), copy.deepcopy(model))
        assert isinstance(method, Cromss)
        method.trained.train()
        trained, given = method.trained, batch
        if last:
            trained.to(memory_format=torch.channels_last)
            given = Batch(**{**batch, "image": image.contiguous(memory_format=torch.channels_last)})

        def student(*words: Tensor) -> object:
            with _mixed(device, mixed):
                return trained(*words)

        method.student = student

        def step() -> None:
            loss = method.step({"labelled": given}, EPOCH).total
            loss.backward()
            losses.setdefault(way, loss.item())
            trained.zero_grad()

        return step

    ways: dict[str, Callable[[], object]] = {"published 32": published("published 32", False)}
    if device.type == "cuda":
        ways["published bf16"] = published("published bf16", True)
    else:
        ways["published 32, kept"] = ways["published 32"]
    ways["ours 32"] = own("ours 32", False, False)
    ways["ours 32 last"] = own("ours 32 last", False, True)
    ways["ours bf16 last"] = own("ours bf16 last", True, True)
    return ways, losses


def _labels(batch: int, size: int, classes: int) -> Tensor:
    """Patches of 16 pixels, as maps have them, one class rare."""
    cells = -(-size // 16)
    chances = torch.full((classes,), 1.0)
    chances[-1] = 0.01
    drawn = torch.multinomial(chances, batch * cells * cells, replacement=True).view(batch, cells, cells)
    return drawn.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :size, :size].contiguous()


def _mixed(device: torch.device, mixed: bool) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if mixed else contextlib.nullcontext()


def _measure(
    ways: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, kept: Collection[str] = ()
) -> dict[str, list[float]]:
    """Milliseconds of each way, in turns; the first of each warms up and is not counted. Ways of ``kept`` keep freed memory."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, work in ways.items():
            with kept_memory(device) if name in kept else contextlib.nullcontext():
                if name in kept:
                    work()  # the memory comes with the first step
                wall, processor = timed(work, device.type)
            if turn:
                found[name].append(1000 * (wall if device.type == "cuda" else processor))
    return found


def _report(name: str, found: Mapping[str, list[float]], device: torch.device) -> None:
    first = next(iter(found.values()))
    unit = "ms" if device.type == "cuda" else "ms of processor"
    for way, times in found.items():
        ratios = [theirs / own for theirs, own in zip(first, times, strict=True)]
        print(f"  {name:11s} {way:18s} {spread(times, '10.1f')} {unit}  x {spread(ratios, '.2f')}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--step-batch", type=int, default=2)
    parser.add_argument("--step-size", type=int, default=256)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--fusion", choices=("mid", "late"), default="mid")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--step-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-step", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
