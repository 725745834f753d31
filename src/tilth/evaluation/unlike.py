"""What should be alike in evaluations that are compared, and is not: how they were measured, and whose they are.

None of it makes a comparison impossible (with and without flips is a fair question), so it is said and not refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tilth.evaluation.result import Evaluation, InferenceSettings


def unlike(groups: Mapping[str, Sequence[Evaluation]]) -> tuple[str, ...]:
    """Say where evaluations were measured in different ways, and where seeds are one model.

    Args:
        groups: by name, one evaluation a seed.

    Returns:
        One sentence each, without full stop; empty where nothing is known to differ.
    """
    notes = []
    differing = [part for name in InferenceSettings.model_fields if (part := _differing(groups, name))]
    if differing:
        notes.append(f"Not measured alike: {'; '.join(differing)}; part of a difference may come from that")
    silent = [name for name, entries in groups.items() if any(item.inference is None for item in entries)]
    if silent and any(item.inference is not None for entries in groups.values() for item in entries):
        notes.append(f"How {_list(silent)} {'was' if len(silent) == 1 else 'were'} measured is not recorded; evaluate again to be sure")
    for name, entries in groups.items():
        twice = [number for number in Counter(item.model_hash for item in entries if item.model_hash is not None).values() if number > 1]
        if twice:
            notes.append(f"{max(twice)} seeds of {name} are one and the same model, so they are not independent")
    return tuple(notes)


def _differing(groups: Mapping[str, Sequence[Evaluation]], name: str) -> str:
    """Describe a setting that is not the same everywhere: ``window 512 in supervised, 256 in s4p``; else nothing."""
    found = {
        group: list(dict.fromkeys(str(getattr(item.inference, name)) for item in entries if item.inference is not None))
        for group, entries in groups.items()
    }
    if len({value for values in found.values() for value in values}) < 2:
        return ""
    return f"{name} {', '.join(f'{_list(values)} in {group}' for group, values in found.items() if values)}"


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
