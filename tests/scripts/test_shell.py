"""The shell scripts, run with a `python` that prints its arguments."""

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from evaluation.presets import RECIPES
from training import tasks

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["stage1-finetune.sh", "stage2-search-ticket.sh", "stage3-draw-retrain_ticket.sh"]


def shell(script: str, env: dict | None = None, *arguments) -> subprocess.CompletedProcess:
    """Run a shell script in an environment that holds only `env` and PATH."""
    return subprocess.run(
        ["sh", str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **(env or {})},
    )


@pytest.fixture
def copied_scripts(tmp_path) -> Path:
    """A checkout that holds only the shell scripts, without .venv."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for script in ROOT.glob("*.sh"):
        shutil.copy(script, root)
    return root


@pytest.fixture
def echo_python(tmp_path) -> str:
    """A `python` that prints its arguments in <>, one command per line."""
    path = tmp_path / "a python"
    path.write_text('#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\necho\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("script", STAGES)
def test_stage_scripts_accept_each_task_and_pass_overrides(script, echo_python, tmp_path):
    done = shell(
        script,
        {
            "PYTHON": echo_python,
            "SEEDS": "1 2",
            "RUNS": f"{tmp_path}/a b",
            "ATTACK": "no",
            "TASKS": "imdb ag_news sst2 qnli qqp mnli builtin/imdb",
            "SEARCH_EPOCHS" if script == STAGES[1] else "EPOCHS": "7",
            "DATA": "a folder",
        },
        "--quiet",
    )
    assert done.returncode == 0 and not done.stderr
    lines = [line for line in done.stdout.splitlines() if "make_scores" not in line]
    assert len(lines) == 14
    for line in lines:
        assert "<--epochs><7>" in line and "<--data_dir><a folder>" in line
        assert line.endswith("<--quiet>") and "/a b/bert-base-uncased/" in line
    assert sum("<--seed><2>" in line for line in lines) == 7


@pytest.mark.parametrize("script", STAGES)
def test_any_data_set_is_a_task(script, echo_python, tmp_path):
    names = {"owner/name": "owner--name", "o/n:c": "o--n--c", "../a/b": "a--b", "./x/": "x"}
    columns = {"TEXT_COLUMNS": "my text", "LABEL_COLUMN": "l", "TEST_SPLIT": "t"}
    given = {"PYTHON": echo_python, "TASKS": " ".join(names), "RUNS": f"{tmp_path}", "ATTACK": "no"}
    done = shell(script, given | columns)
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "make_scores" not in line]
    for (name, folder), line in zip(names.items(), lines, strict=True):
        assert f"<--task_name><{name}>" in line and f"/bert-base-uncased/{folder}/seed42/" in line
        assert folder == tasks.folder_of(name)
        assert "<--text_columns><my text><--label_column><l><--test_split><t>" in line
    for wrong in ("sst3", "builtin/sst2"):
        done = shell(script, {"PYTHON": echo_python, "TASKS": wrong})
        assert done.returncode == 2 and f"unknown task '{wrong}'" in done.stderr


def test_stage_2_sets_the_papers_table_6(echo_python):
    done = shell(STAGES[1], {"PYTHON": echo_python, "TASKS": "sst2 imdb ag_news qqp qnli mnli"})
    want = {  # eta, mask lr, lambda, K
        "sst2": ("0.03", "0.1", "0.5", "5"),
        "imdb": ("0.03", "0.1", "0.5", "5"),
        "ag_news": ("0.03", "0.05", "0.5", "5"),
        "qqp": ("0.04", "0.05", "0.1", "3"),
        "qnli": ("0.04", "0.05", "0.1", "3"),
        "mnli": ("0.2", "0.1", "0.1", "2"),
    }
    for line in done.stdout.splitlines():
        task = re.search(r"<--task_name><(\w+)>", line).group(1)
        values = tuple(
            re.search(rf"<--{flag}><([\d.e-]+)>", line).group(1)
            for flag in ("adv_lr", "lr", "lambda_amp", "adv_steps")
        )
        assert values == want.pop(task)
        assert "<--adv_init_mag><0.05>" in line and "<--weight_decay><1e-6>" in line
        assert "<--epochs><20>" in line and "<--bsz><32>" in line
    assert not want


def test_stage_3_wires_every_kind_and_attack(echo_python):
    done = shell(
        STAGES[2],
        {
            "PYTHON": echo_python,
            "TASKS": "ag_news",
            "GPUS": "0,1",
            "KINDS": "robust random random_matched magnitude",
        },
    )
    lines = done.stdout.splitlines()
    assert sum("make_scores.py" in line for line in lines) == 3
    retrain = [line for line in lines if "retrain_ticket.py" in line]
    assert len(retrain) == 4 and "/search-robust>" in retrain[0]
    assert all("<--sparsity><0.4>" in line for line in retrain)
    launched = "<torch.distributed.run><--standalone><--nproc_per_node><2>"
    assert all(launched in line for line in retrain)
    attacks = [line for line in lines if "attack.py" in line]
    assert len(attacks) == 12
    assert all("<--num_examples><1000>" in line for line in attacks)
    recipes = {re.search(r"<--recipe><([\w-]+)>", line).group(1) for line in attacks}
    assert recipes == {"bertattack", "textfooler", "textbugger"}


def test_the_baselines_have_the_settings_of_their_authors(echo_python):
    done = shell(
        STAGES[0],
        {
            "PYTHON": echo_python,
            "METHODS": "plain freelb infobert pgd",
            "TASKS": "sst2 imdb ag_news qnli qqp mnli",
        },
    )
    want = {
        "sst2": "0.1 0.6 0 2",
        "imdb": "0.1 0.6 0 2",
        "ag_news": "0.1 0.6 0 2",
        "qnli": "0.05 0.1 0 3",
        "qqp": "0.2 0.32 0.7 3",
        "mnli": "0.04 0.08 0 3",
    }
    lines = done.stdout.splitlines()
    assert len(lines) == 24
    for line in lines:
        task = re.search(r"<--task_name><(\w+)>", line).group(1)
        method = re.search(r"<--method><(\w+)>", line)
        assert ("/dense>" in line) == (method is None)
        if method is None:
            assert "--adv" not in line
            continue
        values = [
            re.search(rf"<--adv_{flag}><([\d.]+)>", line).group(1)
            for flag in ("lr", "init_mag", "max_norm", "steps")
        ]
        infobert = method.group(1) == "infobert"
        assert " ".join(values) == ("0.04 0.08 0 3" if infobert else want[task])
        assert f"/dense-{method.group(1)}>" in line


def test_stage_2_finds_tickets_in_every_way(echo_python):
    done = shell(
        STAGES[1],
        {"PYTHON": echo_python, "TASKS": "imdb", "KINDS": "robust no_adversary imp imp_freelb"},
    )
    robust, without, imp, imp_freelb = done.stdout.splitlines()
    assert "<--adv_steps><5>" in robust and "/search-robust>" in robust
    assert "<--adv_steps><0>" in without and "/search-no_adversary>" in without
    assert "prune_iteratively.py" in imp and "/scores-imp>" in imp and "--method" not in imp
    assert "<--to_sparsity><0.2><--share_per_round><0.1><--epochs><3>" in imp
    assert "<--method><freelb>" in imp_freelb and "/scores-imp_freelb>" in imp_freelb


def test_stage_3_reinitializes_and_draws_from_each_kind(echo_python):
    kinds = "no_adversary imp imp_freelb magnitude_finetuned wanda taylor complement"
    done = shell(
        STAGES[2],
        {
            "PYTHON": echo_python,
            "TASKS": "sst2",
            "ATTACK": "no",
            "KINDS": kinds,
            "REINIT": "ticket rest",
            "TAG": "-x",
        },
    )
    lines = [line for line in done.stdout.splitlines() if "retrain_ticket" in line]
    assert len(lines) == 14
    for kind, line in zip(kinds.split(), lines[::2], strict=True):
        folder = "search-" if kind == "no_adversary" else "scores-"
        assert f"/{folder}{kind}>" in line and "<--reinitialise><ticket>" in line
        assert f"/ticket-{kind}-0.3-reinit_ticket-x>" in line
    made = [line for line in done.stdout.splitlines() if "make_scores" in line]
    for kind, line in zip(("magnitude", "wanda", "taylor"), made[:3], strict=True):
        assert f"<--kind><{kind}>" in line and "<--finetuned>" in line and "/dense/best>" in line
    assert "<--kind><complement>" in made[3] and "/search-robust>" in made[3]


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


@pytest.mark.parametrize("script", ["reproduce.sh", "scripts/setup.sh"])
def test_a_python_of_that_name_must_exist(script, copied_scripts):
    """Neither a set-up nor another interpreter replaces it."""
    done = shell(copied_scripts / script, {"PYTHON": "nowhere/python"})
    assert done.returncode == 2 and "PYTHON=nowhere/python" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (copied_scripts / ".venv").exists()


@pytest.fixture
def failing_python(tmp_path) -> str:
    """Like echo_python, but the attack textfooler exits with the status in the file `status`."""
    path = tmp_path / "python"
    path.write_text(
        '#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\necho\n'
        'case "$*" in *"--recipe textfooler "*) exit "$(cat "${0%/*}/status")" ;; esac\n'
    )
    path.chmod(0o755)
    return str(path)


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
    settings |= {"PYTHON": failing_python, "TASKS": "sst2", "SEEDS": "1 2", "RUNS": "r"}
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


def test_failed_scores_skip_their_kind_but_a_signal_ends_the_stage(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\necho\n'
        f'case "$*" in *"--kind complement "*) exit "$(cat "{tmp_path}/status")" ;; esac\n'
    )
    python.chmod(0o755)
    settings = {"PYTHON": str(python), "TASKS": "sst2", "SEEDS": "1 2", "RUNS": "r"}
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


READ_BY = {  # the documented variables, and the stages that read them
    line.split()[0]: set(re.findall(r"\d(?=a?\s)", line[17:26]))
    for line in (ROOT / "scripts" / "variables.sh").read_text().split("'")[1].strip().splitlines()
}


@pytest.mark.parametrize("script", STAGES)
def test_the_table_of_variables_lists_what_each_stage_reads(script):
    """A variable that a script takes from outside occurs as ${NAME: or as "NAME="."""
    stage, common = script[5], (ROOT / "scripts" / "common.sh").read_text()
    text = (ROOT / script).read_text() + common
    taken = set(re.findall(r"\$\{([A-Z_]+):", text)) - {"PYTHON", "OMP_WAIT_POLICY"}
    of_attacks = set(re.findall(r"\$\{([A-Z_]+):", common[common.index("attack_run FOLDER") :]))
    documented = {name for name, stages in READ_BY.items() if stage in stages}
    of_attacks |= {"CHECKPOINT", "ATTACK_PRESET", "PROCESSES", "RECIPES"}
    assert documented - of_attacks == taken - of_attacks
    assert of_attacks <= set(READ_BY)


@pytest.mark.parametrize(
    ("script", "variable", "hint"),
    [
        (STAGES[0], "SPARSITIES", ""),
        (STAGES[0], "SEARCH_EPOCHS", " (use EPOCHS)"),
        (STAGES[1], "EPOCHS", " (use SEARCH_EPOCHS or IMP_EPOCHS)"),
        (STAGES[1], "LR", " (use MASK_LR or IMP_LR)"),
        (STAGES[1], "REINIT", ""),
        (STAGES[2], "METHODS", ""),
        (STAGES[2], "ADV_STEPS", ""),
    ],
)
def test_a_variable_that_a_stage_does_not_read_is_an_error(script, variable, hint, echo_python):
    done = shell(script, {"PYTHON": echo_python, variable: "1"})
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f"error: stage {script[5]} does not read {variable}{hint}; unset it\n"


def test_variables_of_attacks_may_be_set_for_all_stages(echo_python):
    settings = {"PYTHON": echo_python, "TASKS": "sst2", "RECIPES": "pwws", "NUM_EXAMPLES": "7"}
    for script in STAGES[:2]:
        done = shell(script, settings)
        assert done.returncode == 0 and "attack.py" not in done.stdout
        note = "note: this stage does not attack, so it does not read RECIPES NUM_EXAMPLES\n"
        assert done.stderr == note
    for script in (STAGES[0], STAGES[2]):
        done = shell(script, settings | {"ATTACK": "yes"})
        assert "<--recipe><pwws><--num_examples><7>" in done.stdout and not done.stderr


def test_longer_training_does_not_change_the_search(echo_python):
    settings = {"PYTHON": echo_python, "TASKS": "sst2", "KINDS": "robust imp"}
    done = shell(STAGES[1], settings | {"SEARCH_EPOCHS": "6", "IMP_EPOCHS": "2"})
    robust, imp = done.stdout.splitlines()
    assert "<--epochs><6>" in robust and "<--epochs><2>" in imp


@pytest.mark.parametrize("script", STAGES)
def test_misspelled_variables_are_errors_that_name_the_right_one(script, echo_python):
    settings = {"PYTHON": echo_python, "TASKS": "sst2", "RUN": "7", "TAGS": "x", "PRESET": "hour"}
    assert shell(script, settings).returncode == 0  # variables of other programs
    stage = script[5]
    names = {"SEED": "SEEDS", "TASK": "TASKS", "SPARSITY": "SPARSITIES", "BATCH_SIZE": "BSZ"}
    names |= {"LAMDA": "LAMBDA", "MODELS": "MODEL", "RECIPE": "RECIPES", "NEIGHBORS": "NEIGHBOURS"}
    hints = {name: f"the variable is {right}" for name, right in names.items()}
    of_search = stage == "2"
    hints["EPOCH"] = "use SEARCH_EPOCHS or IMP_EPOCHS" if of_search else "the variable is EPOCHS"
    hints["LEARNING_RATE"] = "use MASK_LR or IMP_LR" if of_search else "the variable is LR"
    for name, hint in hints.items():
        done = shell(script, settings | {name: "3"})
        assert done.returncode == 2 and not done.stdout
        assert done.stderr == f"error: stage {stage} does not read {name} ({hint}); unset it\n"


@pytest.mark.parametrize(
    ("script", "names"),
    [
        *((script, ["TASKS", "SEEDS", "MODEL", "PYTHON", "ATTACK", "LAMBDA"]) for script in STAGES),
        ("reproduce.sh", ["PYTHON"]),
        ("quickstart.sh", ["PRESET"]),
        ("scripts/setup.sh", ["PYTHON"]),
        ("scripts/second_half.sh", ["DATA", "RUNS", "NEIGHBOURS", "DRY_RUN", "PYTHON", "SEEDS"]),
    ],
)
def test_carriage_returns_in_variables_are_named(script, names, echo_python, copied_scripts):
    usual = {"PYTHON": echo_python, "TASKS": "sst2", "NEIGHBOURS": "n.json"}
    before = sorted(copied_scripts.rglob("*"))
    for name in names:
        done = shell(str(copied_scripts / script), usual | {name: usual.get(name, "") + "\r"}, "1")
        assert done.returncode == 2 and not done.stdout
        line = f"error: {name} contains a carriage return (Windows line endings?); remove it\n"
        assert done.stderr == line
    assert sorted(copied_scripts.rglob("*")) == before


@pytest.mark.parametrize("script", STAGES)
def test_carriage_returns_in_flags_are_refused(script, echo_python):
    done = shell(
        script, {"PYTHON": echo_python, "KINDS": "" if "1" in script else "robust"}, "-q\r"
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "error: a flag contains a carriage return; remove it\n"


def every_script() -> list[str]:
    paths = [*ROOT.glob("*.sh"), *ROOT.glob("benchmarks/*.sh"), *ROOT.glob("scripts/*.sh")]
    sourced = {"common.sh", "variables.sh", "line_endings.sh"}
    return sorted(str(path.relative_to(ROOT)) for path in paths if path.name not in sourced)


@pytest.mark.parametrize("script", every_script())
@pytest.mark.parametrize("converted", ["all", "the script"])
def test_windows_line_endings_are_named(script, converted, copied_scripts):
    shutil.copytree(ROOT / "benchmarks", copied_scripts / "benchmarks")
    path = copied_scripts / script
    for file in [path] if converted == "the script" else copied_scripts.rglob("*.sh"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    done = shell(str(path))
    assert done.returncode == 2 and not done.stdout
    remedy = f"error: Windows line endings; remove them: sed -i 's/\\r//' {path}"
    assert done.stderr.startswith(remedy) and done.stderr.count("\n") == 1
    subprocess.run(["sh", "-c", done.stderr.partition("them: ")[2]], check=True)
    assert b"\r" not in path.read_bytes()


def test_stage_3_reads_the_scores_of_a_tagged_search(echo_python):
    settings = {"PYTHON": echo_python, "TASKS": "sst2", "KINDS": "robust imp random_matched"}
    done = shell(STAGES[2], settings | {"SCORES_TAG": "-long", "TAG": "-x", "ATTACK": "no"})
    robust, imp, made, matched = done.stdout.splitlines()
    assert "/search-robust-long>" in robust and "/ticket-robust-0.3-x>" in robust
    assert "/scores-imp-long>" in imp and "/ticket-imp-0.3-x>" in imp
    # The random scores are those of the tagged search, in a folder of their own.
    assert "/search-robust-long><--output_dir>" in made
    assert made.endswith("/scores-random_matched-long>")
    assert "/scores-random_matched-long>" in matched


def test_the_quickstart_ignores_settings_of_the_shell(copied_scripts, echo_python):
    shutil.copy(ROOT / "requirements.txt", copied_scripts)
    python = copied_scripts / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy(ROOT / "requirements.txt", copied_scripts / ".venv" / "requirements.installed")
    shutil.copy(echo_python, python)
    (copied_scripts / "runs" / "quickstart").mkdir(parents=True)

    def commands(**settings: str) -> str:
        done = shell(copied_scripts / "quickstart.sh", settings)
        assert done.returncode == 0, done.stderr
        (copied_scripts / "runs" / "quickstart" / "all-done").unlink()
        return done.stdout

    usual = commands()
    assert usual.count("attack.py") == 3 and usual.count("--output_dir") == 6
    others = dict.fromkeys((*READ_BY, "SEED", "SPARSITY", "BATCH_SIZE"), "7")
    assert commands(**others, PYTHON="/nowhere") == usual


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
            assert args.seed in (11, 14) and f"seed{args.seed}" in args.output_dir
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


@pytest.fixture
def pythons(tmp_path, copied_scripts) -> Path:
    """A folder of Pythons that write what they do to `done`. Those named in `old` do not fit."""
    for file in ROOT.glob("requirements*"):
        shutil.copy(file, copied_scripts)
    folder = tmp_path / "pythons"
    folder.mkdir()
    (folder / "old").touch()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (folder / name).write_text(
            f"""#!/bin/sh
case "$1 $2" in
    "-c "*) ! grep -qx "$(basename "$0")" {folder}/old ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "{name} $3" >>{folder}/done ;;
    *) echo "$*" >>{folder}/done ;;
esac
"""
        )
        (folder / name).chmod(0o755)
    return folder


def set_up(checkout: Path, pythons: Path, *words, **settings) -> list[str]:
    env = {"PATH": f"{pythons}:{os.environ['PATH']}"} | settings
    done = shell(str(checkout / "scripts" / "setup.sh"), env, *words)
    assert done.returncode == 0 and not done.stderr
    log = pythons / "done"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_set_up_takes_the_newest_python_that_fits(copied_scripts, pythons):
    venv = copied_scripts / ".venv"
    for old, chosen in (
        ("", "python3.13"),
        ("python3.13", "python3.12"),
        ("python3.13\npython3.12", "python3.11"),
        ("python3.13\npython3.12\npython3.11", "python3"),
    ):
        (pythons / "old").write_text(old)
        created, *installed = set_up(copied_scripts, pythons)
        assert created == f"{chosen} {venv}" and installed[-1].endswith("/requirements.txt")
        assert set_up(copied_scripts, pythons) == []  # done already
        shutil.rmtree(venv)
    (pythons / "old").write_text("")
    assert set_up(copied_scripts, pythons, PYTHON="python3.12")[0] == f"python3.12 {venv}"
    shutil.rmtree(venv)
    (pythons / "old").write_text("python3.13")
    done = shell(str(copied_scripts / "scripts/setup.sh"), {"PYTHON": str(pythons / "python3.13")})
    assert done.returncode == 2 and "python3.13 is not a Python 3.11, 3.12 or 3.13" in done.stderr


def test_set_up_for_transformers_5_installs_the_training_half(copied_scripts, pythons):
    venv = copied_scripts / ".venv-transformers5"
    created, installed = set_up(copied_scripts, pythons, "--transformers5")
    assert created == f"python3.13 {venv}" and installed.endswith(f"{venv}/requirements.txt")
    lines = [
        line.partition("#")[0] for line in (venv / "requirements.txt").read_text().splitlines()
    ]
    wanted = {re.split("[=><]", line)[0]: line for line in lines if line.strip()}
    assert wanted["transformers"] == "transformers>=5,<6"
    assert {"torch", "datasets", "matplotlib", "pytest"} < wanted.keys()
    assert not {"textattack", "tensorflow", "nltk"} & wanted.keys()
    assert set_up(copied_scripts, pythons, "--transformers5") == []
    assert not (copied_scripts / ".venv").exists()
    done = shell(str(copied_scripts / "scripts/setup.sh"), {}, "--transformers6")
    assert done.returncode == 2 and "unknown argument '--transformers6'" in done.stderr


def test_each_locked_package_has_a_file_for_each_python():
    """One hash for a package that all Pythons share, or more; one file may serve two Pythons."""
    text = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"\n(?=[A-Za-z])", text.partition("\nabsl-py")[2])
    counts = {package.count("--hash=sha256:") for package in packages}
    assert len(packages) > 140 and counts <= {1, 2, 3, 4}


def python_that_fails_at(root: Path, words: str, status: int = 3) -> None:
    """The .venv of a checkout that is set up; its python prints its arguments."""
    (root / "scripts" / "setup.sh").write_text("exit 0\n")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*"\ncase "$*" in *"{words}"*) exit {status};; esac\n')
    python.chmod(0o755)


@pytest.mark.parametrize("status", [0, 3])
def test_all_tests_run_next_to_those_of_a_cluster(status, copied_scripts):
    python_that_fails_at(copied_scripts, "-rs tests/cluster", status)
    done = shell(str(copied_scripts / "run_tests.sh"))
    assert done.returncode == status
    lines = done.stdout.splitlines()
    assert lines[-3] == "-m pytest -q --ignore tests/cluster"
    assert lines[-2:] == ["-m pytest -q -rs tests/cluster", "-m mypy"]


@pytest.mark.parametrize(
    "failing", ["ruff check", "ruff format", "codespell_lib", "mypy", "pytest", "nothing"]
)
def test_each_check_of_the_tests_fails_the_command_and_is_shown(failing, copied_scripts):
    python_that_fails_at(copied_scripts, failing)
    done = shell(str(copied_scripts / "run_tests.sh"), None, "--fast", "-x")
    assert done.returncode == (0 if failing == "nothing" else 3)
    if failing in ("mypy", "pytest", "nothing"):
        assert "-m pytest -q -m not slow -x\n-m mypy\n" in done.stdout
    else:
        assert failing in done.stdout.splitlines()[-1]
