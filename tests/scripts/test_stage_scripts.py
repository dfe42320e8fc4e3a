"""The stage scripts, run with a `python` that prints its arguments: flags and folders."""

import re

import pytest
from shell_tools import STAGES, shell

from training import tasks


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


def test_longer_training_does_not_change_the_search(echo_python):
    settings = {"PYTHON": echo_python, "TASKS": "sst2", "KINDS": "robust imp"}
    done = shell(STAGES[1], settings | {"SEARCH_EPOCHS": "6", "IMP_EPOCHS": "2"})
    robust, imp = done.stdout.splitlines()
    assert "<--epochs><6>" in robust and "<--epochs><2>" in imp


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
