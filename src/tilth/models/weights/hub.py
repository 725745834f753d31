"""Weights by name on the Hugging Face hub, fetched into its cache."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tilth.errors import RunError, UsageError, suggest

_HUB, _TIMM = "hf-hub:", "timm:"
USUAL_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What libraries call the file of weights in a folder, the usual one first."""
OUR_FILE, CONFIG_FILE = USUAL_FILES[0], "config.json"
"""The two files of a model folder."""


def is_hub_name(name: str) -> bool:
    """Whether a source is a name on the hub: ``hf-hub:owner/name[/file][@revision]`` or ``timm:name``."""
    return name.startswith((_HUB, _TIMM))


def fetch(name: str) -> Path:
    """Fetch a file of the hub, or find it in the cache.

    Args:
        name: ``hf-hub:owner/name`` (the usual files in turn), ``hf-hub:owner/name/file``, either with ``@revision`` behind, or a name that
            timm lists, such as ``timm:vit_base_patch16_224.mae``.

    Returns:
        The file in the cache. Beside a ``model.safetensors`` lies the ``config.json`` of the repository, if it has one.

    Raises:
        UsageError: a name that cannot be one.
        RunError: no network and not in the cache, or nothing of that name.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    repository, file, revision = _parse_timm(name) if name.startswith(_TIMM) else _parse(name)
    files = [file] if file else list(USUAL_FILES)
    for candidate in files:
        try:
            return _fetched(repository, candidate, revision)
        except LocalEntryNotFoundError as error:  # also an EntryNotFoundError
            raise RunError(f"{name}: cannot be fetched and is not in the cache: {_reason(error)}; give a file instead") from None
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError:
            raise RunError(
                f"{name}: the hub has no {repository!r}, or it is private; check the name or log in with hf auth login"
            ) from None
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise RunError(f"{name}: cannot be fetched: {_reason(error)}; check the network and the name, or give a file instead") from None
    raise RunError(f"{name}: {repository} holds no {' nor '.join(files)}; name the file: {_HUB}{repository}/FILE")


def _fetched(repository: str, file: str, revision: str | None) -> Path:
    """Fetch a file, and with the weights of a model folder its configuration; a folder of somebody else need not have one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    found = Path(hf_hub_download(repository, file, revision=revision))
    if file == OUR_FILE:
        with contextlib.suppress(HfHubHTTPError, OSError, ValueError):
            hf_hub_download(repository, CONFIG_FILE, revision=revision)
    return found


def _parse(name: str) -> tuple[str, str | None, str | None]:
    place, _, revision = name.removeprefix(_HUB).partition("@")
    parts = place.split("/")
    if len(parts) < 2 or not all(parts):
        raise UsageError(f"{name}: expected {_HUB}owner/name or {_HUB}owner/name/file")
    return "/".join(parts[:2]), "/".join(parts[2:]) or None, revision or None


def _parse_timm(name: str) -> tuple[str, str | None, str | None]:
    import timm

    model = name.removeprefix(_TIMM)
    try:
        config = timm.get_pretrained_cfg(model) if timm.is_model(model.partition(".")[0]) else None
    except (RuntimeError, ValueError, KeyError):  # a tag that the model does not have
        config = None
    if config is None:
        near = timm.list_pretrained(f"*{model.partition('.')[0][:12]}*")[:8]
        raise UsageError(f"{name}: timm publishes no weights of that name; {suggest(model, near)}")
    if not config.hf_hub_id:
        raise UsageError(f"{name}: timm does not keep these weights on the hub; download {config.url or 'them'} and give the file")
    return str(config.hf_hub_id), config.hf_hub_filename or None, None


def _reason(error: BaseException) -> str:
    """First line of what the library says; it explains at length."""
    cause = error.__cause__ or error
    return (" ".join(str(cause).split()) or type(cause).__name__)[:160]
