"""Kept diffusion features: what reading a tile costs against making it, how large it is, how far off, and what a step of the head costs.

    python benchmarks/feature_cache.py [--network ddpm_sr3_128] [--size 256] [--tiles 2] [--repeats 20] [--threads 1]
        [--model ENCODER_OR_MODEL_FOLDER] [--image FILE] [--device cpu|cuda] [--folder FOLDER] [--no-head]

Maps of three noise levels at H/16 to H/2, fp32, as a training makes them. Tiles are cut out of ``--image``, from the upper left on, or are
smooth noise; weights are fresh unless ``--model`` says otherwise.

- ``make``: the noise predictor's pass for a tile, as in a training without kept features.
- ``pack``: turning its maps into a row, once.
- ``read``: copying a row out of the mapped file and turning it into float32 maps on the device. ``cold`` asks the system to forget the file
  first; how much it then reads from a disk depends on the machine.
- ``head``: forward and backward pass and AdamW of the pixel-wise head with 12 classes on one tile whose maps are in memory.

Errors are root mean squares over all values of a level, relative to the level's own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from measuring import Round, machine, spread, timed
from tilth.methods.ddpm.cache import BehindEncoder
from tilth.models.by_name import create
from tilth.models.diffusion.feature_header import KeptTile
from tilth.models.diffusion.feature_rows import DTYPES, RowLayout
from tilth.models.diffusion.feature_store import FeatureStore
from tilth.models.diffusion.segmentation import DiffusionSegmentor
from tilth.training.feature_samples import FeatureSample, RawFeatures

CLASSES = 12


def make_network(arguments: argparse.Namespace) -> DiffusionSegmentor:
    """The network, with the head that ``--network`` gives it."""
    if arguments.model is not None:
        from tilth.models.encoder_folder import load_encoder
        from tilth.models.segmenter import Segmenter, build_segmenter
        from tilth.verbs.train_model import NO_CLASSES

        try:
            model = Segmenter.load(arguments.model)
        except ValueError:
            found = load_encoder(arguments.model)
            model = build_segmenter(found.config.network, found.config.sensor, NO_CLASSES)
            found.fill(model)
        network = model.network
    else:
        network = create("ddpm_segmentor", 3, CLASSES, seed=0, unet=arguments.network)
    assert isinstance(network, DiffusionSegmentor)
    return network.to(arguments.device).requires_grad_(False).eval()


def tiles_of(arguments: argparse.Namespace) -> list[Tensor]:
    """Images (1, 3, S, S) in [-1, 1]."""
    size = arguments.size
    if arguments.image is not None:
        whole = torch.from_numpy(np.asarray(Image.open(arguments.image).convert("RGB")).copy()).permute(2, 0, 1).float() / 127.5 - 1
        places = [(y, x) for y in range(0, whole.shape[1] - size + 1, size) for x in range(0, whole.shape[2] - size + 1, size)]
        return [whole[None, :, y : y + size, x : x + size].to(arguments.device) for y, x in places[: arguments.tiles]]
    draw = torch.Generator().manual_seed(0)
    coarse = [torch.rand(1, 3, size // 8, size // 8, generator=draw) * 2 - 1 for _ in range(arguments.tiles)]
    return [nn.functional.interpolate(one, scale_factor=8.0, mode="bicubic").clamp(-1, 1).to(arguments.device) for one in coarse]


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Make, keep and read tiles; print what each took."""
    network, images, device = make_network(arguments), tiles_of(arguments), torch.device(arguments.device)
    maps: list[list[Tensor]] = []

    def make(number: int) -> None:
        maps.append(network.encoder(images[number], torch.tensor([[0, number]])))

    with torch.no_grad():
        made = [timed(partial(make, number), str(device)) for number in range(len(images))]
    # The first call of a device is slow; where it is all there is, it stands.
    makes = made[1:] or made
    print(f"make  {spread([wall for wall, _ in makes], '9.3f')} s a tile, {statistics.median(cpu for _, cpu in makes):.3f} s of processors")
    network.encoder.unet = nn.Identity()
    for dtype in DTYPES:
        measure_kept(arguments, RowLayout.of(network, arguments.size, dtype), folder / dtype, maps, makes)
    if not arguments.no_head:
        layout = RowLayout.of(network, arguments.size, DTYPES[-1])
        measure_head(network, _store(layout, folder / DTYPES[-1], len(maps)), device)


def measure_kept(arguments: argparse.Namespace, layout: RowLayout, folder: Path, maps: list[list[Tensor]], makes: list[Round]) -> None:
    """Keep maps in one way, read them and print what that took."""
    device = torch.device(arguments.device)
    mask, valid = torch.zeros(layout.side, layout.side, dtype=torch.int64), torch.ones(layout.side, layout.side, dtype=torch.bool)
    packed: list[np.ndarray] = []

    def pack(number: int) -> None:
        packed.append(layout.pack([level[0] for level in maps[number]], mask, valid))

    packs = [timed(partial(pack, number), str(device)) for number in range(len(maps))]
    _store(layout, folder, len(maps)).fill(lambda numbers: [packed[number] for number in numbers], 1, lambda _count: None)
    print(f"{layout.dtype}: {layout.row_bytes:,} bytes a tile = {layout.row_bytes / 2**20:.2f} MiB; pack {min(packs)[0]:.3f} s")
    store = _store(layout, folder, len(maps))
    _errors(store, maps)
    for name in ("read", "cold"):
        rounds = []
        for number in range(arguments.repeats):
            if name == "cold":
                store = _store(layout, folder, len(maps))
                _forget(next(folder.glob("*.bin")))
            rounds.append(timed(partial(read, store, number % len(maps), device), str(device)))
        pairs = zip(zip(*makes, strict=True), zip(*rounds, strict=True), strict=True)
        wall, cpu = (statistics.median(made) / statistics.median(took) for made, took in pairs)
        times = spread([one for one, _ in rounds], "9.4f")
        print(f"  {name}  {times} s: {wall:,.0f} times less than to make, {cpu:,.0f} by processor time")


def _store(layout: RowLayout, folder: Path, count: int) -> FeatureStore:
    return FeatureStore(folder, layout, {"variants": 1}, [KeptTile(str(number), "", 1) for number in range(count)])


def _errors(store: FeatureStore, maps: list[list[Tensor]]) -> None:
    layout = store.layout
    squares = np.zeros((len(layout.maps), 2))
    for number, levels in enumerate(maps):
        found = layout.unpack(torch.from_numpy(np.array(store.read(number)))[None])
        for place, (one, level) in enumerate(zip(found.maps, levels, strict=True)):
            squares[place] += [float((one - level.cpu()).double().square().sum()), float(level.double().square().sum())]
    each = ", ".join(f"{100 * np.sqrt(error / whole):.3f} %" for error, whole in squares)
    error, whole = squares.sum(0)
    print(f"  error {100 * np.sqrt(error / whole):.3f} % of all, by level from fine to coarse {each}")


def read(store: FeatureStore, number: int, device: torch.device) -> RawFeatures:
    """What a training does for a sample."""
    raw = RawFeatures.of([FeatureSample(store.read(number), store.layout, "", 0, ())])
    raw.to_batch(device)
    return raw


def measure_head(network: DiffusionSegmentor, store: FeatureStore, device: torch.device) -> None:
    """Print what a step of the head takes, and how much reading adds."""
    head = BehindEncoder(network)  # type: ignore[arg-type]  # only decodes
    head.train()
    learning = [weights for part in (network.decoder, network.segmentation_head) for weights in part.requires_grad_(True).parameters()]
    optimiser = torch.optim.AdamW(learning, lr=1e-4, fused=True)
    batch = RawFeatures.of([FeatureSample(store.read(0), store.layout, "", 0, ())]).to_batch(device)

    def step() -> None:
        logits = head(batch["features"], batch["mask"].shape[-2:])
        nn.functional.cross_entropy(logits, batch["mask"]).backward()
        optimiser.step()
        optimiser.zero_grad()

    wall, cpu = timed(step, str(device))
    if device.type == "cuda":
        wall, cpu = timed(step, str(device))
    reads = [timed(lambda: read(store, 0, device), str(device)) for _ in range(5)]
    taken, busy = (statistics.median(values) for values in zip(*reads, strict=True))
    print(f"head  {wall:.3f} s a tile; with reading an epoch takes {1 + taken / wall:.4f} of that, {1 + busy / cpu:.4f} by processor time")


def _forget(file: Path) -> None:
    """Ask the system to drop a file from memory."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="ddpm_sr3_128")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--tiles", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="where to keep them; by default a temporary folder")
    parser.add_argument("--no-head", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("\n".join(machine(arguments.threads, arguments.device)))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(arguments, Path(folder))


if __name__ == "__main__":
    main()
