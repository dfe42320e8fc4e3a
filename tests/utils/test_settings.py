"""Settings: a declaration defines the flag, its check, the run's identity and inheritance."""

import dataclasses
import json

import pytest
from script_tools import helps_of, parser_of, reached, scripts, settings_read

from evaluation.settings import RESOURCE_FLAGS
from training.settings import DataSettings, data_settings_in, recipe_in, resolve_data_settings
from utils.cli import Parser, UserError, non_negative_int
from utils.runs import Run
from utils.settings import (
    REQUIRED,
    Role,
    add_flags,
    changed,
    identity_of,
    names_of,
    parse,
    recipe_of,
    setting,
)

SCRIPTS = [script for script in scripts() if not script.startswith("benchmarks/")]
# Flags that the code reads by a name which it computes.
BY_COMPUTED_NAME = {"train_file", "validation_file", "test_file", *RESOURCE_FLAGS} - {"neighbours"}


@dataclasses.dataclass(kw_only=True)
class Group:
    """Group."""

    rows: int = setting(3, "number of rows", non_negative_int)
    loud: bool = setting(False, "print more", role=Role.OUTPUT)


@dataclasses.dataclass(kw_only=True)
class Example(Group):
    """Example."""

    source: str = setting(REQUIRED, "file", role=Role.PLACE)
    rows: int = changed(Group, "rows", 5)
    kind: str = setting("a", "kind", choices=("a", "b"))


@dataclasses.dataclass(kw_only=True)
class Later(Group):
    """A version with two further settings."""

    overwrite: bool = setting(False, "discard", role=Role.OUTPUT)
    extra: list = setting([], "something new")
    switch: str | None = setting(None, "a deviation", choices=("a", "b"), earlier="a")


def test_a_setting_that_is_new_does_not_make_earlier_runs_other_runs(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"stage": "x", "status": "finished", "args": {"rows": 3}})
    )
    assert Run(tmp_path, "x", Later(switch="a")).finished
    for other in (Later(switch="b"), Later(switch="a", extra=["e"]), Later(switch="a", rows=4)):
        with pytest.raises(UserError, match="a run with other arguments"):
            Run(tmp_path, "x", other)


def test_a_declaration_is_a_flag_a_role_and_a_default(capsys):
    args = parse(Example, "test", ["--source", "x", "--loud"])
    assert args == Example(source="x", rows=5, loud=True, kind="a")
    assert identity_of(args) == {"rows": 5, "source": "x", "kind": "a"}
    assert recipe_of(args) == {"rows": 5, "kind": "a"}
    assert names_of(Example, Role.OUTPUT, Role.PLACE) == ("loud", "source")
    for argv, message in (
        ([], "--source"),
        (["--source", "x", "--rows", "-1"], "a whole number >= 0"),
        (["--source", "x", "--kind", "c"], "invalid choice: 'c'"),
    ):
        with pytest.raises(SystemExit) as stop:
            parse(Example, "test", argv)
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_word_without_a_flag(capsys):
    @dataclasses.dataclass(kw_only=True)
    class Positional(Group):
        """Positional."""

        run: str = setting(REQUIRED, "run folder", role=Role.PLACE, positional=True)

    assert parse(Positional, "test", ["--rows", "1", "x"]) == Positional(run="x", rows=1)
    with pytest.raises(SystemExit):
        parse(Positional, "test", ["--rows", "1"])
    assert "the following arguments are required: run" in capsys.readouterr().err


def test_a_changed_setting_keeps_its_help_and_names_its_own_default():
    @dataclasses.dataclass(kw_only=True)
    class Changed:
        """Changed."""

        rows: list = changed(Group, "rows", [], nargs="+", unset="all")
        kind: str = changed(Example, "kind", "c", choices=("c", "d"))

    parser = Parser("test")
    add_flags(parser, Changed)
    rows, kind = parser._actions[-2:]
    assert rows.help == "number of rows (default: all)" and (kind.help, kind.default) == (
        "kind",
        "c",
    )
    assert vars(parser.parse_args(["--rows", "1", "2", "--kind", "d"])) == {
        "rows": [1, 2],
        "kind": "d",
    }
    assert Changed().rows == [] and Changed().rows is not Changed().rows


def test_a_flag_has_one_help_text_in_all_scripts():
    texts: dict[str, set[str]] = {}
    for script in SCRIPTS:
        for flag, text in helps_of(script).items():
            texts.setdefault(flag, set()).add(text)
    assert len(SCRIPTS) == 13 and len(texts) > 100
    assert not {flag: helps for flag, helps in texts.items() if len(helps) > 1}


@pytest.mark.parametrize("script", scripts())
def test_help_names_no_default_that_is_none(script):
    text = " ".join(parser_of(script).format_help().split())
    assert "default: None" not in text and "default: False" not in text


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_is_read(script):
    """By the script, or by what it imports, as an attribute of the settings."""
    read = set().union(*(settings_read(path) for path in reached(script)))
    unread = {flag.removeprefix("--") for flag in helps_of(script)} - read
    assert not unread - BY_COMPUTED_NAME


def test_no_flag_is_excused_that_is_read_by_its_name():
    read = set().union(*(settings_read(path) for path in reached("attack.py")))
    assert {flag.removeprefix("--") for flag in helps_of("attack.py")} - read >= BY_COMPUTED_NAME


@pytest.mark.parametrize(
    "name", ["max_seq_length", "max_train_rows", "split_seed", "max_eval_rows"]
)
def test_a_given_data_setting_replaces_that_of_the_earlier_stage(name):
    """42 is an ordinary value. It once meant "not given" for each data flag."""
    settings = DataSettings(**{name: 42})
    resolve_data_settings(settings, {"task_name": "sst2", name: 7})
    assert settings.task_name == "sst2" and getattr(settings, name) == 42
    settings = DataSettings()
    resolve_data_settings(settings, {"task_name": "sst2", name: 7})
    assert getattr(settings, name) == 7


def test_a_named_task_inherits_nothing():
    settings = DataSettings(task_name="imdb")
    resolve_data_settings(settings, {"task_name": "sst2", "data_dir": "d", "split_seed": 7})
    assert (settings.task_name, settings.data_dir, settings.split_seed) == ("imdb", None, 42)
    assert data_settings_in({"task_name": "sst2", "lr": 1}) == DataSettings(
        task_name="sst2", split_seed=42
    )


def test_the_recipe_of_an_earlier_versions_manifest():
    """It holds all arguments, has the key "protocol" for the deviations, and no switch for D17."""
    earlier = {"protocol": "released", "lambda_clock": "tensors", "lr": 0.1, "seed": 1}
    earlier |= {"task_name": "sst2", "device": "cpu", "keep_scores": [], "compile": None}
    recipe = {"deviations": "released", "lambda_clock": "tensors", "lr": 0.1}
    assert recipe_in({"settings": earlier}) == recipe | {"schedule_length": "examples"}
    earlier["protocol"] = "paper"
    assert recipe_in({"args": earlier})["schedule_length"] == "steps"
    assert recipe_in({"recipe": {"lr": 1}, "settings": earlier}) == {"lr": 1}
    assert recipe_in({}) == {}
