"""--structure: the stages with gates of whole units, and checkpoints without them."""

import json

import pytest
import torch
from conftest import call, fails, log_lines
from script_tools import finetune, retrain, search
from transformers import AutoModelForSequenceClassification

from masking import ticket_files
from training.ticketed import load_ticketed
from utils.cli import UserError
from utils.files import read_json, read_jsonl

STEP = {"epochs": 1, "bsz": 32, "max_train_rows": 64, "max_eval_rows": 32}
IDS = torch.arange(5, 17)[None]


@pytest.fixture(scope="module")
def dense(encoder, sst2_folder, tmp_path_factory):
    return finetune(encoder, sst2_folder, tmp_path_factory.mktemp("units") / "dense", **STEP)


@pytest.fixture(scope="module")
def searched(dense):
    return search(dense, dense.parent / "search", structure="ffn_neurons,heads", epochs=2)


def logits(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(input_ids=IDS).logits, model.config


@pytest.mark.slow
def test_a_ticket_of_units_is_drawn_retrained_and_removed(
    searched, encoder, sst2_folder, tmp_path, capsys
):
    scores, shapes, manifest = ticket_files.load_scores(searched / "scores.safetensors")
    assert manifest["structure"] == ["ffn_neurons", "heads"] and manifest["gates"] == 2 * (32 + 2)
    assert [tuple(s.shape) for s in scores.values()] == [(32, 1), (2, 1)] * 2
    assert log_lines(searched)[-1]["dev"]["ticket_density_by_kind"].keys() == {
        "ffn_neurons",
        "heads",
    }
    data = {"task_name": "sst2", "data_dir": sst2_folder, "uniform": True, **STEP}
    masked = retrain(encoder, searched, tmp_path / "masked", **data)
    capsys.readouterr()
    shrunk = retrain(encoder, searched, tmp_path / "shrunk", shrink=True, **data)
    assert "asked for sparsity 0.4; whole units or blocks come nearest" in capsys.readouterr().out
    name = "ticket.safetensors"
    assert (masked / name).read_bytes() == (shrunk / name).read_bytes()
    with_zeros, config = logits(masked / "last")
    without, smaller = logits(shrunk / "last")
    torch.testing.assert_close(without, with_zeros, rtol=1e-4, atol=1e-6)
    assert smaller.intermediate_size < config.intermediate_size == 32
    removed = read_json(shrunk / "last" / "checkpoint.json")["removed"]
    assert removed["neurons_per_layer"] == smaller.intermediate_size
    assert removed["zeroed"] in ([], ["heads"])
    [last, _] = read_jsonl(shrunk / "records.jsonl")
    assert last["ticket"]["structure"] == ["ffn_neurons", "heads"] and last["ticket"]["uniform"]
    again = finetune(shrunk / "best", sst2_folder, tmp_path / "further", **STEP)
    assert logits(again / "best")[1].intermediate_size == smaller.intermediate_size
    assert "from which units were removed" in fails(
        *(capsys, "retrain_ticket", "--model_name", shrunk / "best", "--ticket", shrunk),
        *("--shrink", "--output_dir", tmp_path / "twice"),
    )
    assert not (tmp_path / "twice").exists()


@pytest.mark.slow
def test_a_removed_layer_never_stays_in_a_checkpoint(dense, encoder, sst2_folder, tmp_path):
    scores = search(dense, tmp_path / "search", structure="layers", epochs=1)
    data = {"task_name": "sst2", "data_dir": sst2_folder, **STEP}
    ticket = retrain(encoder, scores, tmp_path / "ticket", **data, sparsity=0.5)
    _, config = logits(ticket / "best")
    assert config.num_hidden_layers == 1
    evaluated = [r for r in read_jsonl(ticket / "records.jsonl") if r["kind"] == "evaluation"]
    assert len(evaluated) == 2 and evaluated[0]["ticket"]["sparsity"] == 0.5
    with pytest.raises(UserError, match="removes whole layers"):
        load_ticketed(ticket, str(encoder))


@pytest.mark.slow
def test_a_search_ends_at_its_target(dense, encoder, sst2_folder, tmp_path, capsys):
    target = {"structure": "ffn_neurons", "target_sparsity": 0.25}
    scores = search(dense, tmp_path / "search", **target, epochs=20, bsz=16, lr=0.2)
    [*_, last] = log_lines(scores)
    reached = last["dev"]["target"]
    assert reached["wanted_cost"] == reached["drawn_cost"] == 0.75
    assert abs(reached["expected_cost"] - 0.75) < 0.01
    steps = [line for line in log_lines(scores) if "multipliers" in line]
    assert steps[-1]["multipliers"] != steps[0]["multipliers"]
    data = {"task_name": "sst2", "data_dir": sst2_folder, **STEP}
    capsys.readouterr()
    call(
        *("retrain_ticket", "--model_name", encoder, "--scores", scores),
        *("--output_dir", tmp_path / "ticket"),
        **data,
    )
    assert read_json(tmp_path / "ticket" / "ticket.json")["sparsity"] == 0.25


def latency_table(folder, neurons=32):
    table = folder / "table.json"
    times = {"ffn": {"neurons": [0, neurons], "seconds": [0.0, 3.0]}}
    table.write_text(json.dumps(times | {"attention_seconds": 1.0, "rest_seconds": 0.0}))
    return table


def test_a_table_of_another_encoder_and_a_speed_out_of_reach(dense, tmp_path, capsys):
    flags = ("search_ticket", "--model_name", dense, "--structure", "ffn_neurons")
    flags += ("--output_dir", tmp_path / "search", "--latency_table")
    too_large = latency_table(tmp_path, neurons=64)
    said = fails(capsys, *flags, too_large, "--target_speedup", 1.5)
    assert "that of 64 neurons per layer, but this encoder has 32" in said
    for impossible in ("NaN", "-3.0"):
        table = latency_table(tmp_path)
        table.write_text(table.read_text().replace("3.0", impossible))
        said = fails(capsys, *flags, table, "--target_speedup", 1.5)
        assert "it holds times that are not possible" in said
    said = fails(capsys, *flags, latency_table(tmp_path), "--target_speedup", 9)
    # One neuron stays: 4 / (1 + 3 / 32).
    assert "--target_speedup 9: the nearest is 3.66" in said
    assert not (tmp_path / "search").exists()


def test_a_search_for_a_speed_up(dense, tmp_path):
    table = latency_table(tmp_path)
    scores = search(
        *(dense, tmp_path / "search"),
        **{"structure": "ffn_neurons", "target_speedup": 1.6, "latency_table": table},
        epochs=2,
    )
    # A layer takes 1 + 3 n / 32; 8 / 1.6 = 2 (1 + 3 n / 32) gives n = 16.
    target = ticket_files.load_scores(scores / "scores.safetensors")[2]["target"]
    assert target["uniform"] and target["sparsity"] == pytest.approx(0.5, abs=0.02)
    assert target["drawn_cost"] == pytest.approx(1 / 1.6)


def test_a_miss_of_the_target_is_reported_for_gates_and_ticket_apart(capsys):
    import search_ticket

    about = {"asked": "sparsity 0.5", "wanted_cost": 0.5, "sparsity": 0.5, "uniform": False}
    cases = ((0.5, 0.5, ""), (0.6, 0.5, "raise --epochs"), (0.5, 0.48, "too large"))
    for expected, drawn, warned in cases:
        target = about | {"expected_cost": expected, "drawn_cost": drawn}
        search_ticket.report_target({"target": target})
        said = capsys.readouterr().err
        assert warned in said and said.count("warning") == bool(warned)


@pytest.mark.parametrize(
    "flags, part",
    [
        ({"structure": "neurons"}, "the structure neurons is unknown"),
        ({"structure": "heads,heads"}, "names one of them twice"),
        ({"structure": "weights,heads"}, "weights cannot be combined"),
        ({"structure": "heads", "matrices": "query"}, "--matrices and --exclude have no effect"),
        (
            {"structure": "heads", "out_w_per_mask": 0},
            "(--out_w_per_mask, --in_w_per_mask) have no effect",
        ),
        ({"structure": "heads", "deviations": "released"}, "--penalty_mean matrices has no effect"),
        ({"structure": "layers", "target_sparsity": 0.3}, "the nearest is 0.500"),
        ({"target_speedup": 2.0}, "--target_speedup and --latency_table need each other"),
        ({"target_speedup": 2.0, "latency_table": "x"}, "needs --structure"),
        (
            {"structure": "layers", "target_speedup": 2.0, "latency_table": "x"},
            "there is no latency table at x",
        ),
        (
            {"structure": "ffn_neurons,heads", "target_speedup": 2.0, "latency_table": "x"},
            "omit heads from --structure",
        ),
        ({"multiplier_lr": 1.0}, "--multiplier_lr needs"),
    ],
)
def test_wrong_searches(dense, tmp_path, capsys, flags, part):
    given = [word for name, value in flags.items() for word in (f"--{name}", value)]
    out = ("--output_dir", tmp_path / "search")
    assert part in fails(capsys, "search_ticket", "--model_name", dense, *given, *out)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("flag", ["--shrink", "--uniform"])
def test_flags_of_units_with_a_ticket_of_weights(encoder, sst2_folder, tmp_path, capsys, flag):
    scores = tmp_path / "scores"
    call("make_scores", kind="random", model_name=encoder, output_dir=scores)
    message = fails(
        *(capsys, "retrain_ticket", "--model_name", encoder, "--scores", scores),
        *("--sparsity", 0.4, "--task_name", "sst2", "--data_dir", sst2_folder, flag),
        *("--output_dir", tmp_path / "ticket"),
    )
    assert f"single weights, so {flag} has no effect" in message
    assert not (tmp_path / "ticket").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["magnitude", "random", "taylor", "random_matched"])
def test_rivals_with_the_same_drawing(dense, searched, encoder, sst2_folder, tmp_path, kind):
    from_ = {"scores": searched} if kind == "random_matched" else {"model_name": encoder}
    from_ |= {} if kind == "random_matched" else {"structure": "ffn_neurons"}
    from_ |= {"finetuned": dense, "calibration_rows": 8} if kind == "taylor" else {}
    call("make_scores", kind=kind, **from_, output_dir=tmp_path / "scores")
    data = {"task_name": "sst2", "data_dir": sst2_folder, "uniform": True, **STEP}
    ticket = retrain(encoder, tmp_path / "scores", tmp_path / "ticket", **data, shrink=True)
    [record, _] = read_jsonl(ticket / "records.jsonl")
    assert record["ticket"]["kind"] == kind
    assert logits(ticket / "best")[1].intermediate_size < 32
