"""Freed memory is kept while a CPU trains, and given back afterwards."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from tilth.training import memory


class Library:
    """Notes what it is asked."""

    def __init__(self, most: int = 2**40) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.most = most

    def mallopt(self, number: int, value: int) -> int:
        self.asked.append((number, value))
        return int(value <= self.most)

    def malloc_trim(self, padding: int) -> int:
        self.asked.append((padding,))
        return 1


@pytest.mark.parametrize("fails", [False, True])
def test_the_library_is_told_before_and_after_even_if_the_training_fails(monkeypatch, fails):
    library = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: library)

    with pytest.raises(KeyError) if fails else nullcontext(), memory.kept_memory(torch.device("cpu")):
        assert library.asked == [(-3, 2**30), (-1, -1)]
        if fails:
            raise KeyError
    assert library.asked[2:] == [(-3, 2**25), (-1, 2**26), (0,)]


def test_older_libraries_are_asked_for_what_they_take(monkeypatch):
    library = Library(most=2**25)
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    with memory.kept_memory(torch.device("cpu")):
        assert library.asked == [(-3, 2**30), (-3, 2**25), (-1, -1)]


def test_nothing_is_asked_on_other_devices_or_of_other_libraries(monkeypatch):
    library = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    with memory.kept_memory(torch.device("cuda")):
        assert not library.asked
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with memory.kept_memory(torch.device("cpu")):
        assert not library.asked


def test_a_process_without_that_library_goes_on(monkeypatch):
    for failure in (OSError, TypeError):

        def refuse(_name: object, failure: type[Exception] = failure) -> None:
            raise failure

        monkeypatch.setattr("ctypes.CDLL", refuse)
        assert memory._glibc() is None
