"""What became of every tensor of a file, and of every parameter of the network."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """What loading did.

    Attributes:
        layout: name of the layout that was recognised.
        title: the same, for people.
        matched: our names of tensors taken as they are.
        resized: our names of tensors fitted to this network, with what was done: "32 x 32 to 14 x 14 positions, bicubic".
        missing: our names of what the file does not bring; stays fresh.
        unexpected: names in the file that nobody knows.
        dropped: names in the file left out on purpose, with the reason.
        matched_parameters: numbers in ``matched`` and ``resized``, buffers not counted.
        parameters: numbers in the network, buffers not counted.
    """

    layout: str
    title: str
    matched: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    matched_parameters: int = 0
    parameters: int = 0

    @property
    def share(self) -> float:
        """Share of the network's parameters that the file brought, 0 to 1."""
        return self.matched_parameters / self.parameters if self.parameters else 0.0
