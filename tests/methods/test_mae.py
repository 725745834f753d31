"""The step of MAE: what it counts, what it learns, and what it leaves."""

import numpy as np
import pytest
import torch

from support.training_sample import SCHEME
from tilth.batch import Batch
from tilth.errors import ConfigError, SensorMismatchError, UnreadableFileError
from tilth.methods.base import build_method
from tilth.models.config import NetworkConfig
from tilth.models.encoder_folder import load_encoder, save_encoder
from tilth.models.mae import draw_visible, painting_error
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.models.vision_transformers.positions import sine_cosine_positions
from tilth.sensors import get_sensor

NETWORK = NetworkConfig(
    name="upernet_vit_b", image_size=64, options={"width": 32, "depth": 4, "heads": 4, "decoder_channels": 8, "patch": 8}
)
SETTINGS = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4}


def model_of(sensor: str = "rgb", seed: int = 0) -> Segmenter:
    return build_segmenter(NETWORK, get_sensor(sensor), SCHEME, seed)


def batch_of(bands: int = 3, size: tuple[int, int] = (64, 64), count: int = 2, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch(
        image=torch.randn(count, bands, *size, generator=draw),
        mask=torch.full((count, *size), 255),
        valid=torch.ones(count, *size, dtype=torch.bool),
        tile_id=[f"tile {index}" for index in range(count)],
        draw=[100 * seed + index for index in range(count)],
    )


def loss_of(method, batch: Batch) -> float:
    with torch.no_grad():
        return float(method.step({"unlabelled": batch}, 0).total)


@pytest.mark.parametrize(("sensor", "bands"), [("rgb", 3), ("s1", 2), ("s1+s2_l2a", 14)])
def test_any_bands_are_painted_and_a_fresh_painter_is_as_good_as_the_mean(sensor, bands):
    method = build_method("mae", SETTINGS, model_of(sensor))
    losses = method.step({"unlabelled": batch_of(bands)}, 0)
    losses.total.backward()
    assert list(losses.terms) == ["loss_masked"]
    # Targets have variance 1, and fresh weights paint next to nothing.
    assert float(losses.total.detach()) == pytest.approx(1, abs=0.1)
    assert method.model.network.encoder.patch_embedding.weight.grad.abs().sum(dim=(0, 2, 3)).min() > 0


def test_step_is_its_parts_on_the_batch_as_it_is():
    method, batch = build_method("mae", SETTINGS, model_of()), batch_of()
    visible = draw_visible(batch["draw"], 64, 0.75)
    error, count = painting_error(method.trained(batch["image"], visible), batch["image"], batch["valid"], visible, 8)
    assert loss_of(method, batch) == float((error / count).detach())
    assert int(count) == 2 * 48 * 8 * 8 * 3


def test_mask_follows_the_sample_not_its_neighbours_nor_the_global_random_state():
    method, batch = build_method("mae", SETTINGS, model_of()), batch_of(count=3)
    whole = loss_of(method, batch)
    torch.rand(5)
    assert loss_of(method, batch) == whole
    single = [
        loss_of(method, Batch(image=batch["image"][i : i + 1], mask=batch["mask"][i : i + 1], valid=batch["valid"][i : i + 1],
                              tile_id=[""], draw=batch["draw"][i : i + 1]))
        for i in range(3)
    ]  # fmt: skip
    assert np.mean(single) == pytest.approx(whole, rel=1e-5)


def test_crops_of_odd_sides_count_their_own_pixels_only():
    method, batch = build_method("mae", SETTINGS, model_of()), batch_of(size=(37, 52))
    error, count = method.validation_sums(batch)
    patches = 5 * 7
    rows = np.minimum(8, 37 - 8 * np.arange(5))
    columns = np.minimum(8, 52 - 8 * np.arange(7))
    areas = np.outer(rows, columns).ravel()
    hidden = [set(range(patches)) - set(places) for places in draw_visible(batch["draw"], patches, 0.75).tolist()]
    assert int(count) == 3 * sum(areas[place] for places in hidden for place in places)
    assert float((error / count).detach()) == pytest.approx(1, abs=0.1)


def test_pixels_without_data_change_nothing_but_what_is_seen():
    method, batch = build_method("mae", SETTINGS, model_of()), batch_of(count=1)
    hidden = sorted(set(range(64)) - set(draw_visible(batch["draw"], 64, 0.75)[0].tolist()))
    row, column = divmod(hidden[0], 8)
    patch = (0, slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
    batch["valid"][patch] = False
    before = loss_of(method, batch)
    batch["image"][patch[0], :, patch[1], patch[2]] = 1e6
    assert loss_of(method, batch) == before
    assert int(method.validation_sums(batch)[1]) == 47 * 64 * 3


def test_batch_without_any_data_has_loss_and_gradient_zero():
    method, batch = build_method("mae", SETTINGS, model_of()), batch_of()
    batch["valid"][:] = False
    losses = method.step({"unlabelled": batch}, 0)
    losses.total.backward()
    assert float(losses.total.detach()) == 0
    assert all(not parameter.grad.any() for parameter in method.trained.parameters() if parameter.grad is not None)


def test_mean_divides_by_what_the_loop_counts():
    method, batch = build_method("mae", SETTINGS, model_of()), batch_of()
    whole = loss_of(method, batch)
    method.count = lambda count: count * 2
    assert loss_of(method, batch) == pytest.approx(whole / 2, rel=1e-6)


@pytest.mark.slow
def test_eight_tiles_are_learnt_by_heart():
    method = build_method("mae", SETTINGS | {"decoder_width": 64, "mask_ratio": 0.5}, model_of())
    method.start_fresh()
    # Smooth tiles, so that what is hidden follows from what is seen.
    coarse = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(5))
    batch = batch_of(count=8, size=(32, 32))
    batch["image"] = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic", align_corners=True)
    optimiser = torch.optim.AdamW([p for p in method.trained.parameters() if p.requires_grad], lr=3e-3)
    first = None
    for _ in range(150):
        optimiser.zero_grad()
        total = method.step({"unlabelled": batch}, 0).total
        first = float(total.detach()) if first is None else first
        total.backward()
        optimiser.step()
    assert first == pytest.approx(1, abs=0.1)
    assert loss_of(method, batch) < 0.15


def test_fresh_layers_are_a_function_of_the_seed():
    decoders = [build_method("mae", SETTINGS, model_of(), seed).trained.decoder.state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(decoders[0][name], decoders[1][name]) for name in decoders[0])
    assert not torch.equal(decoders[0]["exit.weight"], decoders[2]["exit.weight"])


def test_fresh_start_has_fixed_positions_that_are_learned_on():
    method = build_method("mae", SETTINGS, model_of())
    method.start_fresh()
    table = method.model.network.encoder.position_embedding
    torch.testing.assert_close(table.detach(), sine_cosine_positions((8, 8), 32))
    method.step({"unlabelled": batch_of()}, 0).total.backward()
    assert table.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"mask_ratio": 0.0}, "mask_ratio"),
        ({"decoder_width": 30}, "multiple of 4"),
        ({"decoder_width": 36, "decoder_heads": 8}, "decoder_heads"),
        ({"mask_ration": 0.5}, "did you mean 'mask_ratio'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        build_method("mae", settings, model_of())


def test_average_is_refused():
    method = build_method("mae", SETTINGS, model_of())
    method.average = method.model
    with pytest.raises(ConfigError, match="average_decay"):
        method.check()


def test_encoder_folder_brings_back_what_was_trained_and_nothing_else(tmp_path):
    method = build_method("mae", SETTINGS, model_of(seed=1))
    method.export(method.model, tmp_path / "model")
    found = load_encoder(tmp_path / "model")
    theirs = method.model.network.state_dict()
    assert set(found.tensors) == {name for name in theirs if name.startswith("encoder.") and not name.startswith("encoder.pyramid.")}
    fresh, untouched = model_of(seed=2), model_of(seed=2).network.state_dict()
    found.fill(fresh)
    for name, value in fresh.network.state_dict().items():
        assert torch.equal(value, theirs[name] if name in found.tensors else untouched[name]), name
    with pytest.raises(UnreadableFileError, match="an encoder alone"):
        Segmenter.load(tmp_path / "model")


def test_encoder_folder_of_another_network_is_refused(tmp_path):
    found = load_encoder(save_encoder(model_of(), tmp_path / "a"))
    wide = NETWORK.model_copy(update={"options": NETWORK.options | {"width": 16}})
    with pytest.raises(UnreadableFileError, match="shapes of another network"):
        found.fill(build_segmenter(wide, get_sensor("rgb"), SCHEME))
    deep = NETWORK.model_copy(update={"options": NETWORK.options | {"depth": 5}})
    with pytest.raises(UnreadableFileError, match=r"blocks\.4"):
        found.fill(build_segmenter(deep, get_sensor("rgb"), SCHEME))


def test_damaged_or_foreign_encoder_folders_are_told_apart(tmp_path):
    place = save_encoder(model_of(), tmp_path / "a")
    (place / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UnreadableFileError, match="damaged weights"):
        load_encoder(place)
    model_of().save(tmp_path / "b")
    with pytest.raises(UnreadableFileError, match="not an encoder of tilth"):
        load_encoder(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="not an encoder folder"):
        load_encoder(tmp_path)
    newer = save_encoder(model_of(), tmp_path / "c") / "config.json"
    newer.write_text(newer.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(UnreadableFileError, match="newer tilth"):
        load_encoder(tmp_path / "c")
    newer.write_text("{")
    with pytest.raises(UnreadableFileError, match="not JSON"):
        load_encoder(tmp_path / "c")


def test_image_of_other_bands_is_refused():
    method = build_method("mae", SETTINGS, model_of())
    with pytest.raises(SensorMismatchError, match=r"needs \(B, 3"):
        method.step({"unlabelled": batch_of(4)}, 0)
