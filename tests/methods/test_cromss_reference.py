"""What copies in tests/fixtures/cromss leave out, where the whole reference is at hand: every epoch, season, pixel, term and gradient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from support.cromss_method import CLASSES, settings_of
from tilth.methods.cromss.consistency import trust
from tilth.methods.cromss.objective import consistency_losses, judge, segmentation_loss
from tilth.methods.cromss.ramps import kept_ratio, ramp
from tilth.methods.cromss.segmentation import soft_cross_entropy
from tilth.methods.cromss.selection import select
from tilth.methods.cromss.smoothing import label_prior, soft_labels

WHOLE = Path(__file__).parents[2].parent / "shared" / "reference" / "cromss"

pytestmark = pytest.mark.skipif(not WHOLE.exists(), reason="needs the reference fixtures")


def whole(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(WHOLE / f"{name}.npz").items()}


def test_weights_of_labels_and_teachers_at_all_epochs():
    stored, seen = whole("selection"), 0
    label, enhanced = stored["y"].long(), torch.stack([stored["lbl_enh1"], stored["lbl_enh2"]])
    every = torch.ones_like(label, dtype=torch.bool)
    for name, wanted in stored.items():
        if "mask" not in name:
            continue
        kind, epoch, *rest = name.split("_")
        progress, place = ramp(kind, int(epoch[2:]), 80), int(name[-1]) - 1
        if rest[-1].startswith("predmask"):
            found = trust(torch.stack([stored[f"{rest[0]}_pred_enh{modality}"] for modality in (1, 2)]), progress, every)[place]
        else:
            ratio = kept_ratio(progress, float(stored["prop"]))
            found = select(enhanced, label, CLASSES, ratio, balanced="global" not in name, rare="drop").weight[place]
            assert (found == 1).sum() == (wanted == 1).sum(), name
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0, check_dtype=False, msg=name)
        seen += 1
    assert seen == 2 * 11 * 8


def test_priors_and_softened_labels_of_all_seasons_at_every_pixel():
    stored = whole("smoothing")
    label = stored["labels"].long()
    priors = {kind: label_prior(label, label.expand(4, -1, -1, -1), CLASSES, kind) for kind in ("t", "s", "ts")}
    made = {f"prior_{kind}": prior for kind, prior in priors.items()} | {
        "target_ts2": soft_labels(label, priors["ts"], CLASSES, *stored["lsf2"].tolist()),
        "target_ts1": soft_labels(label, priors["ts"], CLASSES, float(stored["lsf1"])),
        "target_uniform": soft_labels(label, None, CLASSES, uniform_share=float(stored["lsf1"])),
    }
    wanted = [name for name in stored if name.startswith(("prior_", "target_"))]
    assert len(wanted) == 18
    for name in wanted:
        kind, _, season = name.partition("_season")
        torch.testing.assert_close(made[kind][int(season or 0)], stored[name], atol=1e-6, rtol=0, check_dtype=False, msg=name)


def test_every_term_and_gradient_of_every_scenario():
    stored, facts = whole("losses"), json.loads((WHOLE / "losses.json").read_text())
    label, seen = stored["y"].long(), 0
    names = {name.split("/")[0] for name in stored if "/" in name} - {"validation", "plain_mm"}
    assert names == {name for name in facts if "config" in facts[name]}
    for name in sorted(names):
        wanted = {key.partition("/")[2]: value for key, value in stored.items() if key.startswith(f"{name}/")}
        about = facts[name]["config"]
        config = settings_of(about)
        raw = [stored[f"logits{place}"].clone().requires_grad_() for place in (1, 2)]
        found = [item.log_softmax(1) for item in raw]
        weights = judge(found, 2, label, ramp(config.ramp, about["epoch"], config.ramp_passes), config)
        target = soft_labels(label, stored["prior"], CLASSES, config.prior_share, config.uniform_share)
        made = {}
        for place in (1, 2):
            given = raw[place - 1], found[place - 1], label, target, weights.chosen.weight[place - 1]
            made |= {
                f"{long}{place}": segmentation_loss(*given, config.model_copy(update={"terms": short}))
                for long, short in (("ce", "c"), ("dice", "d"), ("focal", "f"))
            }
            made[f"tr_segloss_{place}"] = segmentation_loss(*given, config)
            made[f"ce_pixel{place}"] = soft_cross_entropy(found[place - 1], target)
        made["tr_segloss"] = made["tr_segloss_1"] + made["tr_segloss_2"]
        taught = [] if config.consistency == "none" else consistency_losses(found, weights.trusted, config)
        made |= dict(zip(("tr_conloss_2t", "tr_conloss_2i"), taught, strict=False))
        made["tr_conloss"] = torch.stack([torch.zeros(()), *taught]).sum()
        made["total"] = made["tr_loss"] = made["tr_segloss"] + config.consistency_weight * made["tr_conloss"]
        made["total"].backward()
        made |= {f"grad{place}": raw[place - 1].grad for place in (1, 2)}
        for key, value in wanted.items():
            near = {"atol": 2e-8, "rtol": 1e-4} if key.startswith("grad") else {"atol": 1e-6 if "pixel" in key else 0, "rtol": 1e-5}
            torch.testing.assert_close(made[key].detach(), value, **near, check_dtype=False, msg=f"{name}/{key}")
            seen += 1
    assert seen == len([key for key in stored if "/" in key]) - 2
