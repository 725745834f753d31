"""CromSS: several modalities learn one noisy label map, and each helps to tell which labels the others should believe (cromss.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from tilth.batch import Batch
from tilth.config import Config
from tilth.methods.base import Losses, Method, Stream
from tilth.methods.cromss.confidence import labelled_pixels
from tilth.methods.cromss.health import collapse_warnings, health
from tilth.methods.cromss.objective import consistency_losses, judge, segmentation_loss, targets
from tilth.methods.cromss.ramps import ramp
from tilth.methods.cromss.settings import CromssConfig
from tilth.models.fused import JOINT, FusedNetwork
from tilth.models.segmenter import Segmenter

ALONE = "alone"
"""What the branch of a network is called that has no branches."""


class Branches(nn.Module):
    """The model, called so that it gives the logits of every branch and not their mean.

    Attributes:
        model: a Segmenter; of a network without branches it is the only one.
    """

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the branches."""
        network = self.model.network
        return tuple(network.branches) if isinstance(network, FusedNetwork) else (ALONE,)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Turn images (B, C, H, W), normalised, into logits (B, K, H, W) of each branch."""
        network = self.model.network
        return network.branch_logits(image) if isinstance(network, FusedNetwork) else (self.model(image),)


class Cromss(Method):
    """Each modality learns the labels that it and the others find likely, and what the others predict where they are sure."""

    Config: ClassVar[type[Config]] = CromssConfig
    streams: Mapping[str, Stream] = {"labelled": Stream("labelled", seasons=True, reference=True)}
    config: CromssConfig

    def __init__(self, config: CromssConfig, model: Segmenter) -> None:
        super().__init__(config, model)
        branches = Branches(model)
        self.branches = branches.names
        self.modalities = len(self.branches) - (JOINT in self.branches)
        self.trained = self.student = branches

    def progress(self, step: int) -> float:
        """How far the selection has set in before a step: q, a pure function of the step."""
        config = self.config
        if config.ramp_steps is not None:
            return ramp(config.ramp, step, config.ramp_steps)
        return ramp(config.ramp, self.passes(step), config.ramp_passes)

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """L = sum of S_d over branches + weight times (T_{2->1} + T_{1->2}); see cromss.md section 4.9."""
        config, batch, classes = self.config, batches["labelled"], len(self.model.scheme)
        label = batch["mask"]

        # Once for all that follows: saturated logits have exact entropies, and nothing is computed twice.
        logits = self.student(batch["image"])
        log_probabilities = [item.float().log_softmax(1) for item in logits]
        modal = log_probabilities[: self.modalities]

        # How much every label, and every teacher, is worth at every pixel.
        found = judge(log_probabilities, self.modalities, label, self.progress(step), config, self._pooled)

        # Labels that know their neighbourhood and other seasons; selection looks at the hard ones.
        target = targets(label, batch.get("seasons"), classes, config)
        terms = {
            f"loss_{branch}": segmentation_loss(raw, item, label, target, weight, config, self.count)
            for branch, raw, item, weight in zip(self.branches, logits, log_probabilities, found.chosen.weight, strict=True)
        }
        if config.consistency != "none" and self.modalities > 1:
            taught = consistency_losses(modal, found.trusted, config, self.count)
            terms |= {
                f"loss_{name}_consistency": config.consistency_weight * loss for name, loss in zip(self.branches, taught, strict=False)
            }

        shares = health(self.branches, self.modalities, log_probabilities, label, found.chosen, found.trusted, batch.get("reference"))
        return Losses(terms, shares | {"labelled_share": (labelled_pixels(label, classes).sum(), batch["valid"].sum())})

    def warnings(self, shares: Mapping[str, list[float]], step: int) -> list[str]:
        """Warn of a branch that predicts one class nearly everywhere."""
        return collapse_warnings(shares, self.branches, self.model.scheme.names) if step >= self.config.collapse_grace else []

    def _pooled(self, counts: Tensor) -> Tensor:
        return self.gather(counts).sum(0) if self.config.ranked_over == "all" else counts
