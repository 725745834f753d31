"""From words to options and back to one line: the command line on small options classes of its own."""

import json
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Literal

import pydantic
import pytest

import tilth
from tilth.cli.main import main
from tilth.config import Config
from tilth.errors import CatalogError, ConfigError, MissingFileError, TilthWarning
from tilth.verbs import registry
from tilth.verbs.console import Console, TextConsole
from tilth.verbs.registry import Result, verb


class Schedule(Config):
    """How the rate goes.

    Attributes:
        warmup: steps of rise.
    """

    warmup: int = pydantic.Field(10, ge=0)


class Optimiser(Config):
    rate: float = pydantic.Field(0.1, gt=0, description="base learning rate")
    kind: Literal["adamw", "sgd"] = "adamw"
    schedule: Schedule = Schedule()


class SowOptions(Config):
    source: tuple[Path, ...] = pydantic.Field(min_length=1, description="folders to read", json_schema_extra={"positional": True})
    field: str = pydantic.Field(description="what to sow into", json_schema_extra={"positional": True})
    out: Path = pydantic.Field(description="file to write")
    window_size: int = pydantic.Field(256, gt=0, description="pixels")
    order: Literal["rows", "random"] = "rows"
    overwrite: bool = False
    careful: bool = True
    seeds: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ()
    place: tuple[float, float] | None = None
    labels: int | str = pydantic.Field("all", description="a count or a share such as 5%")
    limit: int | None = None
    split: str | None = "train"
    splits: tuple[str | None, ...] = ("train",)
    optimiser: Optimiser = Optimiser(rate=0.2)
    mapping: dict[str, int] = pydantic.Field(default_factory=dict)


class BarterOptions(Config):
    as_: str = pydantic.Field(description="what to take")


class NoOptions(Config):
    fail: str = "no"


@verb("field sow", SowOptions)
def field_sow(options: SowOptions, console: Console) -> Result:
    """Sow a field.

    The seeds go where the source says.

    Args:
        options: not for the command line.
    """
    console.say("sowing")
    return Result(summary=("sown 3 rows",), outputs={"report": options.out}, values={"options": options})


@verb("field reap", NoOptions)
def field_reap(options: NoOptions, console: Console) -> Result:
    """Reap a field."""
    failures = {
        "data": CatalogError("a.parquet: no column 'image';\n  build the catalog again"),
        "file": MissingFileError("x.tif: no such file"),
        "system": PermissionError(13, "Permission denied", "y.tif"),
        "bug": ZeroDivisionError("division by zero"),
        "stop": KeyboardInterrupt(),
    }
    if options.fail in failures:
        raise failures[options.fail]
    if options.fail == "warn":
        warnings.warn("labels are\nfew", TilthWarning, stacklevel=1)
    console.status("half way")
    return Result(summary=("2 problems",), exit_code=1 if options.fail == "found" else 0)


@verb("weigh", NoOptions)
def weigh(options: NoOptions, console: Console) -> Result:
    """Weigh the harvest."""
    return Result()


@verb("barter", BarterOptions)
def barter(options: BarterOptions, console: Console) -> Result:
    """Barter the harvest."""
    return Result(summary=(f"taken as {options.as_}",))


@pytest.fixture(autouse=True)
def _own_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("field_verbs")
    module.field_sow, module.field_reap, module.weigh = field_sow, field_reap, weigh  # type: ignore[attr-defined]  # made here
    module.barter = barter  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, "field_verbs", module)
    groups = {
        "Field": {"field sow": "field_verbs:field_sow", "field reap": "field_verbs:field_reap"},
        "Barn": {"weigh": "field_verbs:weigh", "barter": "field_verbs:barter"},
    }
    monkeypatch.setattr(registry, "GROUPS", groups)


@pytest.fixture
def sown(monkeypatch: pytest.MonkeyPatch):
    """Run ``tilth field sow`` and return the options it validated."""
    seen: list[SowOptions] = []

    def keep(options: SowOptions, console: Console) -> Result:
        seen.append(options)
        return Result()

    monkeypatch.setattr(field_sow, "function", keep)

    def run(*words: str) -> SowOptions:
        assert main(["field", "sow", *words]) == 0
        return seen[-1]

    return run


BASE = ("a", "north", "--out", "o.txt")


def test_word_that_python_keeps_for_itself_is_typed_as_it_is(capsys):
    assert main(["barter", "--as", "wool"]) == 0
    assert capsys.readouterr().out == "taken as wool\n"
    assert barter(as_="wool").summary == ("taken as wool",)
    assert main(["barter"]) == 2
    assert "missing --as" in capsys.readouterr().err


def test_result_is_printed_last_and_progress_goes_to_the_error_stream(capsys):
    assert main(["field", "sow", *BASE]) == 0
    assert capsys.readouterr() == ("sown 3 rows\nreport: o.txt\n", "sowing\n")


def test_variadic_argument_leaves_the_last_word_to_the_one_after_it(sown):
    options = sown("a", "b", "north", "--out", "o.txt")
    assert options.source == (Path("a"), Path("b"))
    assert options.field == "north"


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--window-size", "64"], "window_size", 64),
        (["--window-size=64"], "window_size", 64),
        (["window_size=64"], "window_size", 64),
        (["--overwrite"], "overwrite", True),
        (["--no-careful"], "careful", False),
        (["--order", "random"], "order", "random"),
        (["--seeds", "1", "--seeds", "2"], "seeds", (1, 2)),
        (["--seeds", "1,2"], "seeds", (1, 2)),
        (["--names", "a,b", "--names", "c"], "names", ("a,b", "c")),
        (["--place", "-1.5", "2"], "place", (-1.5, 2.0)),
        (["--labels", "5"], "labels", 5),
        (["--labels", "5%"], "labels", "5%"),
        (["--limit", "7"], "limit", 7),
        (["--split", "null"], "split", None),
        (["split=null"], "split", None),
        (["--splits", "null", "--splits", "val"], "splits", (None, "val")),
        (["--names", "null"], "names", ("null",)),
        (["mapping.water=3"], "mapping", {"water": 3}),
        (["optimiser.rate=1e-3"], "optimiser", Optimiser(rate=1e-3)),
        (["optimiser.schedule.warmup=5"], "optimiser", Optimiser(schedule=Schedule(warmup=5))),
    ],
)
def test_what_is_typed_arrives_typed(sown, words, key, value):
    assert getattr(sown(*BASE, *words), key) == value


def test_typed_options_go_before_the_file_and_settings_before_both(sown, tmp_path):
    file = tmp_path / "sow.yaml"
    file.write_text("window_size: 1\norder: random\noptimiser: {rate: 0.5, kind: sgd}\nout: elsewhere\n")
    options = sown("a", "north", "--config", str(file), "--window-size", "2", "optimiser.rate=0.7")
    assert (options.window_size, options.order, options.out) == (2, "random", Path("elsewhere"))
    assert (options.optimiser.rate, options.optimiser.kind) == (0.7, "sgd")


def test_path_with_an_equals_sign_is_not_a_setting(sown):
    assert sown("./year=2020", "north", "--out", "o").source == (Path("year=2020"),)


WRONG = [
    (["feild", "sow"], 2, "did you mean 'field'?"),
    (["sow"], 2, "did you mean 'field sow'?"),
    (["field"], 2, "needs one more word; choices: sow, reap"),
    (["field", "soww"], 2, "did you mean 'sow'?"),
    (["--vresion"], 2, "did you mean '--version'?"),
    (["field", "sow", *BASE, "--window-sise", "3"], 2, "did you mean '--window-size'?"),
    (["field", "sow", *BASE, "-x"], 2, "has no option '-x'"),
    (["field", "sow", *BASE, "--window-size"], 2, "--window-size"),
    (["field", "sow", "a", "north", "--out", "--overwrite"], 2, "--out needs a value, and '--overwrite' is an option"),
    (["field", "sow", *BASE, "--window-size", "many"], 2, "--window-size: expected a valid integer"),
    (["field", "sow", *BASE, "--window-size", "0"], 2, "--window-size: expected greater than 0, got '0'"),
    (["field", "sow", *BASE, "--order", "cols"], 2, "--order: expected 'rows' or 'random', got 'cols'"),
    (["field", "sow", *BASE, "--place", "1"], 2, "--place"),
    (["field", "sow", *BASE, "optimiser.rat=1"], 2, "unknown key 'optimiser.rat': did you mean 'rate'?"),
    (["field", "sow", *BASE, "optimiser.rate=-1"], 2, "optimiser.rate: expected greater than 0"),
    (["field", "sow", *BASE, "optimiser=1"], 2, "optimiser"),
    (["field", "sow", *BASE, "mapping.water=[1"], 2, "the value is not YAML"),
    (["field", "sow"], 2, "missing SOURCE; missing FIELD; missing --out"),
    (["field", "sow", *BASE, "--config", "none.yaml"], 1, "none.yaml: no such file"),
    (["weigh", "twice"], 2, "unexpected argument 'twice'"),
    (["field", "reap", "--fail", "data"], 1, "a.parquet: no column 'image'; build the catalog again"),
    (["field", "reap", "--fail", "file"], 1, "error: x.tif: no such file"),
    (["field", "reap", "--fail", "system"], 1, "error: y.tif: Permission denied"),
    (["field", "reap", "--fail", "bug"], 1, "internal error: ZeroDivisionError: division by zero; run with --debug for the traceback"),
    (["field", "reap", "--fail", "stop"], 130, "interrupted"),
]


@pytest.mark.parametrize(("words", "code", "message"), WRONG, ids=[" ".join(case[0]) for case in WRONG])
def test_mistake_is_one_clear_line_and_an_exit_code(words, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tilth: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_wrong_value_of_a_file_is_named_by_its_key_and_all_problems_come_at_once(capsys, tmp_path):
    file = tmp_path / "sow.yaml"
    file.write_text("window_size: 0\noptimiser: {kind: lbfgs}\n")
    assert main(["field", "sow", *BASE, "--config", str(file), "--order", "cols"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"tilth: error: {file} and the command line: window_size: expected")
    assert "; --order: expected" in line
    assert "; optimiser.kind: expected" in line


@pytest.mark.parametrize("words", [["field", "reap", "--debug", "--fail", "data"], ["--debug", "field", "reap", "--fail", "data"]])
def test_debug_adds_the_traceback_before_the_line(words, capsys):
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("tilth: error: a.parquet")


def test_verb_that_did_its_work_may_end_with_one(capsys):
    assert main(["field", "reap", "--fail", "found"]) == 1
    assert capsys.readouterr().out == "2 problems\n"


def test_warning_is_one_line(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["field", "reap", "--fail", "warn"]) == 0
    assert "tilth: warning: labels are few\n" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_overview_lists_verbs_by_group_with_summaries(words, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.index("Field:") < out.index("field sow   Sow a field.") < out.index("Barn:") < out.index("weigh")


def test_help_of_a_group_lists_its_verbs_only(capsys):
    assert main(["field", "--help"]) == 0
    out = capsys.readouterr().out
    assert "field reap" in out
    assert "weigh" not in out


def test_help_of_a_verb_shows_what_can_be_typed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["field", "sow", "--help"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Usage: tilth field sow SOURCE... FIELD --out PATH [OPTIONS] [key.sub=value ...]"
    assert "The seeds go where the source says." in lines
    assert not any("not for the command line" in line for line in lines)
    for expected in (
        "SOURCE folders to read [required]",
        "--window-size INTEGER pixels [default: 256]",
        "--order rows|random [default: rows]",
        "--careful / --no-careful [default: yes]",
        "Settings (key=value):",
        "optimiser.rate=NUMBER base learning rate [default: 0.2]",
        "steps of rise [default: 10]",
    ):
        assert expected in lines


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tilth {tilth.__version__}\n"


def test_python_call_takes_the_same_options():
    options = field_sow(source=["a"], field="north", out="o", optimiser={"rate": 0.5}).values["options"]
    assert options == SowOptions(source=(Path("a"),), field="north", out=Path("o"), optimiser=Optimiser(rate=0.5))


def test_python_call_names_every_wrong_keyword():
    with pytest.raises(ConfigError, match=r"field_sow\(\): missing key 'source'; .*unknown key 'ouut': did you mean 'out'"):
        field_sow(field="north", ouut="o")


def test_verb_shows_its_options_as_signature():
    parameters = field_sow.__signature__.parameters
    assert list(parameters) == [*SowOptions.model_fields, "console"]
    assert parameters["window_size"].default == 256
    assert parameters["out"].default is parameters["out"].empty


def test_options_cannot_take_a_reserved_name():
    class Clash(Config):
        debug: bool = False

    with pytest.raises(AssertionError, match="debug"):
        verb("clash", Clash)(field_reap.function)


def test_live_status_is_rewritten_on_a_terminal_and_ends_before_the_next_line():
    class Terminal(list):
        write, flush, isatty = list.append, staticmethod(lambda: None), staticmethod(lambda: True)

    screen = Terminal()
    console = TextConsole(screen)
    console.status("1 of 2")
    console.status("2 of 2")
    console.say("done")
    assert "".join(screen) == "\r\x1b[2K1 of 2\r\x1b[2K2 of 2\ndone\n"


def test_status_in_a_log_is_written_now_and_then(capsys):
    console = TextConsole()
    for step in range(100):
        console.status(f"step {step}")
    assert capsys.readouterr().err == "step 0\n"


def test_installed_command_and_module_are_the_same():
    script = Path(sys.executable).with_name("tilth")
    for command in ([str(script)], [sys.executable, "-m", "tilth"]):
        done = subprocess.run([*command, "no-such-verb"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("tilth: error: tilth has no verb 'no-such-verb'")
        assert done.stdout == ""


def test_reader_that_goes_away_leaves_no_traceback():
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m tilth --help | true"], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_field_listing_is_plain_data():
    from tilth.cli.fields import fields_of

    assert json.dumps([vars(field) for field in fields_of(SowOptions)])
