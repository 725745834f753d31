"""The words of a starter recipe: YAML with a comment for every choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.labels import Label
from tilth.catalog.inspect.sensor_guess import Proposal

_SMALL = 30
_NOTES = {
    "image_folder": "where the images are",
    "label_folder": "where their labels are, under the same file names",
    "label_name": "how the label of an image is called",
    "labels": "where the labels are",
    "window_px": "images are cut into squares of so many pixels",
    "scheme": "names and colours of the classes",
    "label_codes": "what the stored values mean",
    "split": "told by the folder",
}


@dataclass(frozen=True, eq=False)
class RecipeText:
    """Writes the parts of a recipe.

    Attributes:
        data: what the recipe is for.
        proposal: the sensor it is written for.
        label: what it trains on, or None.
        window: side of the windows, or None for whole images.
    """

    data: DataSet
    proposal: Proposal
    label: Label | None
    window: int | None

    def build(self, name: str, options: Mapping[str, object]) -> str:
        """Text of one stage ``catalog build``."""
        lines = [f"  - name: {name}", "    verb: catalog build", "    options:"]
        for key, value in options.items():
            note = _NOTES.get(key, "")
            if key == "sensor":
                note = f"a proposal ({self.proposal.scale}): check it, it is never guessed for you"
            lines += self._option(key, value, note)
        lines.append(f'      out: "${{out}}/{_tiles(name)}"')
        return "\n".join(lines)

    def _option(self, key: str, value: object, note: str) -> list[str]:
        comment = f"    # {note}" if note else ""
        if isinstance(value, list) and len(value) > 3:
            return [f"      {key}:{comment}", *(f"        - {json.dumps(item, ensure_ascii=False)}" for item in value)]
        if isinstance(value, dict):
            lines = [f"      {key}:{comment}"]
            for kind, table in value.items():
                lines += [
                    f"        {kind}:",
                    *(f"          {_key(name)}: {json.dumps(item, ensure_ascii=False)}" for name, item in table.items()),
                ]
            return lines
        return [f"      {key}: {json.dumps(value, ensure_ascii=False)}{comment}"]

    def whole(self, builds: Sequence[str], names: Sequence[str], root: Path, here: Path, block_m: int | None) -> str:
        """The whole recipe.

        Args:
            builds: text of the build stages.
            names: names of the build stages.
            root: folder of the data, absolute.
            here: folder of the recipe, absolute.
            block_m: side of the blocks of a split, in metres; None for the default.
        """
        title = root.name or "data"
        splits = self._splits()
        divided = bool(splits)
        stages = [*builds, *(self._check(name) for name in names)]
        catalogs = {name: _checked(name) for name in names}
        if self.label is not None and not divided:
            stages.append(self._split(catalogs[names[0]], block_m))
            catalogs = {names[0]: "catalog.parquet"}
            splits = ["train", "test"] if self._few() else ["train", "val", "test"]
        stages += [_show(name, catalog, len(catalogs) > 1) for name, catalog in catalogs.items()]
        if self.label is not None:
            stages += self._training(catalogs, splits)
        used = "${here}" in "\n".join(stages)
        head = [
            "# A starter written by tilth inspect. Small and careful: it shows whether all fits together, not how good a model can be.",
            f"# Run it:   tilth run {_word(here / 'recipe.yaml')} --out {_word(f'{title}-run')}",
            f"name: {json.dumps(title, ensure_ascii=False)}",
            f"description: {json.dumps(self._description(), ensure_ascii=False)}",
            "values:",
            f"  data: {json.dumps(str(root), ensure_ascii=False)}    # moved? values.data=FOLDER",
            *([f"  here: {json.dumps(str(here), ensure_ascii=False)}    # folder of this recipe and the files it needs"] if used else []),
            *(["  steps: 300    # enough to see a loss fall; thousands for a model to use"] if self.label is not None else []),
            "stages:",
        ]
        return "\n".join([*head, *stages, *self._further(catalogs)]) + "\n"

    def _description(self) -> str:
        if self.label is None:
            return f"Catalog, check and a look at {self.data.root.name}: {self.data.kind}."
        return f"First training on {self.data.root.name}, with the labels of {self.label.part.group.title}."

    def _few(self) -> bool:
        tiles = len(self.data.images[self.data.main].group.members)
        return self.window is None and tiles < _SMALL

    def _splits(self) -> list[str]:
        """Splits of the data set, where they can be used as they are."""
        found = self.data.splits
        if found is None or self.label is None or found.twice or "train" not in found.stems or not {"val", "test"} & found.stems.keys():
            return []
        stems = self.data.images[self.data.main].group.by_stem.keys()
        fit = found.source == "folders" or all(listed <= stems for listed in found.stems.values())
        return list(found.stems) if fit else []

    def _check(self, name: str) -> str:
        return "\n".join(
            [
                f"  - name: {name.replace('build', 'check')}",
                "    verb: catalog check",
                "    # Tiles with an error are named in the findings and left out of the clean catalog.",
                f'    options: {{catalog: "${{out}}/{_tiles(name)}", out: "${{out}}/{name.replace("build", "findings")}.json", '
                f'clean: "${{out}}/{_checked(name)}"}}',
            ]
        )

    def _split(self, catalog: str, block_m: int | None) -> str:
        few = self._few()
        why = (
            "Few images, so there are two splits only: for train and test."
            if few
            else "Blocks of ground stay together: neighbours look alike."
        )
        fractions = "{train: 0.7, test: 0.3}" if few else "{train: 0.7, val: 0.15, test: 0.15}"
        block = "" if block_m is None else f", block_m: {block_m}"
        return "\n".join(
            [
                "  - name: split",
                "    verb: catalog split",
                f"    # {why}",
                f'    options: {{catalog: "${{out}}/{catalog}", fractions: {fractions}{block}, out: "${{out}}/catalog.parquet"}}',
            ]
        )

    def _training(self, catalogs: Mapping[str, str], splits: Sequence[str]) -> list[str]:
        every = ", ".join(f'"${{out}}/{catalog}"' for catalog in catalogs.values())
        scored = "test" if "test" in splits else "val"
        validated = "val" if "val" in splits and scored != "val" else "null"
        where = catalogs.get(f"build-{scored}", next(iter(catalogs.values())))
        size, window = self._crop()
        inference = f"{{window: {window}, overlap: {window // 4}, batch_size: 4}}"
        train = [
            "  - name: train",
            "    verb: finetune",
            "    options:",
            "      task: segment",
            f"      labelled: [{every}]",
            '      out: "${out}/runs/supervised"',
            f"      validation_split: {validated}    # {_why_validation(validated, scored)}",
            "      network: {encoder: resnet18, decoder: unet}    # small; pretrained: true starts from published weights",
            f"      weak: {{size: {size}, scale_min: 0.75, scale_max: 1.5}}    # crops of so many pixels, moderately resized",
            '      loop: {steps: "${steps}", batch_size: 4, learning_rate: 0.001, validate_every: 100, checkpoint_every: 100}',
            f"      inference: {inference}",
        ]
        score = [
            "  - name: score",
            "    verb: evaluate",
            f'    options: {{model: "${{out}}/runs/supervised", catalog: "${{out}}/{where}", split: [{scored}], out: "${{out}}/scores", '
            f"inference: {inference}}}",
        ]
        stages = ["\n".join(train), "\n".join(score)]
        scenes = self._to_map()
        if scenes:
            stages.append(self._map(scenes[:3], inference))
        return stages

    def _to_map(self) -> list[str]:
        """Labelled scenes, or images of the same kind without labels."""
        data = self.data
        main = data.images[data.main].group
        if data.kind == "scenes":
            return [info.uri for info in main.infos]
        tied = {image for image, _ in data.ties}
        alike = (part.group for place, part in enumerate(data.images) if place not in tied)
        return [info.uri for group in alike if (group.count, group.dtype) == (main.count, main.dtype) for info in group.infos]

    def _map(self, scenes: Sequence[str], inference: str) -> str:
        lines = ["  - name: map", "    verb: predict", "    options:", '      model: "${out}/runs/supervised"', "      scenes:"]
        lines += [f'        - "${{data}}/{Path(scene).relative_to(self.data.root).as_posix()}"' for scene in scenes]
        lines += ['      out: "${out}/maps/"', "      confidence: true", f"      inference: {inference}"]
        return "\n".join(lines)

    def _crop(self) -> tuple[int, int]:
        """Sides of training crops and of windows, multiples of 32."""
        infos = self.data.images[self.data.main].group.infos
        side = min(min(info.width, info.height) for info in infos)
        if self.window is not None:
            side = min(side, self.window)
        crop = max(32, min(256, side // 32 * 32))
        return crop, max(32, min(512, side // 32 * 32))

    def _further(self, catalogs: Mapping[str, str]) -> list[str]:
        catalog = f"OUT/{next(iter(catalogs.values()))}"
        if self.label is not None:
            return [
                "# More images without labels? Add them as a pool: tilth pretrain s4p --labelled ... --unlabelled POOL.parquet --out ..."
            ]
        return [
            "# There are no labels to train on here. With labelled tiles of the same sensor elsewhere, this is the unlabelled pool:",
            f"#   tilth pretrain s4p --labelled LABELLED.parquet --unlabelled {catalog} --out RUN",
            "# With a trained model of the same sensor, the images can be mapped:   tilth predict MODEL SCENE.tif --out MAP.tif",
        ]


def _show(name: str, catalog: str, several: bool) -> str:
    suffix = name.removeprefix("build") if several else ""
    return "\n".join(
        [
            f"  - name: show{suffix}",
            "    verb: catalog show    # look at the sheet before you train: colours and labels must make sense",
            f'    options: {{catalog: "${{out}}/{catalog}", out: "${{out}}/contact-sheet{suffix}.png"}}',
        ]
    )


def _tiles(name: str) -> str:
    return f"{name.replace('build', 'tiles')}.parquet"


def _checked(name: str) -> str:
    return f"{name.replace('build', 'clean')}.parquet"


def _why_validation(validated: str, scored: str) -> str:
    if validated == "null":
        return f"{scored} is kept for the score; the weights of the last step are taken"
    return "chooses the best weights; test stays untouched"


def _key(name: object) -> str:
    return str(name) if isinstance(name, int) else json.dumps(str(name))


def _word(path: object) -> str:
    import shlex

    return shlex.quote(str(path))
