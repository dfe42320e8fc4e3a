"""Stage scripts: what is refused before anything runs, and what a failed command stops."""

import os
import re
from pathlib import Path

import pytest
from shell_tools import ROOT, STAGES, shell

from evaluation.presets import RECIPES


@pytest.mark.parametrize("script", STAGES)
def test_python_may_be_a_name_on_the_path(script, echo_python, tmp_path):
    Path(echo_python).rename(tmp_path / "python-on-path")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = shell(script, {"PYTHON": "python-on-path", "PATH": path, "TASKS": "sst2"})
    assert done.returncode == 0 and done.stdout.startswith(f"<{ROOT}/")


@pytest.mark.parametrize("script", STAGES)
def test_a_python_that_is_missing_is_an_error(script, copied_scripts, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\necho fallback\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    for given, message in (
        ({}, "/.venv is missing; create it: sh scripts/setup.sh"),
        ({"PYTHON": "nowhere/python"}, "PYTHON=nowhere/python is not a program"),
    ):
        done = shell(copied_scripts / script, given | {"PATH": path})
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith("error: ") and message in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def failing_python(echo_python, tmp_path):
    """Makes echo_python exit with the status in the file `status` where a command has the words."""

    def failing(words: str) -> str:
        with open(echo_python, "a") as f:
            f.write(f'case "$*" in *"{words} "*) exit "$(cat {tmp_path}/status)" ;; esac\n')
        return echo_python

    return failing


@pytest.mark.parametrize(
    ("script", "settings", "runs"),
    [
        (STAGES[0], {"METHODS": "plain freelb", "ATTACK": "yes"}, ["dense", "dense-freelb"]),
        (STAGES[2], {"SPARSITIES": "0.3 0.5"}, ["ticket-robust-0.3", "ticket-robust-0.5"]),
    ],
)
def test_a_failed_attack_stops_nothing_but_a_signal_does(
    script, settings, runs, failing_python, tmp_path
):
    python = failing_python("--recipe textfooler")
    settings |= {"PYTHON": python, "TASKS": "sst2", "SEEDS": "1 2", "RUNS": "r"}
    (tmp_path / "status").write_text("2")
    done = shell(script, settings)
    lines = done.stdout.splitlines()
    assert sum("attack.py" in line for line in lines) == 12
    assert sum("--output_dir" in line for line in lines) == 4
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"failed: textfooler on r/bert-base-uncased/sst2/seed{seed}/{run} (status 2)"
        for seed in (1, 2)
        for run in runs
    ]
    (tmp_path / "status").write_text("143")
    done = shell(script, settings)
    assert done.returncode == 143 and "textbugger" not in done.stdout and not done.stderr


@pytest.mark.parametrize(("script", "settings"), [(STAGES[0], {"ATTACK": "yes"}), (STAGES[2], {})])
def test_what_the_attacks_lack_is_listed_before_anything_runs(script, settings, tmp_path):
    """The first command is attack.py --check with all recipes; its status stops nothing."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >>{tmp_path}/calls\n'
        'case "$*" in *"--check "*) echo "error: missing" >&2; exit 2 ;; esac\n'
    )
    python.chmod(0o755)
    settings |= {"PYTHON": str(python), "TASKS": "sst2", "MASKED_LM": "a folder"}
    settings |= {"RECIPES": "bae pwws", "ATTACK_PRESET": "released"}
    done = shell(script, settings)
    calls = (tmp_path / "calls").read_text().splitlines()
    checks = [call for call in calls if "--check " in call]
    assert (
        calls[0].endswith("/attack.py --preset released --check bae pwws --masked_lm a folder")
        and checks == calls[:1]
    )
    assert done.returncode == 0 and sum("--recipe" in call for call in calls) == 2
    first, second = done.stderr.splitlines()
    assert first == "error: missing" and second.startswith("note: these attacks will fail")
    (tmp_path / "calls").unlink()
    shell(script, settings | {"ATTACK": "no"})
    assert "--check " not in (tmp_path / "calls").read_text()


@pytest.mark.slow
def test_recipes_and_sparsities_are_checked_before_anything_runs(echo_python):
    known = re.search(r'KNOWN_RECIPES="([^"]+)"', (ROOT / "scripts" / "common.sh").read_text())[1]
    assert known.replace("\\\n", "").split() == [*RECIPES]
    settings = {"PYTHON": echo_python, "TASKS": "sst2"}
    for script in STAGES:
        done = shell(script, settings | {"RECIPES": "textfooler text-fooler"})
        assert done.returncode == 2 and not done.stdout
        assert "error: unknown recipe 'text-fooler'; known are textfooler " in done.stderr
    for wrong in ("1", "-0.1", "0,3", "30%", "1.5", "0.3.1", "nan", "x", "1e0"):
        done = shell(STAGES[2], settings | {"SPARSITIES": f"0.3 {wrong}"})
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith(f"error: SPARSITIES: '{wrong}' is not a number in [0, 1)")
        assert len(done.stderr.splitlines()) == 1
    for right in ("0", "0.0", ".5", "3e-1", "0.999"):
        done = shell(STAGES[2], settings | {"SPARSITIES": right, "ATTACK": "no"})
        assert f"<--sparsity><{right}>" in done.stdout and not done.stderr


def test_failed_scores_skip_their_kind_but_a_signal_ends_the_stage(failing_python, tmp_path):
    python = failing_python("--kind complement")
    settings = {"PYTHON": python, "TASKS": "sst2", "SEEDS": "1 2", "RUNS": "r"}
    settings |= {"KINDS": "complement random robust", "RECIPES": "pwws"}
    (tmp_path / "status").write_text("2")
    done = shell(STAGES[2], settings)
    trained = re.findall(r"/seed(\d)/ticket-(\w+)-0.3><--epochs>", done.stdout)
    assert trained == [("1", "random"), ("1", "robust"), ("2", "random"), ("2", "robust")]
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"failed: make_scores.py for r/bert-base-uncased/sst2/seed{seed}/scores-complement "
        "(status 2)"
        for seed in (1, 2)
    ]
    (tmp_path / "status").write_text("143")
    done = shell(STAGES[2], settings)
    assert done.returncode == 143 and "retrain_ticket" not in done.stdout and not done.stderr


UNKNOWN_WORDS = [
    ("stage1-finetune.sh", {"TASKS": "sst3"}, "unknown task 'sst3'"),
    ("stage2-search-ticket.sh", {"TASKS": "sst3"}, "unknown task 'sst3'"),
    ("stage3-draw-retrain_ticket.sh", {"TASKS": "sst3"}, "unknown task 'sst3'"),
    ("stage1-finetune.sh", {"METHODS": "smart"}, "unknown method 'smart'"),
    ("stage2-search-ticket.sh", {"KINDS": "lucky"}, "unknown kind 'lucky'"),
    ("stage1-finetune.sh", {"TASKS": "sst2 sst3"}, "unknown task 'sst3'"),
    ("stage1-finetune.sh", {"METHODS": "plain smart"}, "unknown method 'smart'"),
    ("stage2-search-ticket.sh", {"KINDS": "robust imp_smart"}, "unknown kind 'imp_smart'"),
    ("stage3-draw-retrain_ticket.sh", {"REINIT": "nothing all"}, "unknown start 'all'"),
    ("stage3-draw-retrain_ticket.sh", {"KINDS": "lucky"}, "unknown kind 'lucky'"),
]


@pytest.mark.parametrize(("script", "variables", "message"), UNKNOWN_WORDS)
def test_shell_scripts_refuse_unknown_words(tmp_path, script, variables, message):
    python = tmp_path / "a 'quoted\" python"
    python.write_text('#!/bin/sh\necho called >> "$JOURNAL"\n')
    python.chmod(0o755)
    usual = {"PYTHON": str(python), "TASKS": "sst2", "JOURNAL": str(tmp_path / "journal")}
    done = shell(script, usual | variables)
    assert done.returncode == 2 and not (tmp_path / "journal").exists()
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
