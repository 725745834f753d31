"""Published files of S5's plain ViT networks: every name and shape, there and back, and between one task and several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.official_s5 import FINETUNE, S5, manifest, official_tensors, read_json
from tilth.errors import UsageError
from tilth.models import create
from tilth.models.weights.layout import Converted, Layout
from tilth.models.weights.layouts.s5_vit import LAYOUTS

BY_NAME = {layout.name: layout for layout in LAYOUTS}
SMALL: dict[str, Any] = {"image_size": 64, "depth": 3, "width": 32, "heads": 2, "decoder_channels": 16}
TASKS = {"vaihingen": 5, "potsdam": 5, "openearthmap": 9, "loveda": 7}
MANIFESTS = {
    **{f"upernet_vit_{size}": S5 / "manifests" / f"upernet_vit_{size}.json" for size in "blh"},
    **{f"upernet_vit_{size}_moe": FINETUNE / f"manifest_vit_{size}_moe_upernet_4ds.json.gz" for size in "blh"},
}


def dense(seed: int = 0, **options: Any) -> nn.Module:
    return create("upernet_vit_b", num_classes=5, seed=seed, **(SMALL | options))


def several(tasks: dict[str, int] | None = None, seed: int = 0, **options: Any) -> nn.Module:
    return create("upernet_vit_b_moe", seed=seed, tasks=tasks or TASKS, **(SMALL | {"part": 8} | options))


def export(network: nn.Module) -> dict[str, Tensor]:
    layout = BY_NAME[str(network.layout)]
    assert layout.export is not None
    return layout.export(network)


def recognised(tensors: dict[str, Tensor] | dict[str, tuple[int, ...]]) -> Layout:
    shapes = {name: tuple(tensor.shape) if isinstance(tensor, Tensor) else tensor for name, tensor in tensors.items()}
    found = [layout for layout in LAYOUTS if layout.recognises(shapes)]
    assert len(found) == 1
    return found[0]


def bring(tensors: dict[str, Tensor], network: nn.Module, take: str | None = None) -> Converted:
    """Convert and load; what is missing stays as it was."""
    layout = recognised(tensors)
    assert layout.fits(network)
    converted = layout.convert(tensors, network, take)
    outcome = network.load_state_dict(converted.tensors, strict=False)
    assert not outcome.unexpected_keys
    return converted


def missing(converted: Converted, network: nn.Module) -> set[str]:
    return set(network.state_dict()) - set(converted.tensors)


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


class TestManifests:
    @pytest.mark.parametrize("name", list(MANIFESTS))
    def test_names_and_shapes_are_the_published_ones_in_and_out(self, name: str) -> None:
        shapes = manifest(MANIFESTS[name])
        with torch.device("meta"):
            network = create(name)
        exported = {key: tuple(tensor.shape) for key, tensor in export(network).items()}
        assert exported == shapes
        assert recognised(shapes).name == network.layout
        converted = recognised(shapes).convert(meta(shapes), network, None)
        assert {key: tensor.shape for key, tensor in converted.tensors.items()} == {
            key: tensor.shape for key, tensor in network.state_dict().items()
        }
        assert not converted.dropped
        assert not converted.unexpected

    def test_the_single_data_set_network_has_the_published_names(self) -> None:
        with torch.device("meta"):
            network = create("upernet_vit_b", num_classes=5)
        exported = {key: tuple(tensor.shape) for key, tensor in export(network).items()}
        assert exported == manifest(FINETUNE / "manifest_vit_b_upernet_single.json.gz")

    @pytest.mark.parametrize("size", ["b", "l", "h"])
    def test_the_backbone_of_a_detector_has_the_published_names(self, size: str) -> None:
        shapes = manifest(FINETUNE / f"manifest_vit_{size}_moe_orcnn_dior_dota.json.gz")
        with torch.device("meta"):
            network = create(f"upernet_vit_{size}_moe", tasks={"dior": 3, "dota": 4}, image_size=1024)
        backbone = {key: shape for key, shape in shapes.items() if key.startswith("backbone.")}
        exported = {
            key.replace("encoder.", "backbone."): tuple(tensor.shape)
            for key, tensor in export(network).items()
            if key.startswith("encoder.")
        }
        assert exported == backbone
        assert (
            sum(tensor.numel() for tensor in network.get_submodule("encoder").parameters())
            == (read_json(FINETUNE / "param_counts_det.json")[f"vit_{size}"]["backbone"])
        )
        converted = recognised(shapes).convert(meta(shapes), network, None)
        assert missing(converted, network) == {name for name in network.state_dict() if not name.startswith("encoder.")}
        assert set(converted.dropped) == set(shapes) - set(backbone)
        assert not converted.unexpected

    @pytest.mark.parametrize("size", ["b", "l", "h"])
    def test_parts_have_the_published_counts(self, size: str) -> None:
        counts = read_json(FINETUNE / "param_counts_seg.json")[f"vit_{size}"]
        with torch.device("meta"):
            moe, single = create(f"upernet_vit_{size}_moe"), create(f"upernet_vit_{size}", num_classes=5)

        def count(network: nn.Module, part: str) -> int:
            return sum(parameter.numel() for parameter in network.get_submodule(part).parameters())

        assert (count(moe, ""), count(moe, "encoder")) == (counts["multi_total"], counts["multi_encoder"])
        assert {count(moe, f"decoders.{task}") for task in TASKS} == {counts["one_decoder_module"]}
        assert {task: count(moe, f"heads.{task}") for task in TASKS} == {task.lower(): heads for task, heads in counts["heads"].items()}
        assert (count(single, ""), count(single, "encoder")) == (counts["single_total_5cls"], counts["single_encoder"])
        assert len(export(moe)) == counts["n_keys"]


class TestRoundTrip:
    @pytest.mark.parametrize("build", [dense, several])
    def test_weights_come_back_bit_by_bit(self, build: Any) -> None:
        network, other = build(seed=1), build(seed=2)
        assert not same(network, other)
        converted = bring(export(network), other)
        assert same(network, other)
        assert not missing(converted, other)

    def test_tasks_in_another_order_than_the_published_keep_their_own_weights(self) -> None:
        shuffled = {task: TASKS[task] for task in ("loveda", "vaihingen", "openearthmap", "potsdam")}
        network, other = several(seed=1), several(shuffled, seed=2)
        bring(export(network), other)
        image = torch.randn(1, 3, 64, 64)
        for task in TASKS:
            assert torch.equal(network.eval()(image, task), other.eval()(image, task))
        again = several(seed=3)
        bring(export(other), again)
        assert same(network, again)

    def test_tasks_of_ones_own_come_back_too(self) -> None:
        tasks = {"farms": 4, "roads": 2, "crowns": 3}
        network, other = several(tasks, seed=1), several(tasks, seed=2)
        exported = export(network)
        assert {name for name in exported if "conv_seg.bias" in name} == {
            "semsegdecoder.decode_head.conv_seg.bias",
            "semsegdecoder_roads.decode_head.conv_seg.bias",
            "semsegdecoder_crowns.decode_head.conv_seg.bias",
        }
        bring(dict(sorted(exported.items())), other)
        assert same(network, other)

    def test_a_file_in_its_own_order_is_matched_by_name_into_another_order(self) -> None:
        network = several({"farms": 4, "roads": 2, "crowns": 3}, seed=1).eval()
        other = several({"roads": 2, "crowns": 3, "farms": 4}, seed=2).eval()
        bring(export(network), other)
        image = torch.randn(1, 3, 64, 64)
        for task in ("farms", "roads", "crowns"):
            assert torch.equal(network(image, task), other(image, task))

    def test_a_file_that_lost_its_order_and_began_with_another_task_is_refused(self) -> None:
        file = dict(sorted(export(several({"farms": 4, "roads": 2, "crowns": 3})).items()))
        with pytest.raises(UsageError, match="nothing tells which expert belongs to which task"):
            bring(file, several({"roads": 2, "crowns": 3, "farms": 4}))


class TestPartsOfFiles:
    @pytest.mark.parametrize("prefix", ["", "backbone.", "encoder."])
    def test_an_encoder_alone_fills_the_encoder(self, prefix: str) -> None:
        network, other = dense(seed=1), dense(seed=2)
        file = {prefix + name.removeprefix("encoder."): tensor for name, tensor in export(network).items() if name.startswith("encoder.")}
        converted = bring(file, other)
        assert same(network.get_submodule("encoder"), other.get_submodule("encoder"))
        assert missing(converted, other) == {name for name in other.state_dict() if not name.startswith("encoder.")}

    def test_a_whole_file_fills_an_encoder_alone(self) -> None:
        network, other = dense(seed=1), dense(seed=2).get_submodule("encoder")
        converted = bring(export(network), other)
        assert same(network.get_submodule("encoder"), other)
        assert set(converted.dropped) == {name for name in export(network) if not name.startswith("encoder.")}

    def test_the_prefix_of_a_parallel_wrapper_is_no_hindrance(self) -> None:
        network, other = dense(seed=1), dense(seed=2)
        bring({f"module.{name}": tensor for name, tensor in export(network).items()}, other)
        assert same(network, other)

    def test_names_that_nobody_knows_are_reported(self) -> None:
        file = export(dense()) | {"auxiliary.weight": torch.ones(1)}
        assert bring(file, dense()).unexpected == ["auxiliary.weight"]

    def test_a_detector_fills_the_encoder(self) -> None:
        tasks = {"dior": 3, "dota": 4}
        network, other = several(tasks, seed=1), several(tasks, seed=2)
        file = {
            name.replace("encoder.", "backbone."): tensor for name, tensor in export(network).items() if name.startswith("encoder.")
        } | {"neck_dior.lateral_convs.0.conv.weight": torch.ones(1), "rpn_head_dota.rpn_cls.bias": torch.ones(1)}
        converted = bring(file, other)
        assert same(network.get_submodule("encoder"), other.get_submodule("encoder"))
        assert converted.dropped == dict.fromkeys(list(file)[-2:], "part of a detector")
        single = dense(seed=3)
        bring(file, single, take="dota")
        image = torch.randn(1, 3, 64, 64)
        theirs, ours = network.get_submodule("encoder").eval()(image, 1), single.get_submodule("encoder").eval()(image)
        torch.testing.assert_close(ours, theirs)

    def test_a_deeper_file_is_refused_and_a_shallower_one_leaves_layers_fresh(self) -> None:
        with pytest.raises(UsageError, match="the file has 4 layers, the network 3; build it with depth=4"):
            bring(export(dense(depth=4)), dense())
        network = dense()
        assert all(".blocks.2." in name for name in missing(bring(export(dense(depth=2)), network), network))

    def test_other_files_are_not_taken_for_these(self) -> None:
        assert not any(layout.recognises({"blocks.0.attn.qkv.weight": (3, 3), "conv1.weight": (64, 3, 7, 7)}) for layout in LAYOUTS)

    def test_other_networks_are_not_offered_these(self) -> None:
        assert not any(layout.fits(nn.Linear(2, 2)) for layout in LAYOUTS)


class TestOneTaskToSeveral:
    def test_follows_the_published_table_row_by_row(self) -> None:
        """Oracle: the table of what the released loaders put where, for ViT-B with its real shapes."""
        table = read_json(FINETUNE / "dense_to_moe_vit_b.json.gz")
        with torch.device("meta"):
            network = create("upernet_vit_b_moe", image_size=64)
            source = create("upernet_vit_b", image_size=64)
        # Numbers that say where they come from, instead of 100 M random ones: each row of a tensor is its position in all of them.
        file: dict[str, Tensor] = {}
        counter = 0.0
        for name, tensor in export(source).items():
            rows = tensor.shape[0] if tensor.ndim else 1
            stamp = torch.arange(rows, dtype=torch.float64) + counter
            file[name] = (stamp if tensor.ndim else stamp[0]).reshape(tensor.shape[:1] + (1,) * (tensor.ndim - 1)).expand(tensor.shape)
            counter += rows
        converted = BY_NAME["s5-vit"].convert({f"module.{name}": tensor for name, tensor in file.items()}, network, None)
        ours_by_theirs = dict(zip(export(network), network.state_dict(), strict=True))
        untouched = set()
        for target, rule, *rest in table["rules"]:
            ours = ours_by_theirs[target]
            if rule == "untouched":
                untouched.add(ours)
                continue
            expected = file[rest[0]] if rule == "copy" else file[rest[0]][rest[1] : rest[2]]
            assert torch.equal(converted.tensors[ours], expected), target
        assert missing(converted, network) == untouched
        assert {name.removeprefix("module.") for name in converted.dropped} == set(table["source_keys_unused"])

    def test_every_task_computes_at_first_what_the_file_computed(self) -> None:
        network, other = dense(seed=1).eval(), several(seed=2).eval()
        bring(export(network), other)
        image = torch.randn(1, 3, 64, 96)
        expected = network.get_submodule("decoder")(network.get_submodule("encoder")(image))
        for index, task in enumerate(TASKS):
            found = other.get_submodule(f"decoders.{task}")(other.get_submodule("encoder")(image, index))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    def test_a_file_of_one_task_has_none_to_choose(self) -> None:
        with pytest.raises(UsageError, match="take=loveda: the file holds one task"):
            bring(export(dense()), several(), take="loveda")


class TestSeveralTasksToOne:
    @pytest.mark.parametrize(
        ("take", "task"), [("potsdam", "potsdam"), ("openearthmap", "openearthmap"), ("OpenEarthMap", "openearthmap"), ("3", "loveda")]
    )
    def test_takes_a_task_by_name_or_number(self, take: str, task: str) -> None:
        network = several(seed=1).eval()
        single = dense(seed=2) if TASKS[task] == 5 else create("upernet_vit_b", num_classes=TASKS[task], **SMALL)
        converted = bring(export(network), single, take=take)
        assert not missing(converted, single)
        image = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(single.eval()(image), network(image, task))
        reasons = set(converted.dropped.values())
        assert reasons == {f"of another task than {task}"}
        assert len(converted.dropped) == 3 * (SMALL["depth"] * 2 + 74 + 2)

    def test_asks_which_task_when_nobody_says(self) -> None:
        with pytest.raises(UsageError, match="say which to take: vaihingen, potsdam, openearthmap, loveda"):
            bring(export(several()), dense())

    def test_an_unknown_task_is_answered_with_the_known_ones(self) -> None:
        with pytest.raises(UsageError, match="take=lovda: the file has no such task; did you mean 'loveda'"):
            bring(export(several()), dense(), take="lovda")

    def test_a_file_that_lost_the_order_of_its_tasks_is_asked_by_number_only(self) -> None:
        tasks = {"farms": 5, "roads": 5, "crowns": 5}
        network = several(tasks, seed=1).eval()
        file = dict(sorted(export(network).items()))
        with pytest.raises(
            UsageError, match=r"take=roads: the file has no such task, and nothing in it tells which expert .* choices: 0, 1, 2"
        ):
            bring(file, dense(), take="roads")
        single = dense().eval()
        encoder = single.get_submodule("encoder")
        bring(file, single, take="1")
        image = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(encoder(image), network.get_submodule("encoder")(image, 1))


class TestSeveralTasksToOthers:
    def test_tasks_are_matched_by_name_and_new_ones_stay_fresh(self) -> None:
        network, other = several(seed=1).eval(), several({"farms": 3, "loveda": 7}, seed=2).eval()
        converted = bring(export(network), other)
        image = torch.randn(1, 3, 64, 64)
        assert torch.equal(other(image, "loveda"), network(image, "loveda"))
        fresh = missing(converted, other)
        assert fresh == {name for name in other.state_dict() if ".experts.0." in name or ".farms." in name}
        assert set(converted.dropped.values()) == {"of a task that this network does not have"}

    def test_new_tasks_can_start_from_one_of_the_file(self) -> None:
        network, other = several(seed=1).eval(), several({"farms": 7, "loveda": 7}, seed=2).eval()
        converted = bring(export(network), other, take="loveda")
        assert missing(converted, other) == {"heads.farms.convolution.weight", "heads.farms.convolution.bias"}
        image = torch.randn(1, 3, 64, 64)
        for found, expected in zip(other.get_submodule("encoder")(image, 0), network.get_submodule("encoder")(image, 3), strict=True):
            assert torch.equal(found, expected)

    def test_no_task_in_common_is_an_error(self) -> None:
        with pytest.raises(UsageError, match=r"\(vaihingen, .*\) are none of the network's \(farms, roads\); name one"):
            bring(export(several()), several({"farms": 2, "roads": 2}))

    def test_experts_of_another_size_are_an_error_that_says_how_to_build_it(self) -> None:
        with pytest.raises(UsageError, match="of the file have 8 channels, those of the network 4; build it with part=8"):
            bring(export(several()), several(part=4))

    def test_an_encoder_alone_goes_by_number(self) -> None:
        network, other = several(seed=1), several({"a": 2, "b": 2, "c": 2, "d": 2}, seed=2)
        file = {name: tensor for name, tensor in export(network).items() if name.startswith("encoder.")}
        bring(file, other)
        assert same(network.get_submodule("encoder"), other.get_submodule("encoder"))
        with pytest.raises(UsageError, match="the file has 4 experts, the network 2, and no names tell which is which"):
            bring(file, several({"a": 2, "b": 2}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upernet_vit_b", "upernet_vit_b_moe"])
def test_a_full_size_file_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    file = official_tensors(manifest(MANIFESTS[name]))
    torch.save({"model": {f"module.{key}": tensor for key, tensor in file.items()}}, tmp_path / "file.pth")
    read = torch.load(tmp_path / "file.pth", weights_only=True)["model"]
    network = create(name)
    bring(read, network)
    back = export(network)
    assert back.keys() == file.keys()
    assert all(torch.equal(tensor, file[key]) for key, tensor in back.items())
