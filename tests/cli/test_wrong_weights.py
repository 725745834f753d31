"""Weights that cannot be imported, models that cannot be exported: one line that names the thing and the way out, nothing left behind."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tilth
from support import published_files
from support.wrong_calls import Case, fill, refuse
from tilth.classes import ClassScheme
from tilth.cli.main import main
from tilth.imagery.write import write_json
from tilth.models.by_name import create
from tilth.models.config import NetworkConfig
from tilth.models.folder import save_network
from tilth.models.weights.importing import generic_scheme

VIT = ["--as", "upernet_vit_b"]


class Attack:
    """Pickled, it is a program that leaves a file in the folder where it runs, which is the one that must stay empty."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as they should and should not be; networks by name are small meanwhile."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("farm")
    with published_files.small_networks():
        s5 = published_files.official("upernet_vit_b", num_classes=16)
        torch.save({"model": s5}, root / "s5.pth")
        torch.save({"model": published_files.part(s5, "encoder.")}, root / "encoder.pth")
        headless = {name: tensor for name, tensor in s5.items() if tensor.shape[:1] != (16,)}
        torch.save({"model": headless}, root / "headless.pth")
        torch.save(published_files.resnet(13), root / "resnet.pth")
        torch.save(published_files.official("ddpm_sr3_128"), root / "noise.pth")
        torch.save(published_files.official("cromss_mid2_resnet50", num_classes=9), root / "fusion.ckpt")
        others(root, s5)
        network = NetworkConfig(encoder="test_byobnet", options={"decoder_channels": [8, 8, 8, 8, 8]})
        tilth.build_segmenter(network, tilth.get_sensor("rgb"), generic_scheme(2)).save(root / "model")
        save_network(create("ddpm_sr3_128"), root / "alone")
        (root / "run" / "checkpoints").mkdir(parents=True)
        yield root


def others(root: Path, s5: dict[str, torch.Tensor]) -> None:
    torch.save({"model": Attack()}, root / "attack.pth")
    (root / "attack.pkl").write_bytes(pickle.dumps(Attack(), protocol=2))
    (root / "half.pth").write_bytes((root / "s5.pth").read_bytes()[:5000])
    (root / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    (root / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (root / "empty.pth").touch()
    (root / "text.pth").write_text("weights, honestly")
    torch.save(torch.zeros(3), root / "tensor.pth")
    torch.save({"epoch": 3, "lr": 0.1}, root / "nothing.pth")
    torch.save({"some.layer.weight": torch.zeros(2, 2), "other": torch.zeros(1)}, root / "stranger.pth")
    save_file({"a": torch.zeros(1)}, root / "cut.safetensors")
    (root / "cut.safetensors").write_bytes((root / "cut.safetensors").read_bytes()[:-2])
    torch.save({name: value.repeat_interleave(2, dim=0) if "ln1" in name else value for name, value in s5.items()}, root / "wide.pth")
    (root / "folder").mkdir()
    (root / "full").mkdir()
    (root / "full" / "note.txt").write_text("work of a week")
    (root / "file").write_text("a file")
    write_json(root / "classes.json", ClassScheme.model_dump(generic_scheme(2), mode="json"))


def bring(file: str, *more: str, out: str = "{out}/deep/model") -> list[str]:
    return ["import-weights", f"{{farm}}/{file}", *(more or VIT), "--out", out]


def ship(model: str, *more: str, out: str = "{out}/deep/model.onnx") -> list[str]:
    return ["export", f"{{farm}}/{model}", "--out", out, *more]


IMPORTS: dict[str, Case] = {
    "nothing named": (["import-weights"], 2, ("missing FILE", "missing --as", "missing --out")),
    "no such file": (bring("none.pth"), 1, ("none.pth: no such file", "hf-hub:owner/name")),
    "empty file": (bring("empty.pth"), 1, ("empty.pth: is empty",)),
    "text": (bring("text.pth"), 1, ("text.pth: is text, not weights",)),
    "web page": (bring("page.pth"), 1, ("page.pth: is a web page",)),
    "pointer of Git LFS": (bring("pointer.pth"), 1, ("pointer of Git LFS",)),
    "half a file": (bring("half.pth"), 1, ("half.pth", "cut short or damaged")),
    "safetensors cut short": (bring("cut.safetensors"), 1, ("cut.safetensors", "cut short or damaged")),
    "pickle with a program": (bring("attack.pth"), 1, ("attack.pth: refused", "system", "nothing was run")),
    "plain pickle with a program": (bring("attack.pkl"), 1, ("attack.pkl",)),
    "one tensor": (bring("tensor.pth"), 1, ("one tensor of shape (3,)", "expected a state dict")),
    "no tensors": (bring("nothing.pth"), 1, ("holds no named tensors but a dictionary of epoch, lr",)),
    "unknown layout": (bring("stranger.pth"), 1, ("no known layout (2 tensors such as some.layer.weight", "upernet_vit_b takes: ")),
    "layout of another network": (bring("resnet.pth"), 1, ("is a file of a ResNet", "cannot take")),
    "noise predictor into a ViT": (bring("noise.pth"), 1, ("SR3", "cannot take")),
    "ViT into a noise predictor": (bring("s5.pth", "--as", "ddpm_sr3_128"), 1, ("cannot take", "ddpm_sr3_128 takes: ")),
    "other width": (bring("s5.pth", *VIT, "options.width=32"), 1, ("tensors have shapes of another network", "build the network with")),
    "layers of other shapes": (bring("wide.pth"), 1, ("have shapes of another network",)),
    "folder without weights": (bring("folder"), 1, ("folder: a folder without model.safetensors",)),
    "run that is not finished": (bring("run"), 1, ("this run is not finished",)),
    "hub name without an owner": (["import-weights", "hf-hub:vit", *VIT, "--out", "{out}/x"], 2, ("hf-hub:vit", "hf-hub:owner/name")),
    "timm name that is none": (["import-weights", "timm:vit_bas", *VIT, "--out", "{out}/x"], 2, ("timm publishes no weights",)),
    "unknown network": (bring("s5.pth", "--as", "vgg"), 2, ("no network is called 'vgg'", "choices: ", "or an encoder of timm: vgg11")),
    "near-miss network": (bring("s5.pth", "--as", "upernet_vitb"), 2, ("did you mean 'upernet_vit_b'?",)),
    "near-miss option": ([*bring("s5.pth"), "--sensr", "rgb"], 2, ("no option '--sensr'", "did you mean '--sensor'?")),
    "unknown option of the network": (bring("s5.pth", *VIT, "options.dept=3"), 2, ("no option 'dept'", "did you mean 'depth'?")),
    "option of the wrong kind": (bring("s5.pth", *VIT, "options.depth=deep"), 2, ("depth='deep'", "expected a whole number from 1")),
    "heads that do not divide": (bring("s5.pth", *VIT, "options.heads=5"), 2, ("heads=5 does not divide",)),
    "unknown sensor": (bring("s5.pth", *VIT, "--sensor", "rgbb"), 2, ("'rgbb'", "did you mean 'rgb'?")),
    "no sensor for many bands": (
        bring("resnet.pth", "--as", "cromss_unet_resnet50", "--classes", "2"),
        2,
        ("missing --sensor", "13 bands", "s2_l1c"),
    ),
    "bands that contradict the sensor": (bring("s5.pth", *VIT, "--sensor", "rgb", "--bands", "4"), 2, ("--bands 4", "has 3 bands")),
    "bands of two sensors for one image": (bring("s5.pth", *VIT, "--bands", "2,13"), 2, ("sees one image",)),
    "no bands": (bring("s5.pth", *VIT, "--bands", "0"), 2, ("every modality has at least one band",)),
    "no such scheme": (bring("s5.pth", *VIT, "--scheme", "{farm}/none.json"), 1, ("none.json: no such class scheme file",)),
    "classes that contradict the scheme": (
        bring("s5.pth", *VIT, "--scheme", "{farm}/classes.json", "--classes", "16"),
        2,
        ("--classes 16", "has 2 classes"),
    ),
    "no classes": (bring("s5.pth", *VIT, "--classes", "0"), 2, ("--classes: expected greater than or equal to 1",)),
    "nobody says how many classes": (
        bring("headless.pth"),
        2,
        ("brings weights of a decoder and no class layer for upernet_vit_b", "--scheme FILE"),
    ),
    "sensor of a fusion network": (
        bring("fusion.ckpt", "--as", "cromss_mid2_resnet50", "--sensor", "s1"),
        2,
        ("is a fusion network", "leave --sensor out"),
    ),
    "one modality for a fusion network": (
        bring("fusion.ckpt", "--as", "cromss_mid2_resnet50", "--bands", "2"),
        2,
        ("takes one band count for S1 and one for S2",),
    ),
    "part that is not in the file": (
        bring("fusion.ckpt", "--as", "cromss_unet_resnet50", "--sensor", "s2_l1c", "--classes", "2", "--take", "s3"),
        2,
        ("fusion.ckpt", "s3"),
    ),
    "decoder of a whole network": (bring("s5.pth", *VIT, "--decoder", "fpn"), 2, ("--decoder is for encoders of timm",)),
    "decoder that a ViT cannot have": (
        bring("encoder.pth", "--as", "test_vit", "--decoder", "unet", "--classes", "2"),
        2,
        ("plain vision transformer", "network.decoder=upernet"),
    ),
    "unknown decoder": (bring("encoder.pth", "--as", "resnet18", "--decoder", "unett"), 2, ("--decoder: expected 'unet'",)),
    "folder that holds something": (bring("s5.pth", *VIT, out="{farm}/full"), 1, ("full: already holds files", "choose another --out")),
    "model folder that is there": (bring("s5.pth", *VIT, out="{farm}/model"), 1, ("model: already holds files",)),
    "file in the way": (bring("s5.pth", *VIT, out="{farm}/file"), 1, ("file: is a file",)),
    "place below a file": (bring("s5.pth", *VIT, out="{farm}/file/model"), 1, ("file", "cannot be made")),
}

EXPORTS: dict[str, Case] = {
    "no such model": (ship("none"), 1, ("none: not a model folder",)),
    "export of a published file": (ship("s5.pth"), 1, ("s5.pth: not a model folder",)),
    "export of a run that is not finished": (ship("run"), 1, ("this run is not finished",)),
    "export of a network alone": (ship("alone"), 1, ("a network alone, without sensor and classes",)),
    "onnx by another name": (ship("model", out="{out}/model.pt2"), 2, ("a graph of format onnx is called *.onnx",)),
    "torch by another name": (ship("model", "--format", "torch"), 2, ("a graph of format torch is called *.pt2",)),
    "unknown format": (ship("model", "--format", "onx"), 2, ("--format: expected 'onnx' or 'torch'",)),
    "three sides": (ship("model", "--size", "64,64,3"), 2, ("give one side in pixels, or height and width",)),
    "no side": (ship("model", "--size", "0"), 2, ("give one side in pixels",)),
    "no images": (ship("model", "--batch", "0"), 2, ("--batch: expected greater than or equal to 1",)),
    "graph where a folder is": (ship("model", out="{farm}/dir.onnx"), 1, ("dir.onnx: is a folder",)),
    "graph below a file": (ship("model", out="{farm}/file/x.onnx"), 1, ("cannot be made",)),
}

LISTS: dict[str, Case] = {
    "models alone": (["models"], 2, ("needs one more word; choices: list, info",)),
    "models of no name": (["models", "info"], 2, ("missing NAME",)),
    "models of an unknown name": (["models", "info", "unet"], 2, ("no network is called 'unet'", "choices: ")),
    "encoder of timm among the names": (["models", "info", "resnet50"], 2, ("no network is called 'resnet50'",)),
}

CASES = IMPORTS | EXPORTS | LISTS


@pytest.mark.parametrize("name", CASES)
def test_wrong_call_says_what_is_wrong_and_leaves_nothing(name, farm, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (farm / "dir.onnx").mkdir(exist_ok=True)
    refuse(CASES[name], farm, tmp_path, main, capsys.readouterr)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
@pytest.mark.parametrize("words", [bring("s5.pth", *VIT, out="{farm}/locked/model"), ship("model", out="{farm}/locked/x.onnx")])
def test_locked_folder_is_named(words, farm, tmp_path, capsys):
    (farm / "locked").mkdir(exist_ok=True)
    (farm / "locked").chmod(0o555)
    refuse((words, 1, ("locked", "cannot be")), farm, tmp_path, main, capsys.readouterr)


def test_note_of_an_import_is_json(farm, tmp_path):
    assert main(fill(bring("s5.pth"), farm, tmp_path)) == 0
    assert json.loads((tmp_path / "deep" / "model" / "import.json").read_text())["layout"] == "s5-vit"
