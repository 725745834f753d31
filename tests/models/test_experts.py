"""Expert layers, networks with several tasks, and the way from one task to several and back."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from support.official_s5 import FINETUNE, arrays, model_value, normal, read_json
from tilth.errors import ConfigError, UsageError
from tilth.models import create
from tilth.models.multi_task import MultiTaskNetwork
from tilth.models.network import SegmentationNetwork
from tilth.models.vision_transformers.experts import ExpertFeedForward
from tilth.models.weights.conversion import join_feed_forwards, split_feed_forwards, to_dense, to_experts

SMALL: dict[str, Any] = {"image_size": 64, "depth": 3, "width": 32, "heads": 2, "decoder_channels": 16}
TASKS = {"farms": 4, "roads": 2, "crowns": 3}


def dense(num_classes: int = 5, seed: int = 0) -> SegmentationNetwork:
    network = create("upernet_vit_b", num_classes=num_classes, seed=seed, **SMALL)
    assert isinstance(network, SegmentationNetwork)
    return network


def several(tasks: dict[str, int] | None = None, seed: int = 0, **options: Any) -> MultiTaskNetwork:
    network = create("upernet_vit_b_moe", seed=seed, tasks=tasks or TASKS, **(SMALL | {"part": 8} | options))
    assert isinstance(network, MultiTaskNetwork)
    return network


def varied(network: nn.Module) -> nn.Module:
    """Give all tensors values that differ from each other, so that no mix-up goes unseen."""
    draw = torch.Generator().manual_seed(5)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=draw) * 0.2)
    return network


class TestExpertFeedForward:
    def test_computes_what_the_published_layer_computes(self) -> None:
        found, setting = arrays(FINETUNE / "ffn_moe_block.npz"), read_json(FINETUNE / "ffn_moe_block.json")
        layer = ExpertFeedForward(setting["embed_dims"], setting["hidden"], len(setting["tasks"]), setting["part"])
        theirs = {
            key: 10 * model_value(key, tuple(shape)) for key, shape in setting["keys"].items()
        }  # the file scales its small values up, to tell experts apart
        ours = {key.removeprefix("ffn.").replace("layers.0.0.", "expand.").replace("layers.1.", "shared."): theirs[key] for key in theirs}
        layer.load_state_dict(ours)
        tokens, shortcut = (normal(f"input:{name}", (2, setting["tokens"], setting["embed_dims"])) for name in setting["inputs"])
        for index, task in enumerate(setting["tasks"]):
            computed = layer(tokens, index)
            torch.testing.assert_close(tokens + computed, torch.from_numpy(found[f"out_{task}_default"]), rtol=0, atol=1e-5)
            torch.testing.assert_close(shortcut + computed, torch.from_numpy(found[f"out_{task}_identity_given"]), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("part", [0, 32, 40])
    def test_experts_take_a_part_and_not_all(self, part: int) -> None:
        with pytest.raises(ConfigError, match=f"part={part}: .* 1 to 31 channels"):
            ExpertFeedForward(32, 128, 2, part)

    def test_needs_an_expert(self) -> None:
        with pytest.raises(ConfigError, match="at least one"):
            ExpertFeedForward(32, 128, 0, 8)


class TestMultiTaskNetwork:
    def test_each_task_has_its_classes_at_any_size(self) -> None:
        network = several().eval()
        for task, classes in TASKS.items():
            assert tuple(network(torch.randn(1, 3, 45, 70), task).shape) == (1, classes, 45, 70)

    def test_by_default_the_four_data_sets_of_the_paper_in_the_published_order(self) -> None:
        with torch.device("meta"):
            network: Any = create("upernet_vit_b_moe")
        assert list(network.tasks.items()) == [("vaihingen", 5), ("potsdam", 5), ("openearthmap", 9), ("loveda", 7)]
        assert {block.feed_forward.part for block in network.encoder.blocks} == {256}

    @pytest.mark.parametrize("task", list(TASKS))
    def test_a_step_with_a_task_reaches_its_expert_decoder_and_head_and_what_is_shared(self, task: str) -> None:
        network = several().train()
        network(torch.randn(2, 3, 64, 64), task).square().mean().backward()
        reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        index = list(TASKS).index(task)

        def own(name: str) -> bool:
            found = re.search(r"experts\.(\d)\.|(?:decoders|heads)\.(\w+)\.", name)
            return found is None or found[1] == str(index) or found[2] == task

        assert reached == {name for name, parameter in network.named_parameters() if parameter.requires_grad and own(name)}
        assert all(float(parameter.grad.abs().sum()) > 0 for parameter in network.parameters() if parameter.grad is not None)

    def test_running_statistics_are_those_of_the_task_alone(self) -> None:
        network = several().train()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network(torch.randn(2, 3, 64, 64), "roads")
        changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed == {
            name
            for name in before
            if (name.startswith("decoders.roads.") and "running" in name) or (name.startswith("decoders.roads.") and "num_batches" in name)
        }

    def test_checkpointing_gives_equal_gradients(self) -> None:
        image = torch.randn(2, 3, 64, 64)
        found = []
        for checkpointing in (False, True):
            network = several(checkpointing=checkpointing, drop_path=0.4).train()
            torch.manual_seed(0)
            network(image, "crowns").square().mean().backward()
            found.append({name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None})
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())

    def test_an_unknown_task_is_answered_with_the_known_ones(self) -> None:
        with pytest.raises(UsageError, match=r"no task 'road'; did you mean 'roads'\? choices: crowns, farms, roads"):
            several()(torch.randn(1, 3, 64, 64), "road")

    @pytest.mark.parametrize(
        ("tasks", "message"),
        [
            ({"a.b": 2}, "'a.b' cannot name a part"),
            ({"pop": 2}, "'pop' cannot name a part"),
            ({"training": 2}, "'training' cannot name a part"),
            ({"": 2}, "'' cannot name a part"),
            ({"farms": 0}, "farms has 0 classes"),
        ],
    )
    def test_tasks_that_make_no_sense_are_refused(self, tasks: dict[str, int], message: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            several(tasks)

    def test_no_task_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="tasks is empty"):
            create("upernet_vit_b_moe", tasks={}, part=8, **SMALL)

    @pytest.mark.slow
    def test_survives_export_for_a_task(self) -> None:
        network = several().eval()
        image = torch.randn(1, 3, 64, 50)
        exported = torch.export.export(network, (image, "roads")).module()
        torch.testing.assert_close(exported(image, "roads"), network(image, "roads"))


class TestConversion:
    def test_second_layers_are_cut_into_equal_slices(self) -> None:
        weight, bias = torch.randn(32, 128), torch.randn(32)
        tensors = {"blocks.0.feed_forward.contract.weight": weight, "blocks.0.feed_forward.contract.bias": bias, "else": torch.ones(1)}
        split = split_feed_forwards(tensors, experts=3, part=8)
        for kind, whole in (("weight", weight), ("bias", bias)):
            assert torch.equal(split[f"blocks.0.feed_forward.shared.{kind}"], whole[:24])
            for expert in range(3):
                assert torch.equal(split[f"blocks.0.feed_forward.experts.{expert}.{kind}"], whole[24:])
        assert len(split) == 9
        joined = join_feed_forwards(split, 1)
        assert joined.keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in joined.items())

    def test_a_part_that_leaves_nothing_to_share_is_refused(self) -> None:
        with pytest.raises(UsageError, match="part=32 leaves nothing of the 32 channels"):
            split_feed_forwards({"x.feed_forward.contract.weight": torch.ones(32, 4)}, 2, 32)

    def test_all_tasks_equal_the_ordinary_network_at_first(self) -> None:
        network = varied(dense()).eval().double()  # two products against one round differently
        assert isinstance(network, SegmentationNetwork)
        made = to_experts(network, {"a": 5, "b": 5}, part=8, copy_heads=True)
        image = torch.randn(1, 3, 70, 50, dtype=torch.float64)
        with torch.no_grad():
            expected = network(image)
            for task in ("a", "b"):
                torch.testing.assert_close(made(image, task), expected, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(made.encode(image[..., :64, :48], task), network.encode(image[..., :64, :48]))

    def test_heads_start_fresh_unless_they_are_copied(self) -> None:
        network = dense()
        made = to_experts(network, TASKS, part=8)
        assert {task: made.heads[task].get_parameter("convolution.weight").shape[0] for task in TASKS} == TASKS
        with pytest.raises(UsageError, match="the network has 5 classes"):
            to_experts(network, TASKS, part=8, copy_heads=True)

    def test_conversion_leaves_the_given_network_alone(self) -> None:
        network = dense()
        made = to_experts(network, {"a": 5}, part=8)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.zero_()
        assert all(float(tensor.abs().sum()) > 0 for name, tensor in network.state_dict().items() if name.endswith("convolution.weight"))
        assert isinstance(network.encoder.get_submodule("blocks.0.feed_forward.contract"), nn.Linear)

    @pytest.mark.parametrize("task", list(TASKS))
    def test_one_task_taken_out_computes_exactly_the_same(self, task: str) -> None:
        network = varied(several()).eval().double()  # two products against one round differently
        assert isinstance(network, MultiTaskNetwork)
        single = to_dense(network, task)
        image = torch.randn(2, 3, 64, 90, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(single(image), network(image, task), rtol=1e-9, atol=1e-9)
        for name, tensor in single.encoder.state_dict().items():
            if "contract" in name:
                theirs = network.encoder.state_dict()
                own = f"experts.{list(TASKS).index(task)}"
                expected = torch.cat([theirs[name.replace("contract", "shared")], theirs[name.replace("contract", own)]])
                assert torch.equal(tensor, expected)

    def test_there_and_back_is_the_same_bit_by_bit(self) -> None:
        network = dense()
        varied(network)
        back = to_dense(to_experts(network, {"a": 5, "b": 5}, part=8, copy_heads=True), "b")
        expected = network.state_dict()
        assert list(back.state_dict()) == list(expected)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())

    def test_what_a_network_is_called_and_its_mode_follow(self) -> None:
        made = to_experts(dense().eval(), TASKS, part=8)
        assert (made.spec.name, made.spec.options["tasks"], made.spec.options["part"]) == ("upernet_vit_b_moe", TASKS, 8)
        assert not made.training
        rebuilt = create(made.spec.name, made.spec.in_channels, made.spec.num_classes, made.spec.image_size, **made.spec.options)
        assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == {
            name: tensor.shape for name, tensor in made.state_dict().items()
        }
        single = to_dense(made, "roads")
        assert (single.spec.name, single.spec.num_classes) == ("upernet_vit_b", 2)
        assert "tasks" not in single.spec.options
        assert (made.layout, single.layout) == ("s5-moe", "s5-vit")

    def test_other_networks_are_refused(self) -> None:
        network = dense()
        network.encoder = nn.Identity()
        with pytest.raises(UsageError, match="this encoder is Identity"):
            to_experts(network, TASKS, part=8)
        with pytest.raises(UsageError, match="no task 'x'"):
            to_dense(several(), "x")

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("cromss_upernet_vit_l", "has a class token"),
            ("cromss_upernet_satmae_l", "is GroupVisionTransformer"),
            ("cromss_upernet_dofa_l", "is WavelengthVisionTransformer"),
        ],
    )
    def test_transformers_that_are_not_quite_plain_are_refused(self, name: str, said: str) -> None:
        network = create(name, num_classes=5, image_size=32, width=32, depth=4, heads=2, decoder_channels=8)
        with pytest.raises(UsageError, match=f"such as upernet_vit_b.*this encoder {said}"):
            to_experts(network, TASKS, part=8)

    def test_each_part_keeps_its_mode_and_whether_it_trains(self) -> None:
        network = dense().train()
        network.encoder.eval().requires_grad_(False)
        network.encoder.blocks[2].feed_forward.contract.train().requires_grad_(True)
        network.decoder.requires_grad_(False)
        network.segmentation_head.dropout.eval()
        made = to_experts(network, TASKS, part=8)
        assert made.training
        assert not made.encoder.training
        running = {name for name, module in made.encoder.named_modules() if module.training}
        assert running == {f"blocks.2.feed_forward.{part}" for part in ("shared", "experts.0", "experts.1", "experts.2")}
        training = {name for name, parameter in made.named_parameters() if parameter.requires_grad and not name.startswith("heads.")}
        assert training == {f"encoder.{name}.{kind}" for name in running for kind in ("weight", "bias")}
        assert all(decoder.training for decoder in made.decoders.values())
        assert all(head.training and not head.dropout.training and head.convolution.weight.requires_grad for head in made.heads.values())
        # The network that it was made of stays as it is.
        assert network.training
        assert not network.encoder.training
        back = to_dense(made, "roads")
        assert back.training
        assert not back.encoder.training
        assert [name for name, module in back.encoder.named_modules() if module.training] == ["blocks.2.feed_forward.contract"]
        assert {name for name, parameter in back.encoder.named_parameters() if parameter.requires_grad} == {
            f"blocks.2.feed_forward.contract.{kind}" for kind in ("weight", "bias")
        }

    def test_a_joined_layer_trains_if_its_shared_part_or_its_expert_does(self) -> None:
        network = several()
        network.encoder.requires_grad_(False)
        network.encoder.blocks[0].feed_forward.experts[1].requires_grad_(True)
        trained = {
            task: {name for name, parameter in to_dense(network, task).encoder.named_parameters() if parameter.requires_grad}
            for task in TASKS
        }
        assert trained == {
            "farms": set(),
            "roads": {f"blocks.0.feed_forward.contract.{kind}" for kind in ("weight", "bias")},
            "crowns": set(),
        }
