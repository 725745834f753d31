"""Which tiles a training learns from, and which it must not see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilth.errors import CatalogError, ConfigError, SensorMismatchError
from tilth.verbs.train_options import FinetuneOptions, PretrainOptions, TrainOptions

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog


@dataclass(frozen=True)
class TrainingTiles:
    """The tiles of a training.

    Attributes:
        labelled: to learn from with their labels; None where the method needs none.
        validation: to validate on; None for no validation.
        pool: to learn from without labels; None where no pool was given.
        left_out: number of tiles that are not in the pool because they show pixels of labelled tiles or of tiles in other splits.
        target: to learn from without labels at the end; None where none were given.
    """

    labelled: Catalog | None
    validation: Catalog | None
    pool: Catalog | None
    left_out: int
    target: Catalog | None = None

    @property
    def learnt_from(self) -> Catalog:
        """The tiles that say what the sensor is: the labelled ones, or else the pool."""
        found = self.pool if self.labelled is None else self.labelled
        assert found is not None, "every training has tiles of one kind"
        return found


def tiles_of(options: PretrainOptions | FinetuneOptions) -> TrainingTiles:
    """Open the catalogs of a training and choose the tiles as its method wants them.

    Raises:
        ConfigError: as :func:`choose_tiles` and :func:`choose_unlabelled`; a schedule that waits for validation scores that never come;
            a frozen encoder for a method that trains nothing else.
        CatalogError: as there.
    """
    from tilth.methods.base import choose_method

    kind, _ = choose_method(options.method, options.settings)
    pool = (options.unlabelled, options.unlabelled_split) if isinstance(options, PretrainOptions) else ((), ())
    target = options.target if isinstance(options, PretrainOptions) else ()
    if target and not kind.takes_target:
        raise ConfigError(f"--target {target[0]}: method {options.method!r} has no last part that learns from other tiles; leave it out")
    tiles = choose_tiles(options, *pool) if kind.needs_labels else choose_unlabelled(options, *pool, target)
    if tiles.validation is None and options.loop.schedule.kind == "plateau":
        raise ConfigError(
            "loop.schedule.kind=plateau waits for validation scores, and there is no validation; give tiles in validation_split, or "
            "choose another schedule"
        )
    if not kind.needs_labels and options.loop.transfer.frozen != "never":
        raise ConfigError(
            f"loop.transfer.frozen={options.loop.transfer.frozen}: method {options.method!r} trains the encoder itself; leave it out"
        )
    return tiles


def choose_tiles(
    options: PretrainOptions | FinetuneOptions, pool: tuple[Path, ...] = (), pool_splits: tuple[str | None, ...] = ()
) -> TrainingTiles:
    """Open the catalogs and choose the tiles.

    A tile is kept out of the pool if its window shares pixels with a labelled tile that was chosen, or with a tile of the labelled
    catalogs in a split that is neither learnt from nor asked for in ``pool_splits``.

    Args:
        options: catalogs, splits and subset.
        pool: catalogs of the unlabelled pool.
        pool_splits: rows of these to take; a catalog without any split is used whole.

    Raises:
        ConfigError: no labelled catalog.
        CatalogError: nothing to learn from, no tile in a split that was asked for, or an empty pool.
    """
    from tilth.catalog.table import Catalog

    if not options.labelled:
        raise ConfigError(f"missing --labelled: method {options.method!r} learns from labelled tiles; give a catalog with labels")
    catalogs = [Catalog.open(path) for path in options.labelled]
    labelled, validation = _labelled(options, join(catalogs).labelled())
    if not pool:
        return TrainingTiles(labelled, validation, None, 0)
    learnt_from = {options.labelled_split, *pool_splits}
    held_out: list[Catalog] = []
    if options.labelled_split is not None:
        # In a catalog with splits, tiles without one were set aside because they see ground of val or test.
        held_out = [part.filter(split=set(part.counts("split")) - learnt_from) for part in catalogs if _split(part)]
    chosen, left_out = _pool(pool, pool_splits, [labelled, *held_out])
    return TrainingTiles(labelled, validation, _fewer(options, chosen), left_out)


def choose_unlabelled(
    options: PretrainOptions | FinetuneOptions,
    pool: tuple[Path, ...],
    pool_splits: tuple[str | None, ...],
    target: tuple[Path, ...] = (),
) -> TrainingTiles:
    """Open the catalogs of a method that needs no labels, and choose the tiles; labels are not looked at.

    A tile is kept out of the pool if its window shares pixels with a tile, of any of the catalogs, in a split that was not asked for: what
    one catalog keeps for tests is not learnt from because another one lists it, too. Where the target has tiles to validate on, those of
    the pool are not looked at.

    Args:
        options: catalogs and split to validate on.
        pool: catalogs of the unlabelled pool.
        pool_splits: rows of these and of the target to take; a catalog without any split is used whole.
        target: catalogs of tiles to learn from at the end.

    Raises:
        ConfigError: options about labels, no pool, or a split that is to be learnt from and validated on.
        CatalogError: no tile in a split that was asked for, or an empty pool.
    """
    from tilth.catalog.table import Catalog

    if options.labelled or options.labelled_tiles is not None or options.labelled_percent is not None:
        raise ConfigError(
            f"method {options.method!r} learns without labels: use tilth pretrain {options.method}, give all catalogs with --unlabelled, "
            "and leave labelled_tiles and labelled_percent out"
        )
    if not pool:
        raise ConfigError(f"missing --unlabelled: method {options.method!r} learns from unlabelled tiles; give their catalogs")
    asked = options.validation_split if "validation_split" in options.model_fields_set else None
    if asked is not None and asked in pool_splits:
        raise ConfigError(f"split {asked!r} is both learnt from and validated on; change unlabelled_split or validation_split")
    catalogs, targets = ([part for part in map(Catalog.open, paths) if _split(part)] for paths in (pool, target))
    held_out = [part.filter(split=set(part.counts("split")) - {*pool_splits}) for part in [*catalogs, *targets]]
    held_out = [part for part in held_out if len(part)]
    chosen, left_out = _pool(pool, pool_splits, held_out)
    wanted = None if options.validation_split in pool_splits else options.validation_split
    rows = _validation_rows(targets, wanted) or _validation_rows(catalogs, wanted)
    if asked is not None and not rows:
        raise CatalogError(
            f"{pool[0]}: no tile in split {asked!r} of the unlabelled catalogs; validation_split=null trains without validation"
        )
    validation = join(rows) if rows else None
    last = _pool(target, pool_splits, held_out)[0] if target else None
    for title, part in ((f"split {wanted!r}, to validate on,", validation), ("the target", last)):
        if part is not None and part.sensor() != chosen.sensor():
            raise SensorMismatchError(
                f"{title} has sensor {part.sensor().name!r}, the pool {chosen.sensor().name!r}; "
                "all tiles must come in the same bands and scaling"
            )
    return TrainingTiles(None, validation, _fewer(options, chosen), left_out, last)


def _validation_rows(catalogs: list[Catalog], split: str | None) -> list[Catalog]:
    """Rows of a split, of the catalogs that have any."""
    rows = [part.filter(split=split) for part in catalogs] if split is not None else []
    return [part for part in rows if len(part)]


def _labelled(options: TrainOptions, everything: Catalog) -> tuple[Catalog, Catalog | None]:
    """The labelled tiles to learn from, and those to validate on."""
    from tilth.catalog.split import subset

    if not len(everything):
        raise CatalogError(f"{options.labelled[0]}: no tile has a label; build the catalog with masks")
    chosen = everything if options.labelled_split is None else everything.filter(split=options.labelled_split)
    if not len(chosen):
        raise CatalogError(f"{_no_tile(options, everything, options.labelled_split)}; see tilth catalog split")
    if options.labelled_tiles is not None or options.labelled_percent is not None:
        chosen = subset(chosen, tiles=options.labelled_tiles, percent=options.labelled_percent, drop_others=True)
    validation = everything.filter(split=options.validation_split) if options.validation_split is not None else None
    if validation is None or len(validation):
        return chosen, validation
    # By default there is validation where there are tiles for it; a split that was asked for must be there.
    if "validation_split" in options.model_fields_set:
        raise CatalogError(f"{_no_tile(options, everything, options.validation_split)}; validation_split=null trains without validation")
    return chosen, None


def _no_tile(options: TrainOptions, catalog: Catalog, split: str | None) -> str:
    from tilth.catalog.rows import name_splits

    return f"{options.labelled[0]}: no labelled tile in split {split!r}; splits there: {name_splits(catalog.table['split'])}"


def _pool(paths: tuple[Path, ...], splits: tuple[str | None, ...], closed: list[Catalog]) -> tuple[Catalog, int]:
    """The unlabelled pool without the tiles that show pixels of closed ones, and the number of those."""
    import numpy as np

    from tilth.catalog.overlap import shares_pixels
    from tilth.catalog.rows import name_splits
    from tilth.catalog.table import Catalog

    catalogs = [Catalog.open(path) for path in paths]
    pool = join([part.filter(split=splits) if _split(part) else part for part in catalogs])
    # Ids do not tell: one file may be in two catalogs under two ids, and two files under one.
    kept = ~np.any([shares_pixels(pool, other) for other in closed], axis=0) if closed else np.ones(len(pool), bool)
    if not kept.any():
        wanted = ", ".join("none" if name is None else name for name in splits)
        raise CatalogError(
            f"{paths[0]}: no tile left for the unlabelled pool in split {wanted}, those taken out that show labelled tiles or other "
            f"splits; splits there: {name_splits(join(catalogs).table['split'])}; see unlabelled_split"
        )
    return pool.take(np.flatnonzero(kept)), int((~kept).sum())


def _fewer(options: TrainOptions, pool: Catalog) -> Catalog:
    """Draw as many tiles of the pool as were asked for; the first of one order of all, so that more tiles hold fewer."""
    import numpy as np

    from tilth import seeds

    count = options.unlabelled_tiles if isinstance(options, PretrainOptions) else None
    if count is None:
        return pool
    if count > len(pool):
        raise CatalogError(f"unlabelled_tiles={count}: the pool has only {len(pool)} tiles; ask for fewer, or leave it out for all")
    return pool.take(np.sort(seeds.generator(0, "tiles of the pool").permutation(len(pool))[:count]))


def _split(catalog: Catalog) -> bool:
    """Whether the catalog has splits at all."""
    return not set(catalog.counts("split")) <= {None}


def join(catalogs: list[Catalog]) -> Catalog:
    """Put catalogs behind each other; one stays what it is."""
    from tilth.catalog.table import Catalog

    return catalogs[0] if len(catalogs) == 1 else Catalog.concat(catalogs)
