"""scripts/second_half.sh: its phases, flags and tickets."""

import importlib
import re
from pathlib import Path

import pytest
from shell_tools import shell

PHASES = ["1", "2", "2b", "3", "3b", "3c"]


@pytest.mark.parametrize("phase", PHASES)
def test_the_second_half_gives_each_script_flags_that_it_knows(phase, echo_python):
    """Every model that a phase attacks is trained before, with flags that parse."""
    env = {"PYTHON": echo_python, "SEEDS": "11 14", "NEIGHBOURS": "n.json", "RECORDS": "kept"}
    done = shell("scripts/second_half.sh", env, phase)
    assert done.returncode == 0 and not done.stderr, done.stderr
    trained, attacked = set(), []
    for line in done.stdout.splitlines():
        script, *flags = re.findall("<(.*?)>", line)
        name = Path(script).stem
        if name == "make_scores":
            continue
        args = importlib.import_module(name).parse_args(flags)
        if name == "attack":
            attacked.append(args)
            assert args.model_name in trained
            assert args.num_examples == 300 and args.new_rows_after == 200
            swept = args.suite is None
            kept_in = "temperatures" if swept else Path(args.model_name).name
            assert args.result_file == f"kept/{kept_in}.jsonl"
            assert not swept or len(args.temperature) == 4
        else:
            trained.add(args.output_dir)
            assert (
                args.seed in ((11,) if phase == "3c" else (11, 14))
                and f"seed{args.seed}" in args.output_dir
            )
            if args.task_name == "ag_news":
                assert args.max_train_rows == 6000 and args.max_seq_length == 128
    assert attacked
    assert (phase == "3") == any(args.suite is None for args in attacked)


def test_the_second_half_uses_the_committed_tickets(echo_python):
    env = {"PYTHON": echo_python, "SEEDS": "11 13 14", "TRAIN_ONLY": "yes"}
    done = shell("scripts/second_half.sh", env, "1")
    files = re.findall("<--ticket><(.*?)>", done.stdout)
    assert len(files) == 6 and all(Path(file).is_file() for file in files)
    assert [re.search(r"seed(\d)", Path(file).name)[1] for file in files] == list("113311")
    assert "attack.py" not in done.stdout


def test_a_dry_run_shows_the_texts_that_are_carried_over(echo_python, tmp_path):
    """Each model that will be attacked is attacked again, as in the run itself."""
    env = {"PYTHON": echo_python, "SEEDS": "11", "NEIGHBOURS": "n.json", "RUNS": str(tmp_path)}
    before = tmp_path / "minilm" / "sst2" / "seed11" / "earlier" / "suites" / "one"
    before.mkdir(parents=True)
    done = shell("scripts/second_half.sh", env | {"DRY_RUN": "yes"}, "1")
    carried = [line for line in done.stdout.splitlines() if "--carry_over" in line]
    names = [re.search(r"--model_name \S*/([^/ ]+/seed11/\S+)", line)[1] for line in carried]
    models = ["dense-epochs19", "ticket-robust-0.3"]
    assert names == [
        *(f"sst2/seed11/{name}" for name in (models[0], "earlier", models[1])),
        *(f"rotten_tomatoes/seed11/{name}" for name in models),
    ]


@pytest.mark.parametrize(
    "env, phases, part",
    [
        ({"NEIGHBOURS": "x"}, ["1", "9"], "unknown phase '9'"),
        ({}, ["1"], "set NEIGHBOURS"),
        ({}, [], "docs/analysis_plan.md"),
    ],
)
def test_wrong_phases(env, phases, part, echo_python):
    done = shell("scripts/second_half.sh", {"PYTHON": echo_python, **env}, *phases)
    assert done.returncode == 2 and part in done.stderr + done.stdout
    assert "<" not in done.stdout
