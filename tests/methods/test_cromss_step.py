"""A whole step of CromSS: as published on published networks, for any sensors, and honest about what it selects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from support.cromss_method import CLASSES, make_batch, make_method, numbers
from support.official_cromss import manifest, official_tensors, recipe
from support.tiny_networks import OPTIONS
from support.training_sample import NETWORK
from tilth.batch import Batch
from tilth.errors import ConfigError
from tilth.methods.cromss import objective
from tilth.methods.cromss.method import ALONE
from tilth.models import load_weights, official_state_dict
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.sensors import get_sensor


def fused(network: NetworkConfig = NETWORK, **fusion) -> NetworkConfig:
    return network.model_copy(update={"fusion": FusionConfig(**fusion)})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mid", "late"])
def test_one_training_step_is_the_published_one(kind, monkeypatch):
    stored = numbers(f"trainstep_{kind}2")
    network = NetworkConfig(name="cromss_unet_resnet50", fusion=FusionConfig(kind=kind))
    method = make_method({"rare_class": "drop"}, network, get_sensor("s1+s2_l1c"))
    report = load_weights(method.model, {f"net.{key}": tensor for key, tensor in official_tensors(manifest(f"{kind}2")).items()})
    assert (report.verdict, report.layout) == ("complete", "cromss-fusion")
    # The recorded prior is not that of the labels.
    prior = recipe("input:step_prior", (2, CLASSES, 64, 64)).softmax(1)
    monkeypatch.setattr(objective, "label_prior", lambda *_: prior)
    label = recipe("input:step_lab", (2, CLASSES, 8, 8)).argmax(1).repeat_interleave(8, 1).repeat_interleave(8, 2)
    batch = make_batch(15, 64) | {"image": recipe("input:step_img", (2, 15, 64, 64)), "mask": label}
    losses = method.step({"labelled": batch}, int(stored["epoch"]))
    losses.total.backward()

    assert losses.total.item() == pytest.approx(float(stored["loss"]), rel=1e-4)
    wanted = [float(stored[f"logged/tr_{name}"]) for name in ("segloss_1", "segloss_2", "conloss_2t", "conloss_2i")]
    assert [losses.terms[f"loss_{name}"].item() for name in ("s1", "s2_l1c", "s1_consistency", "s2_l1c_consistency")] == pytest.approx(
        wanted, rel=1e-4
    )
    official = official_state_dict(method.model)
    gradients = {parameter.data_ptr(): parameter.grad for parameter in method.model.parameters()}
    for name, norm in zip(stored["names"], stored["grad_norms"], strict=True):
        gradient = gradients[official[str(name)].data_ptr()]
        assert (0 if gradient is None else gradient.norm().item()) == pytest.approx(norm, rel=1e-2, abs=1e-4), name
    norms = [name for name in stored if name.startswith("bn_after/")]
    assert len(norms) == 12
    for name in norms:
        torch.testing.assert_close(official[name.removeprefix("bn_after/")], torch.from_numpy(stored[name]), atol=1e-4, rtol=1e-4)


NETWORKS = {
    "mid": fused(),
    "late": fused(kind="late"),
    "joint": fused(joint=True),
    "late joint": fused(kind="late", joint=True),
    "one modality": fused(use=("s2_l2a_9",)),
    "three groups": fused(branches={"radar": ("VV", "VH"), "visible": ("B02", "B03", "B04"), "infrared": ("B11", "B08")}),
    "no branches": NETWORK,
    "transformer": fused(NetworkConfig(name="upernet_vit_b", image_size=32, options=OPTIONS["upernet_vit_b"])),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_any_branches_give_finite_losses_that_reach_every_weight(name):
    method = make_method({"terms": "cdf"}, NETWORKS[name])
    batch = make_batch(size=40)
    batch["mask"][0, :3] = 255
    losses = method.step({"labelled": batch}, 40)
    losses.total.backward()
    modalities = method.modalities
    consistency = modalities if modalities > 1 else 0
    assert list(losses.terms) == [f"loss_{branch}" for branch in method.branches] + [
        f"loss_{branch}_consistency" for branch in method.branches[:consistency]
    ]
    assert torch.isfinite(losses.total)
    for parameter_name, parameter in method.trained.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and torch.isfinite(parameter.grad).all()), parameter_name
    assert ("agreement" in losses.shares) == (modalities > 1)
    assert method.branches == (ALONE,) or method.branches[:1] != (ALONE,)


def test_a_joint_branch_teaches_nobody():  # finding 7
    method = make_method({}, NETWORKS["joint"])
    assert method.branches == ("s1", "s2_l2a_9", "joint")
    assert method.modalities == 2
    losses = method.step({"labelled": make_batch()}, 0)
    assert "loss_joint" in losses.terms
    assert "loss_joint_consistency" not in losses.terms
    assert "trust_joint" not in losses.shares


def test_one_modality_judges_its_labels_by_itself():
    losses = make_method({}, NETWORKS["one modality"]).step({"labelled": make_batch()}, 80)
    numerator, denominator = losses.shares["selected_s2_l2a_9"]
    assert torch.equal(numerator * 2, denominator)


def test_without_selection_every_label_counts_in_full():
    losses = make_method({"selection": "off"}).step({"labelled": make_batch()}, 80)
    for branch in ("s1", "s2_l2a_9"):
        assert torch.equal(*losses.shares[f"weight_{branch}"])
        assert torch.equal(*losses.shares[f"selected_{branch}"])
        assert torch.equal(*losses.shares[f"trust_{branch}"])


def test_published_defaults_are_the_defaults():
    config = make_method().config
    told = (config.terms, config.consistency, config.ramp, config.ramp_passes, config.selected_share, config.confidence, config.prior)
    assert told == ("cd", "ce", "exp", 80, 0.5, "ce", "ts")
    assert (config.prior_share, config.uniform_share, config.rare_class) == (0.15, 0.05, "keep")


def test_selection_sets_in_by_passes_through_the_tiles_or_by_steps():
    method = make_method({"ramp": "linear", "ramp_passes": 10})
    method.passes = lambda step: step / 100
    assert [method.progress(step) for step in (0, 500, 1000, 9000)] == [0, 0.5, 1, 1]
    assert make_method({"ramp": "linear", "ramp_steps": 50}).progress(25) == 0.5


def test_labels_of_other_seasons_reach_the_softened_labels():
    method, batch = make_method(), make_batch()
    alone = method.step({"labelled": batch}, 0).total
    same = method.step({"labelled": batch | {"seasons": batch["mask"].unsqueeze(1).expand(-1, 4, -1, -1)}}, 0).total
    other = method.step({"labelled": batch | {"seasons": torch.stack([batch["mask"], 8 - batch["mask"]], 1)}}, 0).total
    assert same.item() == pytest.approx(alone.item(), rel=1e-5)
    assert other.item() != pytest.approx(alone.item(), rel=1e-4)


def test_health_counts_what_is_selected_and_how_much_of_it_is_right():
    method, batch = make_method(classes=3), make_batch(classes=3)
    method.student = lambda _image: _logits(batch, wrong=(batch["mask"] == 2))
    clean = torch.where(batch["mask"] == 2, 0, batch["mask"])
    clean[:, :4] = 255
    shares = method.step({"labelled": batch | {"reference": clean}}, 80).shares
    found = {name: (top / bottom).tolist() for name, (top, bottom) in shares.items()}
    known = clean != 255
    right = ((clean == batch["mask"]) & known).sum() / known.sum()
    assert found["right"] == pytest.approx(right.item())
    # Labels that no modality believes are the first to go, but for the class whose labels are all wrong: it keeps its half.
    assert found["right_selected_s1"] >= found["right"]
    assert found["agreement"] == 1
    assert found["agrees_s1"] == pytest.approx((batch["mask"] != 2).float().mean().item())
    assert found["selected_s1"] == pytest.approx([1, 1, 1])  # ties are all selected


def _logits(batch: Batch, wrong: Tensor) -> tuple[Tensor, Tensor]:
    shown = torch.where(wrong, 0, batch["mask"])
    logits = 5 * torch.nn.functional.one_hot(shown, 3).permute(0, 3, 1, 2).float()
    return logits.requires_grad_(), logits.detach().clone().requires_grad_()


def test_collapse_is_warned_of_once_the_grace_is_over():
    method = make_method(classes=3)
    shares = {"predicted_s1": [0.995, 0.005, 0.0], "predicted_s2_l2a_9": [0.5, 0.3, 0.2]}
    assert method.warnings(shares, 10) == []
    warnings = method.warnings(shares, 300)
    assert len(warnings) == 1
    assert "s1: over 98 %" in warnings[0]
    assert "'c0'" in warnings[0]


def test_steps_wait_for_no_number():
    """What is only shapes can be stepped on: so costs are estimated, and no device is waited for."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    method = make_method({"terms": "cdf"})
    with FakeTensorMode(allow_non_fake_inputs=True):
        method.trained.to_empty(device="cpu")
        fake = {key: torch.empty_like(value) if isinstance(value, Tensor) else value for key, value in make_batch().items()}
        method.step({"labelled": fake}, 40).total.backward()


def test_selection_is_switched_off_by_the_bare_word():
    """YAML takes ``off`` for false."""
    assert make_method({"selection": False}).config.selection == "off"


def test_settings_that_contradict_each_other_are_refused_in_one_line():
    for settings, said in (
        ({"terms": "cc"}, "at most once"),
        ({"terms": "x"}, "terms"),
        ({"prior_share": 0.7, "uniform_share": 0.6}, "together more than 1"),
        ({"ignore_mean": "all"}, "selection=off"),
        ({"selecton": "off"}, "did you mean 'selection'"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            make_method(settings)
        assert "\n" not in str(caught.value)


def test_a_published_fusion_network_fills_fused_branches_and_goes_back():
    network = NetworkConfig(name="cromss_unet_resnet50")
    for kind, joint in (("mid", True), ("late", False)):
        with torch.device("meta"):
            model = make_method({}, fused(network, kind=kind, joint=joint), get_sensor("s1+s2_l1c")).model
        shapes = {name: tuple(tensor.shape) for name, tensor in official_state_dict(model).items()}
        assert shapes == manifest(f"{kind}{3 if joint else 2}")
