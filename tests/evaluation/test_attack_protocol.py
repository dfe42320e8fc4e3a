"""Choosing rows, tallies and the resumable folder. No TextAttack."""

import json

import pytest

from evaluation import outcomes, protocol
from evaluation.attack_folder import AttackFolder
from training.rows import Rows
from utils import process_state
from utils.cli import UserError


def rows_of(labels: list[int]) -> Rows:
    n = len(labels)
    return Rows([(f"text {i}",) for i in range(n)], labels, [f"test:{i}" for i in range(n)], "file")


def folder_at(folder, settings: dict, ids: list[str]) -> AttackFolder:
    return AttackFolder(folder, settings, ids, folder.parent / "records.jsonl")


def line(row_id: str, outcome: str, queries: int = 1, changed: int = 0, total: int = 10) -> dict:
    return {
        "row_id": row_id,
        "label": 1,
        "outcome": outcome,
        "queries": queries,
        "words_changed": changed,
        "words_total": total,
    }


def test_random_rows_are_balanced_reproducible_and_in_file_order():
    rows = rows_of([0] * 60 + [1] * 30 + [2] * 5)
    chosen = protocol.choose_rows(rows, 30, "balanced", seed=1)
    counts = [chosen.labels.count(label) for label in range(3)]
    assert sum(counts) == 30 and counts[2] == 5 and abs(counts[0] - counts[1]) <= 1
    positions = [int(i.split(":")[1]) for i in chosen.ids]
    assert positions == sorted(positions)
    assert chosen.ids == protocol.choose_rows(rows, 30, "balanced", seed=1).ids
    assert chosen.ids != protocol.choose_rows(rows, 30, "balanced", seed=2).ids


def test_all_rows_of_a_short_file_and_first_rows():
    rows = rows_of([0, 0, 0, 1, 1])
    assert protocol.choose_rows(rows, 9, "balanced", 0).ids == rows.ids
    first = protocol.choose_rows(rows, 3, "first", 0)
    assert first.ids == ["test:0", "test:1", "test:2"]
    facts = protocol.describe_rows(first, "first", 0)
    assert facts["rows_per_label"] == {"0": 3} and facts["seed"] is None


def test_tally_by_hand():
    lines = [
        line("a", "success", queries=10, changed=1, total=10),
        line("b", "success", queries=30, changed=3, total=10),
        line("c", "failed", queries=50, changed=9, total=10),
        line("d", "skipped", queries=1),
    ]
    t = outcomes.tally(lines)
    assert t["clean_percent"] == 75 and t["aua_percent"] == 25
    assert t["suc_percent"] == pytest.approx(100 * (1 - 25 / 75))
    assert t["queries_per_row"] == 30 and t["words_changed_percent"] == 20
    low, high = t["intervals_95"]["aua_percent"]  # Wilson, 1 of 4, by its formula
    z, n, p = 1.959964, 4, 0.25
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert (low, high) == pytest.approx((100 * (center - half), 100 * (center + half)), abs=1e-4)
    counts = [t[k] for k in ("rows_attacked", "rows_skipped", "rows_failed", "rows_successful")]
    assert counts == [4, 1, 1, 2]


def test_tally_without_a_row_that_was_right():
    t = outcomes.tally([line("a", "skipped"), line("b", "skipped")])
    assert t["clean_percent"] == t["aua_percent"] == 0
    assert t["suc_percent"] is None and t["queries_per_row"] is None
    assert t["words_changed_percent"] is None and t["intervals_95"]["suc_percent"] is None
    assert "-" in outcomes.so_far([line("a", "skipped")])


def test_folder_resumes_and_drops_a_torn_line(tmp_path):
    ids = ["test:0", "test:1", "test:2"]
    folder = folder_at(tmp_path / "a", {"recipe": "x"}, ids)
    assert not (tmp_path / "a").exists()  # nothing is written before begin
    folder.begin()
    folder.append(line("test:1", "failed"))
    with open(tmp_path / "a" / "rows.jsonl", "a") as f:
        f.write('{"row_id": "test:0", "outc')
    with pytest.raises(UserError, match="another process is at work"):
        folder_at(tmp_path / "a", {"recipe": "x"}, ids).begin()
    del folder  # as when its process ends
    text = (tmp_path / "a" / "rows.jsonl").read_text()
    for there, here, message in (
        ('"failed"', '"success"', "was altered: test:1"),
        ('"outcome"', '"outcume"', "is damaged: test:1"),
    ):
        (tmp_path / "a" / "rows.jsonl").write_text(text.replace(there, here))
        with pytest.raises(UserError, match=message):
            folder_at(tmp_path / "a", {"recipe": "x"}, ids)
    (tmp_path / "a" / "rows.jsonl").write_text(text)
    again = folder_at(tmp_path / "a", {"recipe": "x"}, ids)
    assert list(again.done) == ["test:1"] and again.summary is None
    again.begin()
    again.append(line("test:0", "skipped"))
    third = folder_at(tmp_path / "a", {"recipe": "x"}, ids)
    assert [o["row_id"] for o in third.outcomes()] == ["test:0", "test:1"]


def test_an_attack_resumes_with_its_threads(tmp_path, monkeypatch, capsys):
    """The last bit of a logit depends on the number of threads and can decide a tie."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ids, threads = ["test:0", "test:1"], process_state.current_threads()
    folder = folder_at(tmp_path / "a", {}, ids)
    folder.begin()
    folder.append(line("test:1", "failed"))
    del folder
    for earlier in (threads + 1, None):
        facts = json.loads((tmp_path / "a" / "attack.json").read_text())
        facts["threads"] = earlier
        (tmp_path / "a" / "attack.json").write_text(json.dumps(facts))
        with process_state.threads(threads):
            folder_at(tmp_path / "a", {}, ids).begin()
            assert process_state.current_threads() == (earlier or threads)
        assert ("does not record its number of threads" in capsys.readouterr().err) == (
            earlier is None
        )


def test_folder_refuses_other_settings_and_foreign_folders(tmp_path):
    folder_at(tmp_path / "a", {"recipe": "x", "seed": 1}, []).begin()
    with pytest.raises(UserError, match="seed was 1, is now 2"):
        folder_at(tmp_path / "a", {"recipe": "x", "seed": 2}, [])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds no attack"):
        folder_at(tmp_path / "b", {}, [])
    with pytest.raises(UserError, match="is a file"):
        folder_at(tmp_path / "b" / "thesis.tex", {}, [])
    (tmp_path / "a" / "attack.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        folder_at(tmp_path / "a", {}, [])


def test_summary_is_appended_once(tmp_path):
    records = tmp_path / "records.jsonl"
    settings = {"task": "sst2", "recipe": "x", "max_seq_length": 32}
    settings["rows"] = {"rows_per_label": {"0": 1, "1": 1}}
    folder = AttackFolder(tmp_path / "a", settings, ["test:0"], records)
    folder.begin()
    folder.append(line("test:0", "failed") | {"seconds": 0.5})
    described = protocol.describe_protocol(settings, folder.ids, ["search", "swap"])
    facts = {"task": "sst2", "seed": 3}
    record = protocol.summary(
        facts, folder.settings, folder.outcomes(), folder.attack_id, described, 25.0
    )
    folder.finish(record, described)
    written = json.loads((tmp_path / "a" / "protocol.json").read_text())
    assert written["row_ids"] == ["test:0"] and written["id"] == record["protocol_id"]
    again = AttackFolder(tmp_path / "a", settings, ["test:0"], records)
    assert again.summary == json.loads(json.dumps(record))
    again.publish()
    AttackFolder(tmp_path / "a", settings, ["test:0"], tmp_path / "others.jsonl").publish()
    assert records.read_bytes() == (tmp_path / "others.jsonl").read_bytes()
    [line_] = records.read_text().splitlines()
    assert json.loads(line_)["kind"] == "attack"
    assert record["seconds"] == 0.5 and record["seed"] == 3
    assert "aua 100.0 %" in protocol.in_words(record)
    records.write_text("no json\n{}\n")
    with pytest.raises(UserError, match="line 1"):
        AttackFolder(tmp_path / "b", settings, ["test:0"], records)


def test_a_protocol_contains_everything_but_the_model():
    settings = {
        "recipe": "x",
        "attack_seed": 1,
        "similarity_threshold": 0.8,
        "checkpoint": "last",
        "checkpoint_sha256": "a",
        "device": "cpu",
        "resources": {"table": {"sha256": "1"}},
    }
    ids, parts = ["test:1", "test:2"], ["Search(x)", "Swap(y)"]
    known = protocol.describe_protocol(settings, ids, parts)
    assert len(known["id"]) == 12 and known["versions"]["transformers"]
    other_model = settings | {"checkpoint": "best", "checkpoint_sha256": "b", "device": "cuda"}
    assert protocol.describe_protocol(other_model, ids, parts)["id"] == known["id"]
    for changed in (
        (settings | {"attack_seed": 2}, ids, parts),
        (settings | {"similarity_threshold": 0.9}, ids, parts),
        (settings | {"resources": {"table": {"sha256": "2"}}}, ids, parts),
        (settings, ids[::-1], parts),
        (settings, ids, ["Search(x)", "Swap(z)"]),
    ):
        assert protocol.describe_protocol(*changed)["id"] != known["id"]
