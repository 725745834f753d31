"""Packed tiles give what the rasters they come from give: those are the oracle here."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.imagery import packed
from tilth.imagery.packing import image_record, label_record, read_stamp, shard_file
from tilth.imagery.read import Window, read_info, read_label, read_overview, read_pixels

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

WINDOWS = [Window(0, 0, 37, 29), Window(0, 0, 1, 1), Window(36, 28, 1, 1), Window(3, 5, 16, 8), Window(8, 0, 29, 29), Window(7, 9, 11, 1)]


def numbers(dtype: str, bands: int, seed: int = 0, height: int = 29, width: int = 37) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (bands, height, width)).astype(dtype)


def tif(path: Path, data: np.ndarray, **profile) -> str:
    settings = {"driver": "GTiff", "count": data.shape[0], "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype.name}
    with rasterio.open(path, "w", **(settings | profile)) as dataset:
        dataset.write(data)
    return str(path)


def pack(folder: Path, uris: list[str], codec: str = "raw", make=image_record, window: Window | None = None) -> list[str]:
    shard = folder / f"images-{codec}-{make.__name__}.arrow"
    with shard_file(shard, "stamp") as append:
        for index, uri in enumerate(uris):
            info = read_info(uri)
            append(make(f"t{index}", uri, window or Window(0, 0, info.width, info.height), codec))
    return [f"{shard}#{row}" for row in range(len(uris))]


def assert_same(packed_uri: str, uri: str, at: Window = Window(0, 0, 37, 29)) -> None:  # noqa: B008 - a window does not change
    """Compare every window of a packed tile with the same pixels of the raster."""
    for window in (None, *(item for item in WINDOWS if item[0] + item[2] <= at.width and item[1] + item[3] <= at.height)):
        inside = window or Window(0, 0, at.width, at.height)
        wanted = read_pixels(uri, Window(at.column + inside.column, at.row + inside.row, inside.width, inside.height))
        found = read_pixels(packed_uri, window)
        assert found.data.dtype == wanted.data.dtype
        assert found.data.flags.c_contiguous
        np.testing.assert_array_equal(found.data, wanted.data)
        np.testing.assert_array_equal(found.valid, wanted.valid)
        found.data[:] = 0  # Pixels belong to the reader.
        found.valid[:] = False
    np.testing.assert_array_equal(read_pixels(packed_uri).data, read_pixels(uri, at).data)


@pytest.mark.parametrize("codec", ["raw", "zstd", "original"])
@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 3), ("uint16", 13), ("int16", 1), ("float32", 2), ("float64", 1)])
def test_every_window_equals_that_of_the_raster(tmp_path, codec, dtype, bands):
    data = numbers(dtype, bands)
    nodata = None if dtype == "uint8" else 0
    if dtype.startswith("float"):
        data[0, 2, 3], data[-1, 4, 5] = np.nan, np.inf
    uri = tif(tmp_path / "a.tif", data, nodata=nodata)
    plain = tif(tmp_path / "b.tif", numbers(dtype, bands, 1))
    one, other = pack(tmp_path, [uri, plain], codec)
    assert read_pixels(one).valid.all() == (dtype == "uint8")
    assert_same(one, uri)
    assert_same(other, plain)


def test_window_of_a_scene_becomes_a_tile_that_knows_where_it_lies(tmp_path):
    affine = rasterio.Affine(10, 1, 500, 2, -10, 900)
    uri = tif(tmp_path / "a.tif", numbers("uint16", 2, height=60, width=70), crs="EPSG:32633", transform=affine, nodata=7)
    with rasterio.open(uri, "r+") as dataset:
        dataset.descriptions = ("B02", None)
    at = Window(21, 11, 37, 29)
    (tile,) = pack(tmp_path, [uri], window=at)
    assert_same(tile, uri, at)
    info, whole = read_info(tile), read_info(uri)
    assert (info.width, info.height, info.count, info.dtype) == (37, 29, 2, "uint16")
    assert (info.crs, info.nodata, info.band_names) == (whole.crs, whole.nodata, whole.band_names)
    assert info.transform == pytest.approx(tuple(affine @ rasterio.Affine.translation(21, 11))[:6])


def test_header_of_a_whole_raster_is_kept(tmp_path):
    uris = [tif(tmp_path / "a.tif", numbers("float32", 1), nodata=float("nan")), str(tmp_path / "b.png"), str(tmp_path / "c.npy")]
    Image.fromarray(numbers("uint8", 3).transpose(1, 2, 0)).save(uris[1])
    np.save(uris[2], numbers("int32", 2))
    for tile, uri in zip(pack(tmp_path, uris), uris, strict=True):
        found, wanted = vars(read_info(tile)), vars(read_info(uri))
        assert found.pop("uri") == tile
        assert str(found) == str({name: value for name, value in wanted.items() if name != "uri"})
        assert_same(tile, uri)
        np.testing.assert_array_equal(read_overview(tile, 10).data, read_overview(uri, 10).data)


def test_image_files_are_kept_byte_for_byte_and_decoded_alike(tmp_path):
    picture = Image.fromarray(numbers("uint8", 3).transpose(1, 2, 0))
    alpha = Image.fromarray(numbers("uint8", 4, 2).transpose(1, 2, 0) // 150 * 150, "RGBA")
    uris = [str(tmp_path / name) for name in ("a.jpg", "b.png", "c.png", "d.png")]
    picture.save(uris[0], quality=70)
    picture.save(uris[1])
    alpha.save(uris[2])
    picture.quantize(16).save(uris[3])
    tiles = pack(tmp_path, uris, "original")
    with pa.memory_map(tiles[0].partition("#")[0]) as source:
        rows = pa.ipc.open_file(source).read_all().to_pylist()
    for tile, uri, row in zip(tiles, uris, rows, strict=True):
        assert row["codec"] == "original"
        assert row["data"][: row["size"]] == Path(uri).read_bytes()
        assert_same(tile, uri)
    assert not read_pixels(tiles[2]).valid.all()
    np.testing.assert_array_equal(read_label(tiles[3]), read_label(uris[3]))
    # A part of an image, or another format, is stored as numbers.
    assert_same(pack(tmp_path, [uris[0]], "original", window=Window(1, 1, 20, 20))[0], uris[0], Window(1, 1, 20, 20))


@pytest.mark.parametrize("codec", ["raw", "zstd", "original"])
def test_labels_keep_their_ids_and_what_is_ignored(tmp_path, codec):
    ids = numbers("uint8", 1, 3) % 5
    ids[0, :4] = 255
    uris = [str(tmp_path / name) for name in ("palette.png", "grey.png", "deep.png")]
    indexed = Image.fromarray(ids[0], "P")
    indexed.putpalette([value % 256 for value in range(768)])
    indexed.save(uris[0])
    Image.fromarray(ids[0]).save(uris[1])
    Image.fromarray(ids[0].astype(np.uint16)).save(uris[2])
    uris.append(tif(tmp_path / "nodata.tif", ids, nodata=2))
    floats = ids.astype("float32")
    floats[0, 9, 9] = np.nan
    uris.append(tif(tmp_path / "float.tif", floats))
    for tile, uri in zip(pack(tmp_path, uris, codec, label_record), uris, strict=True):
        for window in (None, *WINDOWS):
            found = read_label(tile, window)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, read_label(uri, window))
    assert (read_label(f"{tmp_path}/images-{codec}-label_record.arrow#3") == 255).sum() > 4 * 37


def test_label_that_holds_no_ids_cannot_be_packed(tmp_path):
    with pytest.raises(DataError, match=r"a\.tif: label value 700"):
        pack(tmp_path, [tif(tmp_path / "a.tif", np.full((1, 4, 4), 700, np.uint16))], make=label_record)
    with pytest.raises(DataError, match="one band"):
        pack(tmp_path, [tif(tmp_path / "b.tif", numbers("uint8", 3))], make=label_record)
    assert list(tmp_path.glob("*.arrow")) == list(tmp_path.glob(".*.arrow")) == []


@pytest.fixture
def tile(tmp_path) -> str:
    uris = [tif(tmp_path / f"{index}.tif", numbers("uint8", 3, index), nodata=index) for index in range(4)]
    return pack(tmp_path, uris)[2]


def test_any_arrow_tool_opens_a_shard(tmp_path, tile):
    with pa.memory_map(tile.partition("#")[0]) as source:
        table = pa.ipc.open_file(source).read_all()
    row = table.to_pylist()[2]
    data = np.frombuffer(row["data"], row["dtype"], count=np.prod(row["shape"])).reshape(row["shape"])
    np.testing.assert_array_equal(data, read_pixels(tile).data)
    bits = np.unpackbits(np.frombuffer(row["mask"], np.uint8).reshape(29, -1), axis=1)[:, :37]
    np.testing.assert_array_equal(bits > 0, read_pixels(tile).valid)
    assert len(row["data"]) % 64 == 0
    assert read_stamp(tile.partition("#")[0]) == ("stamp", ["t0", "t1", "t2", "t3"])


def test_window_outside_row_missing_and_shard_missing_are_named(tmp_path, tile):
    with pytest.raises(DataError, match=r"#2: window of 9 x 2 pixels at column 30, row 0 .* 37 x 29"):
        read_pixels(tile, Window(30, 0, 9, 2))
    for read in (read_info, read_pixels, read_label):
        with pytest.raises(UnreadableFileError, match=r"arrow#4: the shard has 4 tiles, no row 4"):
            read(tile.replace("#2", "#4"))
        with pytest.raises(MissingFileError, match=r"gone\.arrow: no such shard"):
            read(str(tmp_path / "gone.arrow#0"))
    # Only what looks like shard and row is one.
    with pytest.raises(MissingFileError, match="no such file"):
        read_pixels(str(tmp_path / "gone.arrow#x"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated_shard_is_unreadable_in_one_line(tmp_path, tile, share):
    path = Path(tile.partition("#")[0])
    read_pixels(tile)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UnreadableFileError, match=r"arrow: no whole shard of packed tiles") as caught:
        read_pixels(tile)
    assert "\n" not in str(caught.value)
    assert read_stamp(path) is None
    # Mended, it is read anew.
    path.write_bytes(whole)
    assert read_pixels(tile).data.shape == (3, 29, 37)


def test_file_of_text_and_foreign_arrow_file_are_no_shards(tmp_path):
    (tmp_path / "a.arrow").write_text("no shard")
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("x", pa.int32())])) as writer:
        writer.write_batch(pa.record_batch({"x": pa.array([1], pa.int32())}))
    for name in ("a", "b"):
        with pytest.raises(UnreadableFileError, match=rf"{name}\.arrow: no whole shard"):
            read_pixels(str(tmp_path / f"{name}.arrow#0"))


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_changed_bytes_are_found_by_the_checksum(tmp_path, codec):
    tiles = pack(tmp_path, [tif(tmp_path / f"{index}.tif", numbers("uint16", 3, index)) for index in range(2)], codec)
    packed.check_packed(tiles[0])
    shard = packed._shards[tiles[0].partition("#")[0]]
    path = Path(tiles[0].partition("#")[0])
    content = bytearray(path.read_bytes())
    content[shard.index[0, 0] + shard.index[0, 1] // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"#0: damaged"):
        packed.check_packed(tiles[0])
    packed.check_packed(tiles[1])


def test_replaced_shard_is_read_anew(tmp_path):
    (tile,) = pack(tmp_path, [tif(tmp_path / "a.tif", np.full((1, 8, 8), 3, np.uint8))])
    assert read_pixels(tile).data.max() == 3
    pack(tmp_path, [tif(tmp_path / "b.tif", np.full((1, 8, 8), 5, np.uint8))])
    assert read_pixels(tile).data.max() == 5


def test_few_shards_are_kept_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "KEPT_MAPPED", 3)
    uri = tif(tmp_path / "a.tif", numbers("uint8", 1))
    for index in range(6):
        (tmp_path / str(index)).mkdir()
        assert_same(pack(tmp_path / str(index), [uri])[0], uri)
    assert len(packed._shards) == 3


class Tiles(Dataset):
    def __init__(self, uris: list[str]) -> None:
        self.uris = uris

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_pixels(self.uris[index], Window(3, 4, 20, 20)).data


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_forked_workers_read_what_the_parent_mapped(tmp_path, codec):
    uris = [tif(tmp_path / f"{index}.tif", numbers("uint16", 2, index)) for index in range(12)]
    tiles = pack(tmp_path, uris, codec)
    read_pixels(tiles[0])
    loader = DataLoader(Tiles(tiles), num_workers=2, multiprocessing_context="fork", batch_size=None)
    for found, uri in zip(loader, uris, strict=True):
        np.testing.assert_array_equal(found, read_pixels(uri, Window(3, 4, 20, 20)).data)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_threads_read_one_shard_at_once(tmp_path, codec):
    data = [numbers("uint16", 2, index) for index in range(8)]
    tiles = pack(tmp_path, [tif(tmp_path / f"{index}.tif", item) for index, item in enumerate(data)], codec)
    packed._shards.clear()
    wrong: list[int] = []

    def work(seed: int) -> None:
        chosen = np.random.default_rng(seed).integers(0, 8, 100).tolist()
        wrong.extend(index for index in chosen if not np.array_equal(read_pixels(tiles[index]).data, data[index]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_remote_shard_is_fetched_once(tmp_path, monkeypatch, tile):
    import fsspec

    monkeypatch.setenv(packed.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(packed, "_copies", {})
    store = fsspec.filesystem("memory")
    store.pipe("/farm/images-00000.arrow", Path(tile.partition("#")[0]).read_bytes())
    remote = "memory://farm/images-00000.arrow#2"
    np.testing.assert_array_equal(read_pixels(remote).data, read_pixels(tile).data)
    assert read_info(remote).count == 3
    store.rm("/farm/images-00000.arrow")
    np.testing.assert_array_equal(read_pixels(remote, Window(1, 2, 3, 4)).data, read_pixels(tile, Window(1, 2, 3, 4)).data)
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == 1
    with pytest.raises(MissingFileError, match="no such shard in that store"):
        read_pixels("memory://farm/gone.arrow#0")
    with pytest.raises(UnreadableFileError, match="cannot be fetched"):
        read_pixels("nosuchstore://farm/gone.arrow#0")
