"""UperNet on ViT-B: fused (SDPA) against explicit softmax attention, forward and backward, and memory with activation checkpointing.

    python benchmarks/forward.py [--sizes 256,512] [--batch 2] [--repeats 5] [--threads 1] [--no-memory] [--device cpu|cuda]

Both networks have the same weights, and all ways are measured in turns in one run, so that a busy machine slows all of them. A round is one
batch; the first of each way warms up and is not counted. Given are medians with the smallest and the largest:

- images a second by the wall clock, and its ratio to explicit attention, round by round;
- on a CPU the processor's milliseconds for an image, which count all threads and hardly feel other programs;
- on a GPU also bfloat16 autocast, and that compiled; for bfloat16 the share of the dense peak (``--peak-tflops``, 989 for an H200) that the
  multiplications and additions of the network come to, as torch counts them with explicit attention.

There is no optimiser step in these figures. "forward" is in evaluation mode without gradients; "both" is forward in training mode, a mean
over the logits, backward. Batches have two images at least, for the batch norm of the decoder. Full precision is torch's default: on GPUs
convolutions may use TF32, matrix products do not.

Memory is that of one forward and backward in a fresh process, less what the process held before, weights included: on a CPU the highest
resident memory (VmHWM of /proc/self/status, reset before), on a GPU ``torch.cuda.max_memory_allocated``. Gradients are in it.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import nn

from measuring import Round, count_flops, machine, peak_mib, spread, timed
from tilth.models.by_name import create

NETWORK = "upernet_vit_b"
CLASSES = 16
ATTENTIONS = ("explicit", "sdpa")
PASSES = ("forward", "both")


def make_network(attention: str, size: int, device: str, *, checkpointing: bool = False) -> nn.Module:
    """The network with fresh weights, the same for both kinds of attention."""
    return create(NETWORK, 3, CLASSES, size, seed=0, attention=attention, checkpointing=checkpointing).to(device)


def make_pass(network: nn.Module, images: torch.Tensor, kind: str, precision: str) -> Callable[[], None]:
    """One batch through the network."""
    mixed = torch.autocast(images.device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()

    def forward() -> None:
        with torch.no_grad(), mixed:
            network(images)

    def both() -> None:
        with mixed:
            mean = network(images).float().mean()
        mean.backward()
        network.zero_grad(set_to_none=True)

    return forward if kind == "forward" else both


def ways_of(size: int, kind: str, arguments: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Everything that is compared at one size."""
    images = torch.randn(
        arguments.batch, 3, size, size, device=arguments.device, generator=torch.Generator(arguments.device).manual_seed(0)
    )
    networks = {attention: make_network(attention, size, arguments.device).train(kind == "both") for attention in ATTENTIONS}
    with torch.no_grad():
        logits = [network.eval()(images) for network in networks.values()]
    print(f"{size} px, {kind}: logits of both kinds differ by at most {float((logits[0] - logits[1]).abs().max()):.1e}")
    for network in networks.values():
        network.train(kind == "both")
    ways = {f"fp32 {attention}": make_pass(network, images, kind, "fp32") for attention, network in networks.items()}
    if arguments.device == "cuda":
        ways |= {f"bf16 {attention}": make_pass(network, images, kind, "bf16") for attention, network in networks.items()}
        ways["bf16 sdpa, compiled"] = make_pass(torch.compile(networks["sdpa"]), images, kind, "bf16")
    return ways


def measure_time(size: int, kind: str, arguments: argparse.Namespace) -> None:
    """Time all ways in turns and print them."""
    ways = ways_of(size, kind, arguments)
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    for number in range(arguments.repeats + 1):
        # Turn about: what comes first is not always the same.
        for name in sorted(ways, reverse=bool(number % 2)):
            found = timed(ways[name], arguments.device)
            if number:
                rounds[name].append(found)
    operations = count_flops(lambda: create(NETWORK, 3, CLASSES, size, attention="explicit"), size, backward=kind == "both")
    print(f"{'':20} {'images a second':>26} {'ratio to explicit':>26} {'ms processor/image':>28} {'share of peak':>14}")
    for name, found in rounds.items():
        precision, _, _ = name.partition(" ")
        base = rounds[f"{precision} explicit"]
        rates = [arguments.batch / wall for wall, _ in found]
        ratios = [wall / own for (wall, _), (own, _) in zip(base, found, strict=True)]
        busy = spread([1e3 * used / arguments.batch for _, used in found], "8.0f") if arguments.device == "cpu" else ""
        share = f"{operations * statistics.median(rates) / (arguments.peak_tflops * 1e12):.1%}" if precision == "bf16" else ""
        print(f"{name:20} {spread(rates, '7.3f')} {spread(ratios, '7.3f')} {busy:>28} {share:>14}", flush=True)
    print(f"{operations / 1e9:.1f} GFLOP an image")


def measure_memory(size: int, arguments: argparse.Namespace) -> None:
    """Print the peaks of fresh processes."""
    precisions = ("fp32",) if arguments.device == "cpu" else ("fp32", "bf16")
    for precision in precisions:
        for attention in ATTENTIONS:
            for checkpointing in (False, True):
                way = f"{attention},{precision},{int(checkpointing)}"
                command = [sys.executable, __file__, "--peak-of", way, "--sizes", str(size), "--batch", str(arguments.batch)]
                command += ["--device", arguments.device, "--threads", str(arguments.threads)]
                ran = subprocess.run(command, capture_output=True, text=True, check=True)
                told = f"{size} px, both, {precision} {attention}" + (", checkpointing" if checkpointing else "")
                print(f"{told:50} {float(ran.stdout):9.0f} MiB", flush=True)


def peak(way: str, size: int, batch: int, device: str) -> float:
    """Highest memory that one forward and backward adds, in MiB."""
    attention, precision, checkpointing = way.split(",")
    network = make_network(attention, size, device, checkpointing=checkpointing == "1").train()
    work = make_pass(network, torch.randn(batch, 3, size, size, device=device), "both", precision)
    return peak_mib(work, device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak-of", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = [int(text) for text in arguments.sizes.split(",")]
    if arguments.peak_of:
        print(peak(arguments.peak_of, sizes[0], arguments.batch, arguments.device))
        return
    print("\n".join(machine(arguments.threads, arguments.device)))
    print(f"{NETWORK}, {CLASSES} classes, batches of {arguments.batch}")
    for size in sizes:
        for kind in PASSES if arguments.repeats else ():
            measure_time(size, kind, arguments)
        if not arguments.no_memory:
            measure_memory(size, arguments)


if __name__ == "__main__":
    main()
