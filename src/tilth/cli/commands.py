"""Commands, made from the options classes of the verbs: nothing is written twice."""

from __future__ import annotations

import re
from typing import Any

import click
from click.core import ParameterSource

from tilth.cli import help as pages
from tilth.cli.fields import Field, fields_of
from tilth.config import read_yaml
from tilth.errors import ConfigError, UsageError, suggest
from tilth.verbs import registry
from tilth.verbs.registry import Verb

# A word such as optimiser.rate=0.1 is a setting; a path that looks like one is written ./year=2020.
_SETTING = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")


class VerbCommand(click.Command):
    """The command of one verb; invoking it returns the verb's result."""

    def __init__(self, name: str, verb: Verb[Any]) -> None:
        self.verb = verb
        self.fields = fields_of(verb.options)
        common = [click.Option(["--config"]), click.Option(["--debug"], is_flag=True)]
        super().__init__(name, params=[*_options(self.fields), *common, click.Argument(["words"], nargs=-1)], add_help_option=True)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and name the nearest right option when one does not exist."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            choices = [name for option in self.params for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
            hint = self._setting_called(error.option_name.lstrip("-").replace("-", "_")) or suggest(error.option_name, choices)
            raise UsageError(f"{ctx.command_path} has no option {error.option_name!r}; {hint}") from None
        except click.UsageError as error:
            raise UsageError(f"{ctx.command_path}: {error.format_message()}") from None

    def invoke(self, ctx: click.Context) -> Any:
        """Validate what was typed and run the verb."""
        typed, overrides = self._typed(ctx)
        file = ctx.params["config"]
        values = read_yaml(file) if file else {}
        # A wrong value is named as it was typed; one that came from the file keeps the file's key.
        names = {field.key: field.shown for field in self.fields if field.key in typed or field.key not in values}
        source = f"{file} and the command line" if file else "command line"
        try:
            options = self.verb.options.parse(values | typed, overrides, source=source, names=names)
        except ConfigError as error:
            hint = f"; see {ctx.command_path} --help" if "missing " in str(error) else ""
            raise ConfigError(f"{error}{hint}") from None
        return self.verb.run(options, ctx.obj)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the page of help; see :mod:`tilth.cli.help`."""
        pages.write_verb(formatter, ctx.command_path, self.verb, self.fields)

    def _typed(self, ctx: click.Context) -> tuple[dict[str, Any], list[str]]:
        """Collect what was typed: values by field name, and ``key=value`` words."""
        values: dict[str, Any] = {}
        for field in self.fields:
            if field.role == "option" and ctx.get_parameter_source(field.key) is ParameterSource.COMMANDLINE:
                values[field.key] = self._value(ctx, field, ctx.params[field.key])
        words = list(ctx.params["words"])
        overrides = [word for word in words if _SETTING.match(word)]
        for name in (word.partition("=")[0] for word in overrides):
            if name not in self.verb.options.model_fields and (hint := self._setting_called(name)):
                raise UsageError(f"{ctx.command_path}: unknown key {name!r}; {hint}")
        values |= self._arguments(ctx, [word for word in words if not _SETTING.match(word)])
        return values, overrides

    def _setting_called(self, name: str) -> str:
        """Say which settings end in this name; empty if none does."""
        found = [f"'{field.key}=...'" for field in self.fields if field.role == "setting" and field.key.endswith(f".{name}")]
        return f"did you mean {' or '.join(found)}?" if found else ""

    def _value(self, ctx: click.Context, field: Field, raw: Any) -> Any:
        if field.flag:
            return raw
        texts = [raw] if isinstance(raw, str) else list(raw)
        for text in texts:
            if text.startswith("--"):
                raise UsageError(f"{ctx.command_path}: {field.shown} needs a value, and {text!r} is an option")
        return field.from_texts(texts)

    def _arguments(self, ctx: click.Context, words: list[str]) -> dict[str, Any]:
        """Give words to the positional fields in order; one that takes several leaves enough for those after it."""
        fields = [field for field in self.fields if field.role == "argument"]
        values: dict[str, Any] = {}
        left = list(words)
        for position, field in enumerate(fields):
            reserved = sum(other.required for other in fields[position + 1 :])
            count = max(len(left) - reserved, 0) if field.repeated else min(len(left), 1)
            if count:
                values[field.key] = field.from_texts(left[:count])
            left = left[count:]
        if left:
            takes = " ".join(field.shown for field in fields) or "no arguments"
            raise UsageError(f"{ctx.command_path}: unexpected argument {left[0]!r}; it takes {takes}, options and key=value settings")
        return values


class VerbGroup(click.Group):
    """The commands whose names start with the given words; made on demand, so that one verb's help imports one verb."""

    def __init__(self, name: str, prefix: str = "") -> None:
        super().__init__(
            name,
            invoke_without_command=True,
            no_args_is_help=False,
            callback=self._without_verb,
            context_settings={"max_content_width": pages.WIDTH, "help_option_names": ["-h", "--help"]},
        )
        self.prefix = prefix
        self.params.append(click.Option(["--debug"], is_flag=True))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the verb, and name the nearest right one when one does not exist."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            choices = [name for option in self.get_params(ctx) for name in option.opts]
            raise UsageError(f"{ctx.command_path} has no option {error.option_name!r}; {suggest(error.option_name, choices)}") from None
        except click.UsageError as error:
            raise UsageError(f"{ctx.command_path}: {error.format_message()}") from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which there are."""
        word = args[0]
        command = self._find(word)
        if command is None:
            whole = [name for name in registry.targets() if name.split()[-1] == word]
            whole = [f"{ctx.command_path} --help"] if word == "help" else whole
            hint = f"did you mean {whole[0]!r}? " if whole else ""
            raise UsageError(f"{ctx.command_path} has no verb {word!r}; {hint}{suggest(word, self._words())}")
        return word, command, args[1:]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview of the verbs under this name."""
        groups = [(heading, [name for name in group if name.startswith(self.prefix)]) for heading, group in registry.GROUPS.items()]
        rows = [(heading, [(name, registry.load(name).summary) for name in names]) for heading, names in groups if names]
        pages.write_overview(formatter, ctx.command_path, rows)

    def _find(self, word: str) -> click.Command | None:
        """Make the command or group of this name."""
        full = self.prefix + word
        if full in registry.targets():
            return VerbCommand(word, registry.load(full))
        return VerbGroup(word, f"{full} ") if word in self._words() else None

    def _words(self) -> list[str]:
        """Return the next words that exist, in the order of the way through."""
        names = [name.removeprefix(self.prefix) for name in registry.targets() if name.startswith(self.prefix)]
        return list(dict.fromkeys(name.split()[0] for name in names))

    def _without_verb(self, **_: object) -> None:
        """Show help for the whole command; say what is missing for a group. Click calls this before each verb, too."""
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            return
        if self.prefix:
            raise UsageError(f"{context.command_path} needs one more word; choices: {', '.join(self._words())}")
        click.echo(context.get_help())


def _options(fields: list[Field]) -> list[click.Parameter]:
    """Make click's parsing of each option; the values stay text, for the options class is what validates them."""
    made: list[click.Parameter] = []
    for field in fields:
        if field.role != "option":
            continue
        if field.flag:
            made.append(click.Option([f"{field.shown}/--no-{field.shown.removeprefix('--')}", field.key], default=None))
        elif field.length > 1:
            made.append(click.Option([field.shown, field.key], nargs=field.length, type=str))
        else:
            made.append(click.Option([field.shown, field.key], multiple=field.repeated, type=str))
    return made
