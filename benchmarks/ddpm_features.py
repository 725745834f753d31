"""Diffusion features: early exit and one batched pass against three full passes that keep every map of the decoder; memory of a head.

    python benchmarks/ddpm_features.py [--network ddpm_sr3_64] [--width 64] [--size 256] [--batch 1] [--repeats 5] [--threads 1]
        [--device cpu|cuda] [--tiles 50] [--steps 10]

Three noise levels of one batch of images, in the ways of published programs and in ours; all in one process and in turns, so that a busy
machine slows all of them. The first round warms up and is not counted. Given are medians with the smallest and the largest.

- ``three full``: a pass to the end for each noise level, in which hooks keep what every stage of the decoder gives. The base of all ratios.
- ``three early``: a pass for each noise level that ends behind the last map that is used (H/16 to H/2).
- ``one early``: all noise levels on the batch axis of one such pass; what tilth does.
- the same in bfloat16 autocast with channels-last weights, and its base in bfloat16 for comparison.

Before that it is checked that an early exit gives the same maps to the bit, and the batched pass the same within 1e-4.

``--tiles`` measures memory instead: the highest that training a pixel-wise head on so many tiles takes above what is held before, which is
the program, the network with its weights, and the tiles. A known public program keeps the features of all pixels.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from measuring import Round, machine, peak_mib, spread, timed
from tilth.models.by_name import create
from tilth.models.diffusion.taps import LevelTaps, join_levels, stack_levels
from tilth.models.diffusion.unet import DiffusionUnet

TIMES = (0.92, 0.85, 0.8)
"""Noise levels; what they are changes no time."""
CLASSES = 12
BASE = "fp32 three full"


def make_unet(arguments: argparse.Namespace) -> DiffusionUnet:
    """The noise predictor with fresh weights, none of them zero."""
    options = {"norm_groups": min(32, arguments.width // 2)} if arguments.network.startswith("ddpm_sr3") else {}
    network = create(arguments.network, 3, seed=0, width=arguments.width, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    assert isinstance(network, DiffusionUnet)
    return network.to(arguments.device).eval().requires_grad_(False)


def full(unet: DiffusionUnet, noisy: list[Tensor]) -> list[dict[int, Tensor]]:
    """A pass to the end for each noise level; every map of the decoder is kept."""
    found = []
    for image, level in zip(noisy, TIMES, strict=True):
        kept: dict[int, Tensor] = {}

        def keep(place: int, kept: dict[int, Tensor] = kept) -> Callable[..., None]:
            return lambda _module, _given, result: kept.update({place: result})

        hooks = [stage.register_forward_hook(keep(place)) for place, stage in enumerate(unet.decoder)]
        unet(image, level)
        for hook in hooks:
            hook.remove()
        found.append(kept)
    return found


def early(unet: DiffusionUnet, noisy: list[Tensor]) -> list[Tensor]:
    """A pass to the last map for each noise level."""
    maps = [LevelTaps().extract(unet, image, level) for image, level in zip(noisy, TIMES, strict=True)]
    return [torch.cat(level, dim=1) for level in zip(*maps, strict=True)]


def batched(unet: DiffusionUnet, noisy: list[Tensor]) -> list[Tensor]:
    """One pass to the last map for all noise levels."""
    stacked, levels = stack_levels(noisy, TIMES)
    return [join_levels(found, len(TIMES)) for found in LevelTaps().extract(unet, stacked, levels)]


@torch.no_grad()
def check(unet: DiffusionUnet, noisy: list[Tensor]) -> None:
    """Say how far the ways are apart."""
    names = list(unet.taps())
    first = names.index(next(name for name in names if name.startswith("dec")))
    places = [names.index(name) - first for name in LevelTaps().names(unet)]
    kept, exits, once = full(unet, noisy), early(unet, noisy), batched(unet, noisy)
    whole = [torch.cat([maps[place] for maps in kept], dim=1) for place in places]
    same = all(torch.equal(one, other) for one, other in zip(exits, whole, strict=True))
    apart = max(float((one - other).abs().max()) for one, other in zip(once, whole, strict=True))
    print(f"early exit bit-equal: {same}; one batched pass differs from three by at most {apart:.1e} of maps up to {_largest(whole):.1f}")
    assert same
    assert apart <= 1e-4 * max(1.0, _largest(whole))


def _largest(maps: list[Tensor]) -> float:
    return max(float(one.abs().max()) for one in maps)


def measure_time(arguments: argparse.Namespace) -> None:
    """Time all ways in turns and print them."""
    draw = torch.Generator(arguments.device).manual_seed(0)
    size = (arguments.batch, 3, arguments.size, arguments.size)
    noisy = [torch.randn(size, device=arguments.device, generator=draw) for _ in TIMES]
    plain, last = make_unet(arguments), make_unet(arguments).to(memory_format=torch.channels_last)
    check(plain, noisy)
    turned = [image.contiguous(memory_format=torch.channels_last) for image in noisy]

    def bf16(way: Callable[[DiffusionUnet, list[Tensor]], object]) -> None:
        with torch.autocast(arguments.device, torch.bfloat16):
            way(last, turned)

    ways: dict[str, Callable[[], object]] = {
        BASE: lambda: full(plain, noisy),
        "fp32 three early": lambda: early(plain, noisy),
        "fp32 one early": lambda: batched(plain, noisy),
        "fp32 one early, channels last": lambda: batched(last, turned),
        "bf16 three full, channels last": lambda: bf16(full),
        "bf16 one early, channels last": lambda: bf16(batched),
    }
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    with torch.no_grad():
        for number in range(arguments.repeats + 1):
            for name in sorted(ways, reverse=bool(number % 2)):
                found = timed(ways[name], arguments.device)
                if number:
                    rounds[name].append(found)
    print(f"{'':32} {'seconds':>26} {'times as fast':>26} {'by processor time':>26}")
    for name, found in rounds.items():
        walls = [[base[kind] / own[kind] for base, own in zip(rounds[BASE], found, strict=True)] for kind in (0, 1)]
        print(f"{name:32} {spread([wall for wall, _ in found], '7.3f')} {spread(walls[0], '7.3f')} {spread(walls[1], '7.3f')}")
    three, one = ([wall for wall, _ in rounds[name]] for name in ("fp32 three early", "fp32 one early"))
    print(f"one batched pass takes {statistics.median(one) / statistics.median(three):.3f} of the time of three")


def measure_memory(arguments: argparse.Namespace) -> None:
    """Print what training a head on many tiles takes above the noise predictor."""
    options = {"width": arguments.width, "norm_groups": min(32, arguments.width // 2)}
    network = create("ddpm_segmentor", 3, CLASSES, seed=0, unet=arguments.network, unet_options=options).to(arguments.device)
    network.encoder.requires_grad_(False)
    tiles = torch.randint(0, 255, (arguments.tiles, 3, arguments.size, arguments.size), dtype=torch.uint8)
    masks = torch.randint(0, CLASSES, (arguments.tiles, arguments.size, arguments.size), dtype=torch.uint8)
    network.train()

    def batch_of(place: int) -> tuple[Tensor, Tensor]:
        rows = slice(place * arguments.batch, (place + 1) * arguments.batch)
        image = tiles[rows].to(arguments.device).float() / 127.5 - 1
        return image, masks[rows].to(arguments.device).long()

    def train() -> None:
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(learning, lr=2e-4)
        for step in range(arguments.steps):
            image, mask = batch_of(step % (arguments.tiles // arguments.batch))
            nn.functional.cross_entropy(network(image), mask).backward()
            optimiser.step()
            optimiser.zero_grad()

    added = peak_mib(train, arguments.device)
    print(f"{arguments.tiles} tiles of {arguments.size} px, {arguments.steps} steps of {arguments.batch}: adds {added:.0f} MiB at most")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="ddpm_sr3_64")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiles", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("\n".join(machine(arguments.threads, arguments.device)))
    print(f"{arguments.network}, {arguments.width} wide, {len(TIMES)} noise levels, {arguments.batch} image(s) of {arguments.size} px")
    if arguments.tiles:
        measure_memory(arguments)
    else:
        measure_time(arguments)


if __name__ == "__main__":
    main()
