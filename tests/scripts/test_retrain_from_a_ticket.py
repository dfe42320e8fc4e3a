"""retrain_ticket.py --ticket: a ticket file gives what the scores it was drawn from give."""

import json
from pathlib import Path

import pytest
from conftest import call, fails, log_lines
from script_tools import without_times

from masking import ticket_files, tickets
from utils.files import read_jsonl

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted((ROOT / "results" / "study" / "tickets").glob("*.safetensors"))
SMALL = ("--max_train_rows", 64, "--max_eval_rows", 16, "--epochs", 1, "--bsz", 16, "--quiet")


@pytest.fixture(scope="module")
def from_scores(encoder, sst2_folder, tmp_path_factory):
    """A run of stage 3 that draws its ticket from scores; the scores lie next to it."""
    root = tmp_path_factory.mktemp("from_scores")
    make = ("make_scores", "--kind", "random", "--model_name", encoder, "--seed", 3)
    call(*make, "--output_dir", root / "scores")
    data = ("--task_name", "sst2", "--data_dir", sst2_folder)
    drawn = ("--scores", root / "scores", "--sparsity", 0.4, "--output_dir", root / "ticket")
    call("retrain_ticket", "--model_name", encoder, *drawn, *data, *SMALL)
    return root


@pytest.mark.parametrize("given", ["ticket", "ticket/ticket.safetensors"])
def test_a_ticket_gives_the_bytes_that_its_scores_give(from_scores, encoder, tmp_path, given):
    """The task and its data come from the run that the ticket file lies in."""
    again = tmp_path / "again"
    ticket = ("--ticket", from_scores / given, "--output_dir", again)
    call("retrain_ticket", "--model_name", encoder, *ticket, *SMALL)
    for name in ("last/model.safetensors", "best/model.safetensors", "ticket.safetensors"):
        assert (again / name).read_bytes() == (from_scores / "ticket" / name).read_bytes()
    assert without_times(again / "records.jsonl") == without_times(
        from_scores / "ticket" / "records.jsonl"
    )


def test_a_ticket_is_retrained_on_another_task_and_seed(
    from_scores, encoder, sst2_folder, tmp_path
):
    call(
        *("retrain_ticket", "--model_name", encoder, "--ticket", from_scores / "ticket", *SMALL),
        *("--task_name", "custom", "--train_file", sst2_folder / "train.tsv", "--seed", 7),
        *("--test_file", sst2_folder / "dev.tsv", "--text_columns", "sentence"),
        *("--label_column", "label", "--output_dir", tmp_path / "t"),
    )
    mine, theirs = (
        ticket_files.load_ticket(folder / "ticket.safetensors")[0]
        for folder in (tmp_path / "t", from_scores / "ticket")
    )
    assert all(bool((mine[name] == theirs[name]).all()) for name in theirs)
    record = read_jsonl(tmp_path / "t" / "records.jsonl")[0]
    assert record["seed"] == 7 and record["ticket"]["scores_seed"] == 3
    assert record["ticket"]["sparsity_asked"] == 0.4


@pytest.mark.slow
def test_a_committed_ticket_can_be_retrained(sst2_folder, tmp_path):
    """One step on the encoder that the ticket was found in."""
    call(
        *("retrain_ticket", "--model_name", "builtin/minilm", "--ticket", COMMITTED[-1]),
        *("--task_name", "sst2", "--data_dir", sst2_folder, "--max_train_rows", 8, "--bsz", 8),
        *("--max_eval_rows", 4, "--epochs", 1, "--output_dir", tmp_path / "t", "--quiet"),
    )
    assert len(log_lines(tmp_path / "t")) == 2  # a step, and the end of the epoch
    written, manifest = ticket_files.load_ticket(tmp_path / "t" / "ticket.safetensors")
    committed, of_committed = ticket_files.load_ticket(COMMITTED[-1])
    assert all(bool((written[name] == committed[name]).all()) for name in committed)
    assert manifest["source"]["sha256"] == of_committed["source"]["sha256"]
    assert manifest["source"]["recipe"]["adv_steps"] == 3


def test_the_committed_tickets_are_of_one_encoder_and_search():
    """What retrain_ticket.py checks of a ticket; the test above retrains one of them."""
    loaded = [ticket_files.load_ticket(path) for path in COMMITTED]
    shapes = [{name: mask.shape for name, mask in masks.items()} for masks, _ in loaded]
    assert shapes == shapes[:1] * len(COMMITTED)
    sources = [manifest["source"] for _, manifest in loaded]
    assert len({source["encoder"]["fingerprint"] for source in sources}) == 1
    assert len({source["sha256"] for source in sources}) == len(COMMITTED)
    for path, source, (masks, manifest) in zip(COMMITTED, sources, loaded, strict=True):
        assert f"seed{source['seed']}-{source['kind']}-0.3" in path.stem
        assert tickets.sparsity_of(masks) == pytest.approx(manifest["sparsity_asked"], abs=1e-6)


@pytest.mark.parametrize(
    "flags, part",
    [
        ((), "give --scores and --sparsity, or --ticket"),
        (("--scores", "SCORES"), "give --sparsity"),
        (("--ticket", "TICKET", "--sparsity", 0.3), "--ticket is drawn already"),
        (("--ticket", "nowhere"), "there is no ticket file at nowhere"),
        (("--ticket", "SCORES"), "is not a ticket file"),
        (("--ticket", "NO_ORIGIN"), "does not name its encoder, kind and seed"),
    ],
)
def test_wrong_tickets(from_scores, encoder, sst2_folder, tmp_path, capsys, flags, part):
    masks, manifest = ticket_files.load_ticket(from_scores / "ticket" / "ticket.safetensors")
    no_origin = tmp_path / "no_origin.safetensors"
    ticket_files.save_ticket(no_origin, masks, {"sparsity_asked": 0.4})
    paths = {
        "TICKET": from_scores / "ticket",
        "SCORES": from_scores / "scores" / "scores.safetensors",
        "NO_ORIGIN": no_origin,
    }
    flags = [paths.get(flag, flag) for flag in flags]
    data = ("--task_name", "sst2", "--data_dir", sst2_folder, "--output_dir", tmp_path / "t")
    assert part in fails(capsys, "retrain_ticket", "--model_name", encoder, *flags, *data)
    assert not (tmp_path / "t").exists()


def test_a_ticket_of_another_encoder_needs_a_flag(
    from_scores, encoder, sst2_folder, tmp_path, capsys
):
    masks, manifest = ticket_files.load_ticket(from_scores / "ticket" / "ticket.safetensors")
    source = json.loads(json.dumps(manifest["source"]))
    source["encoder"]["fingerprint"] = "0" * 16
    facts = {"source": source, "sparsity_asked": 0.4}
    ticket_files.save_ticket(tmp_path / "ticket.safetensors", masks, facts)
    data = ("--task_name", "sst2", "--data_dir", sst2_folder, "--output_dir", tmp_path / "t")
    ticket = ("--ticket", tmp_path / "ticket.safetensors")
    line = fails(capsys, "retrain_ticket", "--model_name", encoder, *ticket, *data)
    assert "was made for the encoder" in line and "--allow_other_encoder" in line
