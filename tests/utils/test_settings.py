"""Settings: a declaration defines the flag, its check, the run's identity and inheritance."""

import dataclasses

import pytest
from conftest import call

import finetune
import make_scores
import prune_iteratively
import retrain_ticket
import search_ticket
from training.settings import DataSettings, data_settings_in, recipe_in, resolve_data_settings
from utils.cli import non_negative_int
from utils.settings import REQUIRED, Role, changed, identity_of, names_of, parse, recipe_of, setting

SCRIPTS = (finetune, search_ticket, prune_iteratively, make_scores, retrain_ticket)


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


def test_a_flag_has_one_help_text_in_all_scripts():
    texts: dict[str, set[str]] = {}
    for script in SCRIPTS:
        for f in dataclasses.fields(script.Settings):
            texts.setdefault(f.name, set()).add(f.metadata["help"])
    assert len(texts) > 50
    assert not {name: found for name, found in texts.items() if len(found) > 1}


@pytest.mark.parametrize("script", [s.__name__ for s in SCRIPTS])
def test_help_names_no_default_that_is_none(script, capsys):
    with pytest.raises(SystemExit):
        call(script, "--help")
    text = capsys.readouterr().out
    assert "--output_dir" in text and "default: None" not in text and "default: False" not in text


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
