"""What a card says of masks: where they lie, which classes there are, and what is stored for each. Light to import."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic

from tilth.classes import IGNORE_INDEX, ClassScheme, get_scheme, stored_values
from tilth.config import Config
from tilth.datasets.patterns import one_or_more
from tilth.errors import ConfigError, suggest
from tilth.imagery.codes import LabelCodes

IGNORE = "ignore"
"""Stands for a class where a value or colour means "no label"."""


class Labels(Config):
    """Masks, and what is written in them.

    Attributes:
        kind: ``mask`` rasters on the grid of the image.
        pattern: path of the masks; placeholders are those of the layers.
        trust: how far they can be trusted, as in a catalog's ``label_kind``.
        classes: colour (``#RRGGBB``) by class name, in the order of ids; or names alone, which get the colours that PASCAL VOC's colour map
            gives to their stored values.
        classes_of: name of a built-in class scheme, instead of ``classes``; masks hold what its product stores, unless ``values`` say else.
        scheme_file: class scheme in the data set's own folder, instead of ``classes``.
        values: class name, or ``ignore``, by stored value; without ``values``, ``first_value`` and ``colours`` the masks hold class ids
            (255: no label).
        first_value: stored value of the first class, where those of the others follow in order; 255, and what is less, means "no label".
        colours: class name, or ``ignore``, by stored colour; the word ``classes`` says that masks show the colours of the scheme.
        unlisted: what becomes of other values and colours: ``refuse`` the file, or ``ignore`` the pixels.
        by_place: placeholder of which some values have masks and others have none: all images of one city, say, or none of them.
        align: what becomes of masks on another grid than their image: ``refuse`` them, or ``resample`` them by nearest neighbour, where
            both have a place on the Earth.
        tolerance: how far red, green and blue may lie from a listed colour, 0 to 255.
    """

    kind: Literal["mask"] = "mask"
    pattern: Annotated[tuple[str, ...], pydantic.BeforeValidator(one_or_more)] = ()
    trust: Literal["clean", "noisy", "pseudo"] = "clean"
    classes: dict[str, str] = pydantic.Field(default_factory=dict, max_length=IGNORE_INDEX)
    classes_of: str | None = None
    scheme_file: str | None = None
    values: dict[int, str] = pydantic.Field(default_factory=dict)
    first_value: int | None = pydantic.Field(default=None, ge=0, lt=IGNORE_INDEX)
    colours: dict[str, str] | Literal["classes"] = pydantic.Field(default_factory=dict)
    unlisted: Literal["refuse", "ignore"] = "refuse"
    by_place: str | None = None
    align: Literal["refuse", "resample"] = "refuse"
    tolerance: int = pydantic.Field(default=0, ge=0, le=255)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _colour_names(cls, given: Any) -> Any:
        """Give colours to classes that are listed by name alone, and take those of a built-in scheme."""
        if isinstance(given, dict) and isinstance(given.get("classes_of"), str) and "classes" not in given:
            return _built_in(given)
        if not isinstance(given, dict) or not isinstance(given.get("classes"), list | tuple):
            return given
        names = [str(name) for name in given["classes"]]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"class {twice[0]!r} is listed twice")
        first = given.get("first_value")
        start = first if isinstance(first, int) else 0
        return given | {"classes": {name: _map_colour(start + index) for index, name in enumerate(names)}}

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.classes) == (self.scheme_file is not None):
            raise ValueError("give either classes or scheme_file")
        if bool(self.values) + bool(self.colours) + (self.first_value is not None) > 1:
            raise ValueError("give values or colours, not both, and neither with first_value")
        if self.tolerance and not self.colours:
            raise ValueError("tolerance is for colours")
        if IGNORE in self.classes:
            raise ValueError(f"{IGNORE!r} is no class: in values and colours it stands for pixels without a label")
        if self.classes:
            named = [*self.values.values(), *(self.colours.values() if isinstance(self.colours, dict) else ())]
            for name in named:
                if name not in {IGNORE, *self.classes}:
                    raise ValueError(f"{name!r} is no class; {suggest(name, [IGNORE, *self.classes])}")
            try:
                self.codes(self.scheme("classes"))
            except (ConfigError, pydantic.ValidationError) as error:
                raise ValueError(" ".join(str(error).split())) from None
        return self

    def scheme(self, name: str) -> ClassScheme:
        """Return the built-in scheme, or make that of ``classes``, named after the data set."""
        if self.classes_of is not None:
            return get_scheme(self.classes_of)
        # LabelCodes knows how a colour is spelled.
        spelled = [next(iter(LabelCodes(colours={colour: 0}).colours)) for colour in self.classes.values()]
        colours = [tuple(bytes.fromhex(digits)) for digits in spelled]
        tree = {"name": name, "classes": [{"name": key, "colour": colour} for key, colour in zip(self.classes, colours, strict=True)]}
        return ClassScheme.parse(tree, source="classes")

    def codes(self, scheme: ClassScheme) -> LabelCodes | None:
        """Return what stored values mean; None where masks hold class ids as they are.

        Raises:
            ConfigError: a class that the scheme does not have, or values beyond 254.
        """
        how = {"unlisted": self.unlisted, "tolerance": self.tolerance}
        if self.colours == "classes":
            table = {f"{red:02X}{green:02X}{blue:02X}": index for index, (red, green, blue) in enumerate(scheme.colours)}
            if len(table) < len(scheme):
                raise ConfigError(f"scheme {scheme.name!r}: two classes have one colour, so masks of these colours cannot be read")
            return LabelCodes.parse({"colours": table, **how}, source=f"scheme {scheme.name!r}")
        if self.first_value is not None:
            if self.first_value + len(scheme) > IGNORE_INDEX:
                raise ConfigError(f"first_value: {len(scheme)} classes from {self.first_value} on do not end before {IGNORE_INDEX}")
            known = dict.fromkeys((*range(self.first_value), IGNORE_INDEX), IGNORE_INDEX)
            follow = {self.first_value + index: index for index in range(len(scheme))}
            return LabelCodes.parse({"values": known | follow, **how}, source="mask encoding")
        if not self.values and not self.colours:
            return None
        given: dict[Any, str] = dict(self.values or self.colours)
        ids = {key: IGNORE_INDEX if name == IGNORE else scheme.index(name) for key, name in given.items()}
        return LabelCodes.parse({"values" if self.values else "colours": ids, **how}, source="mask encoding")


def _built_in(given: dict[str, Any]) -> dict[str, Any]:
    """Add the classes of a built-in scheme, and what its product stores."""
    try:
        scheme = get_scheme(given["classes_of"])
    except ConfigError as error:
        raise ValueError(str(error)) from None
    shown = {name: "#{:02X}{:02X}{:02X}".format(*colour) for name, colour in zip(scheme.names, scheme.colours, strict=True)}
    more: dict[str, Any] = {"classes": shown}
    stored = stored_values(scheme.name)
    if stored and not {"values", "first_value", "colours"} & given.keys():
        more["values"] = {value: IGNORE if place == IGNORE_INDEX else scheme.names[place] for value, place in stored.items()}
    return given | more


def _map_colour(number: int) -> str:
    """Return a colour of PASCAL VOC's map: the bits of the number, lowest first, are the high bits of red, green and blue in turn.

    Example:
        >>> [_map_colour(number) for number in (0, 1, 2, 9)]
        ['#000000', '#800000', '#008000', '#C00000']
    """
    levels = [sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return "#" + "".join(f"{level:02X}" for level in levels)
