"""What users build on: the names of the Python package and the words of the command line, written down as snapshots."""

import inspect
import re
from typing import Any

import pydantic

import tilth
from support.snapshot import check
from tilth.cli.fields import fields_of
from tilth.verbs import registry


def test_python_surface_is_as_promised():
    check("api", {name: _describe(getattr(tilth, name)) for name in tilth.__all__ if name != "__version__"})


def test_command_line_is_as_promised():
    check("command_line", {name: _describe_verb(registry.load(name)) for name in registry.targets()})


def test_every_public_name_resolves_and_is_listed():
    for name in tilth.__all__:
        assert getattr(tilth, name) is not None
        assert name in dir(tilth)
    assert len(set(tilth.__all__)) == len(tilth.__all__)


def test_every_verb_is_a_function_of_the_package_with_a_one_line_summary():
    for name in registry.targets():
        verb = registry.load(name)
        assert getattr(tilth, verb.__name__) is verb
        assert verb.__name__ in tilth.__all__
        assert verb.__name__ == re.sub(r"[ -]", "_", name)
        assert verb.summary.endswith(".")
        assert len(verb.summary) <= 80


def test_everything_that_can_be_typed_is_described():
    for name in registry.targets():
        for field in fields_of(registry.load(name).options):
            assert field.description, f"tilth {name}: {field.shown} has no description"


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(tilth, "no_such_name")


def _describe(thing: Any) -> Any:
    """Reduce a public name to what a caller depends on."""
    if isinstance(thing, type) and issubclass(thing, pydantic.BaseModel):
        fields = {
            name: _plain(f"{info.annotation}" + ("" if info.is_required() else f" = {info.default!r}"))
            for name, info in thing.model_fields.items()
        }
        return {"fields": fields, "members": _members(thing)}
    if isinstance(thing, type):
        return {"bases": [base.__name__ for base in thing.__bases__], "members": _members(thing)}
    return _plain(str(inspect.signature(thing)))


def _members(kind: type) -> dict[str, str]:
    """Public members that this project defines, own or inherited; those of other libraries are theirs to promise."""
    members: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if not owner.__module__.startswith("tilth"):
            continue
        for name, member in vars(owner).items():
            function = getattr(member, "__func__", member)
            if name.startswith("_") and name not in ("__init__", "__call__", "__len__", "__add__", "__getitem__"):
                continue
            if isinstance(member, property):
                members[name] = "property"
            elif inspect.isfunction(function) and function.__module__.startswith("tilth"):
                members[name] = _plain(str(inspect.signature(function)))
    return members


def _describe_verb(verb: registry.Verb[Any]) -> dict[str, Any]:
    listed: dict[str, Any] = {"summary": verb.summary}
    for field in fields_of(verb.options):
        text = f"{field.metavar if not field.flag else 'flag'}{'...' if field.repeated else ''}"
        listed.setdefault(f"{field.role}s", {})[field.shown] = (
            text + (" required" if field.required else "") + (f" = {field.default}" if field.default else "")
        )
    return listed


def _plain(text: str) -> str:
    """Leave out what differs between Python versions and platforms: where a class lives, quotes of annotations."""
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = re.sub(r"\b(?:pathlib\.)?(?:_local\.)?PosixPath\(", "Path(", text)
    return re.sub(r"\b(?:typing|pathlib(?:\._local)?|collections\.abc|tilth(?:\.\w+)+)\.(?=\w)", "", text)
