"""One encoder for several tasks, with an expert, a decoder and a head for each (s5_finetune.md sections 1 to 4).

A task is a data set with its own classes. Which one an image belongs to is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from tilth.errors import ConfigError, UsageError, suggest
from tilth.models.network import pad_to_multiple


class MultiTaskNetwork(nn.Module):
    """Encoder with experts, and for each task a decoder and a head. Images of any size, as in :class:`SegmentationNetwork`.

    Attributes:
        encoder: (B, C, H, W) and position of the task -> list of feature maps, finest first.
        decoders: by task, list -> one map.
        heads: by task, map -> logits of the padded image's size.
        tasks: number of classes by task, in the order of the experts.
        divisor: sides inside must be multiples of this many pixels.
        minimum: smallest side inside.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        tasks: Mapping[str, int],
        *,
        divisor: int,
        minimum: int = 0,
    ) -> None:
        super().__init__()
        self.tasks = check_tasks(tasks)
        self.encoder = encoder
        self.decoders = nn.ModuleDict({task: decoders[task] for task in self.tasks})
        self.heads = nn.ModuleDict({task: heads[task] for task in self.tasks})
        self.divisor = divisor
        self.minimum = minimum

    def index(self, task: str) -> int:
        """Position of a task, which is that of its experts.

        Raises:
            UsageError: there is no such task.
        """
        if task not in self.tasks:
            raise UsageError(f"the network has no task {task!r}; {suggest(str(task), self.tasks)}")
        return list(self.tasks).index(task)

    def encode(self, image: Tensor, task: str) -> list[Tensor]:
        """Turn images (B, C, H, W), sides as ``divisor`` asks, into feature maps for a task, finest first."""
        return list(self.encoder(image, self.index(task)))

    def decode(self, features: list[Tensor], task: str) -> Tensor:
        """Turn feature maps into logits (B, K of the task, H, W) at the size of the encoded image."""
        return cast("Tensor", self.heads[task](self.decoders[task](features)))

    def forward(self, image: Tensor, task: str) -> Tensor:
        """Compute logits for a task.

        Args:
            image: float (B, C, H, W), normalised; any H and W.
            task: the data set that all images of the batch belong to.

        Returns:
            Logits float (B, K of the task, H, W).

        Raises:
            UsageError: there is no such task.
        """
        height, width = image.shape[-2:]
        features = self.encode(pad_to_multiple(image, self.divisor, self.minimum), task)
        return self.decode(features, task)[..., :height, :width]


def check_tasks(tasks: Mapping[str, int]) -> dict[str, int]:
    """Return the tasks as a dictionary.

    Raises:
        ConfigError: none, a name that cannot name a part of a network, names that differ in case alone, or a number of classes below one.
    """
    if not tasks:
        raise ConfigError("tasks is empty; give the number of classes for each, such as {'vaihingen': 5, 'loveda': 7}")
    for name, classes in tasks.items():
        if not name or "." in name or hasattr(nn.ModuleDict, name) or name in vars(nn.ModuleDict()):
            raise ConfigError(f"tasks: {name!r} cannot name a part of a network; choose a word without dots")
        if type(classes) is not int or classes < 1:
            raise ConfigError(f"tasks: {name} has {classes!r} classes; give a whole number from 1")
    twins = [name for name in tasks if sum(name.casefold() == other.casefold() for other in tasks) > 1]
    if twins:
        raise ConfigError(f"tasks: {', '.join(twins)} differ in case alone, which published files do not keep; choose other names")
    return dict(tasks)
