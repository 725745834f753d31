"""Files of weights in, without running anything that they hold.

A published file is a pickle as often as not, and a pickle is a program. Everything here is read by torch's restricted reader
(``weights_only=True``), which knows tensors and plain containers. What training programs leave beside the weights (settings, paths, NumPy
numbers) is read as :class:`tilth.models.weights.inert.Inert` data; any other name in a pickle is refused, and refusing runs nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tilth.errors import MissingFileError, TilthError, UnreadableFileError, UsageError
from tilth.models.weights.bombs import check_inflation, check_pickle
from tilth.models.weights.containers import unwrap
from tilth.models.weights.hub import CONFIG_FILE, OUR_FILE, USUAL_FILES, fetch, is_hub_name
from tilth.models.weights.inert import STAND_INS

_KNOWN_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch it with git lfs pull or download it again"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file (Keras?); convert it to a torch state dict first"),
    (b"\x93NUMPY", "one NumPy array; weights need names"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard; unpack it first"),
    (b"ARROW1", "an Arrow file"),
    (b"PAR1", "a Parquet table"),
)
_EXPECTED = "expected a torch file (.pth, .pt, .ckpt, .bin) or safetensors"
_LONG = 120
_TAR_MAGIC = slice(257, 262)


@dataclass(frozen=True)
class Source:
    """Tensors of a file, and where they came from.

    Attributes:
        tensors: by their names in the file, wrappings such as ``state_dict`` and ``module.`` taken off. May be mapped from the file: copy
            before the file changes.
        title: what to call it in messages: the path, the hub's name, or "the state dict given".
        sha256: of the file, 64 hexadecimal digits; None for a dictionary.
        config: what ``config.json`` of a model folder of tilth says; None for other files.
        notes: what was taken off, and what else could have been taken.
        took: the word that says what to take named a wrapping, so that it is no word for a layout any more.
        beside: wrappings of unknown names that hold tensors, too, and can be taken by name.
    """

    tensors: dict[str, Tensor]
    title: str
    sha256: str | None = None
    config: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    took: bool = False
    beside: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the file is of a model folder of tilth, so that its names are those of our networks."""
        return self.config is not None


def read_weights(source: str | Path | Mapping[str, Any], take: str | None = None) -> Source:
    """Read named tensors, onto the CPU, and take off what training programs wrap around them.

    Args:
        source: a torch file of any age, a safetensors file, a model folder of tilth or of the Hugging Face hub, a name there
            (``hf-hub:owner/name``, ``hf-hub:owner/name/file``, ``timm:name``), or a state dict, wrapped or not.
        take: which wrapping to open where a file has several, such as ``teacher``, ``student`` or ``model_ema``; layouts know other words.

    Raises:
        MissingFileError: nothing there.
        UnreadableFileError: not weights, damaged, or a pickle that names anything but data.
        RunError: a name on the hub that cannot be fetched.
        UsageError: neither a path nor a dictionary.

    Example:
        >>> found = read_weights({"state_dict": {"module.conv.weight": torch.zeros(1)}, "epoch": 3})
        >>> list(found.tensors), found.notes
        (['conv.weight'], ['inside state_dict', 'module. taken off'])
    """
    if isinstance(source, Mapping):
        found = unwrap(source, take, "the state dict given")
        return Source(found.tensors, "the state dict given", notes=found.notes, took=found.took, beside=found.beside)
    if not isinstance(source, str | Path):
        raise UsageError(f"got weights of type {type(source).__name__}; expected a path, a name on the hub or a state dict")
    if isinstance(source, str) and is_hub_name(source):
        file, title = fetch(source), source
        config = _our_config(file.with_name(CONFIG_FILE)) if file.name == OUR_FILE else None
    else:
        file, title, config = Path(source), str(source), None
    try:
        if file.is_dir():
            file, config = _file_in_folder(file)
            title = str(file)
        there = file.is_file()
    except TilthError:  # some are ValueErrors, too
        raise
    except (OSError, ValueError) as error:  # a name too long for any file, or with a zero in it
        raise MissingFileError(f"{title[:_LONG]}: cannot be a file ({' '.join(str(error).split())[:_LONG]}); {_EXPECTED}") from None
    if not there:
        raise MissingFileError(f"{title}: no such file; {_EXPECTED}, a model folder, or hf-hub:owner/name")
    unwrapped = unwrap(_read_file(file), take, title)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Source(unwrapped.tensors, title, digest, config, unwrapped.notes, unwrapped.took, unwrapped.beside)


def _read_file(file: Path) -> Any:
    """Read whatever the file holds, told by its first bytes: names of files lie."""
    with file.open("rb") as opened:
        head = opened.read(1024)
    if not head:
        raise UnreadableFileError(f"{file}: is empty; download it again")
    if _is_safetensors(head) or file.suffix == ".safetensors":
        return _read_safetensors(file, head)
    for beginning, what in _KNOWN_BEGINNINGS:
        if head.startswith(beginning):
            raise UnreadableFileError(f"{file}: is {what}; {_EXPECTED}" if ";" not in what else f"{file}: is {what}")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UnreadableFileError(f"{file}: is a web page, not weights: the download was answered with a page; download it again")
    if head[_TAR_MAGIC] == b"ustar":
        raise UnreadableFileError(f"{file}: is a tar archive; unpack it and give the file inside")
    if zipfile.is_zipfile(file):
        return _read_zip(file)
    if head.startswith(b"PK"):
        raise UnreadableFileError(f"{file}: is cut short or damaged; download it again")
    if head[:1] != b"\x80":
        what = "is JSON" if text[:1] in (b"{", b"[") else "is text" if text.isascii() and b"\x00" not in text else "is of no known format"
        raise UnreadableFileError(f"{file}: {what}, not weights; {_EXPECTED}")
    with file.open("rb") as opened:
        check_pickle(file, opened)
    return _read_torch(file, mmap=False)


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 30


def _read_safetensors(file: Path, head: bytes) -> dict[str, Tensor]:
    if not _is_safetensors(head):
        if head.startswith((b"PK", b"\x80")):
            raise UnreadableFileError(f"{file}: is called safetensors and is a torch file; give it the suffix .pth")
        raise UnreadableFileError(f"{file}: is called safetensors and is not; download it again")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error while deserializing header: ")
        raise UnreadableFileError(f"{file}: safetensors that are cut short or damaged ({reason}); download it again") from None


def _read_zip(file: Path) -> Any:
    """Read a torch file of 2020 or later, its tensors mapped: what is not copied out of it, such as states of optimisers, is not read."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            check_inflation(file, members)
            for member in members:
                if member.filename.endswith("/data.pkl"):
                    with archive.open(member) as pickled:
                        check_pickle(file, pickled)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise UnreadableFileError(f"{file}: cut short or damaged ({error}); download it again") from None
    names = [member.filename for member in members]
    if any(re.fullmatch(r"[^/]+/(constants\.pkl|code/.*)", name) for name in names):
        raise UnreadableFileError(f"{file}: is a TorchScript program, which cannot be read without running it; save its state_dict instead")
    if not any(re.fullmatch(r"[^/]+/data\.pkl", name) for name in names):
        inside = [name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".npy"))][:3]
        holds = f" with {', '.join(inside)} inside" if inside else ""
        raise UnreadableFileError(f"{file}: is a zip archive{holds}, not weights; unpack it first; {_EXPECTED}")
    return _read_torch(file, mmap=all(member.compress_type == zipfile.ZIP_STORED for member in members))


def _read_torch(file: Path, *, mmap: bool) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols and storages that a newer torch would write otherwise
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    # A damaged pickle ends in almost any error of Python's; each of them says the same to a user.
    except Exception as error:
        raise UnreadableFileError(_complaint(file, error)) from None


def _complaint(file: Path, error: Exception) -> str:
    text = str(error)
    if "Invalid magic number" in text or "torch.storage._load_from_bytes" in text:  # how a tensor is pickled without torch.save
        return f"{file}: is a plain pickle, not a torch file; save it again with torch.save(state_dict, FILE)"
    refused = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", text)
    if refused:
        return (
            f"{file}: refused, since it names {refused[1]}, which is a program and not data; nothing was run. If you trust the file, "
            "open it where it was made and save model.state_dict() alone"
        )
    operand = re.search(r"Unsupported operand (\d+)", text)
    if operand:
        return f"{file}: a pickle of a kind that cannot be read safely; save it again with torch.save(state_dict, FILE)"
    if "Can only" in text or "unrecognized function" in text:
        return f"{file}: refused, since its pickle builds objects that are not data; nothing was run. Save model.state_dict() alone"
    if "legacy .tar" in text:
        return f"{file}: was written by a torch older than 0.2; save it again with a newer one"
    return f"{file}: cut short or damaged ({type(error).__name__}); download it again"


def _file_in_folder(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """Find the weights of a model folder, ours or of the Hugging Face hub; second: its configuration if it is ours."""
    places = [folder, folder / "model"]
    for place in places:
        for name in USUAL_FILES:
            if (place / name).is_file() and ((place / CONFIG_FILE).is_file() or place == folder):
                return place / name, _our_config(place / CONFIG_FILE)
    if (folder / "checkpoints").is_dir():
        raise MissingFileError(f"{folder}: this run is not finished and holds no model yet; go on with --resume")
    if list(folder.glob("*.index.json")):
        raise UnreadableFileError(f"{folder}: weights in several shards are not read; join them into one model.safetensors")
    found = sorted(path.name for path in folder.iterdir() if path.suffix in {".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar"})
    inside = f"; it holds {', '.join(found[:5])}: give one of them" if found else ""
    raise MissingFileError(f"{folder}: a folder without {USUAL_FILES[0]}{inside or '; give a file of weights or a model folder'}")


def _our_config(file: Path) -> dict[str, Any] | None:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) and str(tree.get("model_type", "")).startswith("tilth-") else None
