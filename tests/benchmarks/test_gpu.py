"""benchmarks/gpu.sh: every part at toy size; deadlines, resuming and failures.

Its speed is never tested.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import common
import gpu
import gpu_checks
import gpu_inputs
import gpu_job
import gpu_records
import gpu_speed
import gpu_stages
import pytest
from conftest import make_encoder, sentences, write_tsv

from utils import cli
from utils.files import append_jsonl, read_jsonl

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = ("textattack", "datasets", "tensorflow", "nltk", "matplotlib", "pyarrow")


def arguments(folder: Path, *words: str):
    args = gpu.parse_args(["--device", "cpu", "--toy", "--output_dir", str(folder), *words])
    folder.mkdir(exist_ok=True)
    return args


NOTHING_GIVEN = {"gpus": 0, "data": None, "minilm": None}


def records_in(folder: Path, *words: str, **inputs) -> gpu_records.Records:
    """Of a new process."""
    return gpu_records.Records(arguments(folder, *words), NOTHING_GIVEN | inputs)


def finds_nothing(part, args, seconds) -> dict:
    return {"status": "finished", "reason": ""}


def statuses(folder: Path) -> dict[str, str]:
    """Part -> status of its newest record."""
    return {r["row"]["part"]: r["status"] for r in read_jsonl(folder / "gpu.jsonl")}


@pytest.mark.slow
def test_every_part_runs_at_toy_size_without_other_packages(tmp_path):
    """As on a machine without the hub, TextAttack and datasets: one part in a process of its own,
    then the others in that of the script, which takes what is finished from the records."""
    for name in BLOCKED:
        (tmp_path / "blocked" / name).mkdir(parents=True)
        text = f"raise ImportError('{name} is not here')\n"
        (tmp_path / "blocked" / name / "__init__.py").write_text(text)
    out = tmp_path / "out"
    facts = gpu.in_a_process(gpu.BY_NAME["victim"], arguments(out), 600.0)
    assert facts["status"] == "finished" and facts["findings"]
    args = arguments(out, "--parts", "victim")
    gpu.run_parts(args, records_in(out), lambda *_: facts)
    env = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = str(tmp_path / "blocked")
    # For gates: compile no program to try the vector instructions, and start no workers.
    env |= {"TORCHINDUCTOR_VEC_ISA_OK": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    script = ["sh", str(ROOT / "benchmarks" / "gpu.sh"), "--device", "cpu", "--toy"]
    command = [*script, "--output_dir", str(out), "--one_process"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "victim: finished earlier" in done.stdout
    assert statuses(out) == dict.fromkeys(gpu.BY_NAME, "finished")
    records = {r["row"]["part"]: r for r in read_jsonl(out / "gpu.jsonl")}
    verdicts = {f["verdict"] for r in records.values() for f in r["findings"]}
    assert verdicts == {"ok", "-"}
    names = ["finetune", "search_ticket", "retrain_ticket"]
    for part in ("repeat", "deterministic"):
        words = ", --deterministic" * (part == "deterministic")
        for name in names:
            assert records[part]["numbers"][f"{name} twice with one seed{words}"]["bytes_equal"]
    assert records["deterministic"]["numbers"]["search killed and resumed"]["bytes_equal"]
    assert all(name in records["stages"]["numbers"] for name in names)
    assert records["profile"]["numbers"]["search"]["count"] > 100
    compiles = gpu_job.Job("cpu", True, 1.0, out, out).compiles()
    ways = {"plain", "fast", *["compiled"] * compiles}
    assert records["gates"]["numbers"]["relative_distance_from_fp32"].keys() == ways
    assert {p.name for p in out.iterdir()} == {
        *("gpu.jsonl", "gpu.md", "gpu.log", "training_steps.jsonl", "training_steps.md")
    }
    table = (out / "gpu.md").read_text().splitlines()
    assert len(table) == 2 + sum(len(r["findings"]) for r in records.values())


def test_the_most_important_parts_share_the_time(tmp_path):
    """A part gets its minutes at most; a part for which too little is left is not begun."""
    args = gpu.parse_args(["--device", "cpu", "--output_dir", str(tmp_path), "--minutes", "5"])
    now, given = [1000.0], {}

    def run(part, _args, seconds):
        given[part.name] = seconds
        now[0] += seconds
        return {"status": "finished", "reason": ""}

    records = gpu_records.Records(args, NOTHING_GIVEN)
    end = now[0] + 60 * args.minutes - gpu.RESERVE
    records = gpu.run_parts(args, records, run, end, clock=lambda: now[0])
    assert given == {"golden": 60, "gates": 60, "steps_sst2": 120, "profile": 45}
    assert now[0] == 1000 + 60 * 5 - gpu.RESERVE
    status = {r["row"]["part"]: r["status"] for r in records}
    assert {name for name in gpu.BY_NAME if status[name] == "finished"} == given.keys()
    assert {status[name] for name in gpu.BY_NAME.keys() - given.keys()} == {"not run"}
    assert "| not run | " in (tmp_path / "gpu.md").read_text()


def test_finished_parts_are_skipped_and_others_run_again(tmp_path, capsys):
    args = arguments(tmp_path, "--parts", "golden,gates,profile")
    began = []

    def run(part, _args, _seconds):
        began.append(part.name)
        failed = part.name == "gates" and len(began) == 2
        found = {"what": "a|b", "result": "1", "target": "-", "verdict": "-"}
        facts = {"status": "failed", "reason": "ValueError: no"} if failed else {}
        return {"status": "finished", "reason": "", "findings": [found]} | facts

    gpu.run_parts(args, records_in(tmp_path), run)
    assert began == ["golden", "gates", "profile"]  # a failure does not stop the others
    assert statuses(tmp_path)["gates"] == "failed"
    table = (tmp_path / "gpu.md").read_text()
    assert "| failed | ValueError: no |" in table and "| a/b |" in table
    gpu.run_parts(args, records_in(tmp_path), run)
    assert began[3:] == ["gates"]
    assert "ValueError" not in (tmp_path / "gpu.md").read_text()
    said = capsys.readouterr().out
    assert "gates: " in said and "(runs again: failed before)" in said
    assert said.count("golden: finished earlier") == 1


def another_card(patch):
    patch.setattr(common, "_cpu_name", lambda: "another card")


def another_source(patch):
    patch.setattr(gpu_records, "_sources", lambda: "0" * 16)


def another_torch(patch):
    patch.setattr("torch.__version__", "9.9.9")


def another_transformers(patch):
    versions = common.environment()["versions"] | {"transformers": "9.9.9"}
    now = common.environment() | {"versions": versions}
    patch.setattr(common, "environment", lambda: now)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (another_card, "no record of another card, toy"),
        (another_source, "sources: "),
        (another_torch, "torch: "),
        (another_transformers, "transformers: "),
        ({"data": "more, 1f"}, "data: None then, more, 1f now"),
        ({"minilm": "other, 2e"}, "minilm: None then, other, 2e now"),
    ],
)
def test_a_part_runs_again_where_what_it_was_made_with_has_changed(
    tmp_path, monkeypatch, capsys, change, why
):
    """And only the parts that read an input run again if it has changed."""
    parts = ("--parts", "golden,repeat")
    gpu.run_parts(arguments(tmp_path, *parts), records_in(tmp_path), finds_nothing)
    inputs = change if isinstance(change, dict) else {}
    if not inputs:
        change(monkeypatch)
    again = gpu.run_parts(
        arguments(tmp_path, *parts), records_in(tmp_path, **inputs), finds_nothing
    )
    names = [record["row"]["part"] for record in again]
    assert names == (["repeat"] if inputs else ["golden", "repeat"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "repeat" in x and "again" in x]
    assert f"(runs again: {why}" in line
    again = gpu.run_parts(
        arguments(tmp_path, *parts), records_in(tmp_path, **inputs), finds_nothing
    )
    assert not again


def test_records_of_earlier_versions_are_shown_and_their_parts_run_again(tmp_path, capsys):
    """Their row names the kind of the device; its card is elsewhere."""
    card = common.device_facts("cpu")["device"]
    row = {"part": "golden", "device": "cpu", "toy": True}
    found = {"what": "found before", "result": "1", "target": "-", "verdict": "-"}
    earlier = {"row": row, "seconds": 1.0, "status": "finished", "reason": "", "device": card}
    append_jsonl(tmp_path / "gpu.jsonl", earlier | {"findings": [found]})
    records = records_in(tmp_path)
    assert "found before" in records.table()
    assert records.why_again("golden", ()) == "the record does not say what it was made with"
    now = {"status": "finished", "reason": "", "findings": [found | {"what": "found now"}]}
    gpu.run_parts(arguments(tmp_path, "--parts", "golden"), records, lambda *_: now)
    table = records_in(tmp_path).table()
    assert "found before" not in table and "found now" in table


def test_too_little_time_hides_no_findings(tmp_path):
    """Nor does it count as another try of a finished part; a failure is shown with them."""
    found = [{"what": "found", "result": "1", "target": "-", "verdict": "-"}]
    kept = {"seconds": 1.0, "reason": "", "findings": found}
    none = {"seconds": 0.0, "findings": []}
    records = records_in(tmp_path)
    for name, status in (("golden", "finished"), ("gates", "out of time")):
        records.add(name, (), kept | {"status": status})
    for name in ("golden", "gates", "victim"):
        records.add(name, (), none | {"status": "not run", "reason": "3 s were left"})
    assert records.why_again("golden", ()) is None
    records = records_in(tmp_path)
    table = records.table()
    assert table.count("| found |") == 2 and "| gates, toy | out of time |" in table
    assert table.count("| not run |") == 1 and "| victim, toy | not run |" in table
    records.add("golden", (), none | {"status": "failed", "reason": "ValueError: no"})
    table = records_in(tmp_path).table()
    assert table.count("| found |") == 2 and "| golden, toy | failed | ValueError: no |" in table


def test_a_failing_part_keeps_its_findings_and_its_reason(tmp_path, monkeypatch, capsys):
    def fails(job):
        job.find("first", "1", "at least 1", True)
        raise ValueError("two\nlines")

    monkeypatch.setattr(gpu_checks, "golden", fails)
    facts = gpu.in_this_process(gpu.BY_NAME["golden"], arguments(tmp_path), 60.0)
    assert facts["status"] == "failed" and facts["reason"] == "ValueError: two lines"
    assert facts["findings"] == [
        {"what": "first", "result": "1", "target": "at least 1", "verdict": "ok"}
    ]
    capsys.readouterr()
    words = ["gpu.py", "--device", "cpu", "--toy", "--one_process", "--parts", "golden"]
    monkeypatch.setattr("sys.argv", [*words, "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        cli.run(gpu.main)
    assert stop.value.code == 2
    assert "error: not finished: golden; the same command" in capsys.readouterr().err


CHILDREN = {
    "sleeps": ("time.sleep(60)", "out of time", "killed after 3 s"),
    "dies": ("os.kill(os.getpid(), 9)", "failed", "ended with status -9; see gpu.log"),
    "ends": ("", "finished", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHILDREN)
def test_a_process_is_stopped_at_its_deadline(tmp_path, monkeypatch, kind):
    """What the part had found by then is kept."""
    action, status, reason = CHILDREN[kind]
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, sys, time\n"
        "print('in the log')\n"
        "file = sys.argv[sys.argv.index('--child') + 3] + '/record.json'\n"
        "facts = {'findings': [{'what': 'kept'}], 'numbers': {}, 'status': 'running'}\n"
        "json.dump(facts, open(file, 'w'))\n"
        f"{action}\n"
        "json.dump(facts | {'status': 'finished', 'reason': ''}, open(file, 'w'))\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    start = time.monotonic()
    seconds = 3.0 if kind == "sleeps" else 60.0
    facts = gpu.in_a_process(gpu.BY_NAME["golden"], arguments(tmp_path), seconds)
    assert time.monotonic() - start < 30
    assert (facts["status"], facts["reason"]) == (status, reason)
    assert facts["findings"] == [{"what": "kept"}]
    assert (kind == "dies") or "in the log" in (tmp_path / "gpu.log").read_text()


def test_epochs_fit_the_time():
    whole = gpu_stages.fit(10_000, 195, 0.02, 0.1)
    assert whole == (3, 20, 1.0)
    epochs, searched, share = gpu_stages.fit(200, 195, 0.02, 0.1)
    assert (epochs, share) == (3, 1.0) and 3 <= searched < 20
    assert 195 * (2 * epochs * 0.02 + searched * 0.1) * gpu_stages.RESERVE <= 200
    epochs, searched, share = gpu_stages.fit(10, 195, 0.02, 0.1)
    assert (epochs, searched) == (1, 1) and 0 < share < 1
    assert gpu_stages.fit(-5, 195, 0.02, 0.1)[2] == 0


def test_busy_time_counts_overlaps_once():
    assert gpu_speed.covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
    assert gpu_speed.covered([]) == 0


def test_only_waits_for_the_device_are_counted(monkeypatch):
    """By the place in the code at which torch warns; its warning about the mode itself is none."""
    modes = []

    def set_mode(mode):
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    def step():
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setattr("torch.cuda.set_sync_debug_mode", set_mode)
    ((place, count),) = gpu_speed._waits(step).items()
    assert place.startswith("benchmarks/test_gpu.py:") and count == 2
    assert modes == ["warn", "default"]


def test_given_data_and_weights_are_used(tmp_path, sst2_folder, encoder):
    job = gpu_job.Job("cpu", True, 60.0, tmp_path, tmp_path, sst2_folder.parent, encoder)
    assert gpu_job.data_folder(job) == (sst2_folder, "sentences of " + sst2_folder.parent.name)
    assert gpu_job.encoder_folder(job, "bert-1x64", is_minilm=True)[0] == encoder
    folder, what = gpu_job.encoder_folder(job, "bert-1x64", is_minilm=False)
    assert "random weights" in what
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert {"good", "awful", "[CLS]"} <= tokenizer["model"]["vocab"].keys()


def refused(monkeypatch, capsys, folder: Path, *words: str) -> str:
    """The one line with which gpu.py refuses its arguments; nothing is written."""
    usual = ["gpu.py", "--device", "cpu", "--toy", "--output_dir", str(folder / "out")]
    monkeypatch.setattr("sys.argv", [*usual, *words])
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        cli.run(gpu.main)
    shown = capsys.readouterr()
    assert stop.value.code == 2 and shown.out == ""
    assert sorted(folder.rglob("*")) == before
    (line,) = shown.err.splitlines()
    return line


def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for words, expected in (
        (("--parts", "golden,none"), "unknown part none; known are golden, gates"),
        (("--parts", ""), "no part; known are golden, gates"),
        (("--parts", ","), "no part; known are golden, gates"),
        (("--data", str(tmp_path / "absent")), "absent is not a folder"),
        (("--minilm", str(tmp_path / "file")), "file is not a folder"),
        (("--device", "cuda"), "--device cuda, but torch sees no CUDA device here; --device cpu"),
        (("--output_dir", str(tmp_path / "file" / "a")), "cannot be written (Not a directory);"),
        (("--output_dir", str(tmp_path / "file")), "cannot be written (File exists); choose"),
        (("--output_dir", "/proc/none/a"), "--output_dir /proc/none/a cannot be written ("),
    ):
        line = refused(monkeypatch, capsys, tmp_path, *words)
        assert line.startswith("error: ") and expected in line


def test_damaged_records_are_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gpu.jsonl").write_text("{\n{}\n")
    assert "gpu.jsonl, line 1, is not JSON" in refused(monkeypatch, capsys, tmp_path)


def test_data_that_the_stages_cannot_read_is_refused(tmp_path, monkeypatch, capsys):
    """Also a folder of which only some part would complain."""
    data, dev = tmp_path / "data", {"dev": (sentences(60, 2),)}
    for files, reason in (
        ({}, "holds no {train,dev,test}"),
        ({"train": (sentences(200, 1),)}, "no test rows; give"),
        (dev, "no train and no dev rows; give"),
        (dev | {"train": (sentences(200, 1), "text\tlabel")}, "train.tsv: no column 'sentence'"),
        (dev | {"train": (sentences(200, 1), "sentence\ty")}, "train.tsv: no column 'label'"),
        (dev | {"train": (sentences(50, 1),)}, "45 training rows without those of dev, which"),
        (dev | {"train": ([("good", "fine")] * 200,)}, "label 'fine' in row 0"),
    ):
        shutil.rmtree(data, ignore_errors=True)
        (data / "sst2").mkdir(parents=True)
        for name, (rows, *header) in files.items():
            write_tsv(data / "sst2" / f"{name}.tsv", rows, *header)
        line = refused(monkeypatch, capsys, tmp_path, "--data", str(data))
        assert line.startswith(f"error: --data {data}: ") and reason in line
        assert "give a folder with sst2/train.tsv and dev.tsv, with the columns" in line
        assert line.count("--") == 1  # no flag of the stages


def test_an_encoder_that_the_stages_cannot_load_is_refused(tmp_path, monkeypatch, capsys, encoder):
    folder = tmp_path / "encoder"
    for without, reason in (
        ("*", "holds no"),
        ("config.json", "holds no"),
        ("tokenizer*", "holds no tokenizer"),
        ("model.safetensors", "holds no model"),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(encoder, folder)
        for path in folder.glob(without):
            path.unlink()
        line = refused(monkeypatch, capsys, tmp_path, "--minilm", str(folder))
        assert line.startswith(f"error: --minilm {folder}: ") and reason in line
        assert "give a folder with config.json, model.safetensors and the tokenizer's" in line


def test_inputs_are_known_by_their_content(tmp_path, sst2_folder, encoder):
    """Not by their place: names and fingerprints, of which another file changes one."""

    def known(data: Path, weights: Path) -> dict:
        words = ("--data", str(data), "--minilm", str(weights))
        return gpu_inputs.check(arguments(tmp_path, *words))

    first = known(sst2_folder, encoder)
    assert first["gpus"] == 0 and first["data"].startswith("sst2, ")
    moved = tmp_path / "elsewhere" / "sst2", tmp_path / "elsewhere" / encoder.name
    for before, after in zip((sst2_folder, encoder), moved, strict=True):
        shutil.copytree(before, after)
    assert known(*moved) == first
    write_tsv(moved[0] / "dev.tsv", sentences(60, 3))
    make_encoder(moved[1], seed=1)
    second = known(*moved)
    assert second["data"] != first["data"] and second["minilm"] != first["minilm"]


@pytest.mark.slow
def test_a_part_ends_at_its_end_without_the_script(tmp_path):
    """If the script was killed, nobody else stops the part, nor what the part has started."""
    end = str(time.monotonic())
    words = [sys.executable, gpu.__file__, "--child", "victim", end, str(tmp_path)]
    words += ["--device", "cpu", "--toy", "--output_dir", str(tmp_path)]
    child = subprocess.Popen(words, start_new_session=True)
    assert child.wait(120) == -signal.SIGKILL
    assert not (tmp_path / gpu_job.RECORD).exists()
