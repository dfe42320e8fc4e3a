"""benchmarks/gpu.sh: every part at toy size; deadlines, resuming and failures.

Its speed is never tested.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import gpu
import gpu_checks
import gpu_job
import gpu_speed
import gpu_stages
import pytest

from utils import cli
from utils.files import read_jsonl

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = ("textattack", "datasets", "tensorflow", "nltk", "matplotlib", "pyarrow")


def arguments(folder: Path, *words: str):
    args = gpu.parse_args(["--device", "cpu", "--toy", "--output_dir", str(folder), *words])
    folder.mkdir(exist_ok=True)
    return args


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
    gpu.run_parts(args, lambda *_: facts)
    env = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = str(tmp_path / "blocked")
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

    records = gpu.run_parts(args, run, clock=lambda: now[0])
    assert given == {"golden": 60, "gates": 60, "steps_sst2": 120, "profile": 45}
    assert now[0] == 1000 + 60 * 5 - gpu.RESERVE
    status = {r["row"]["part"]: r["status"] for r in records}
    assert {name for name in gpu.BY_NAME if status[name] == "finished"} == given.keys()
    assert {status[name] for name in gpu.BY_NAME.keys() - given.keys()} == {"not run"}
    assert "| not run | " in (tmp_path / "gpu.md").read_text()


def test_finished_parts_are_skipped_and_others_run_again(tmp_path):
    args = arguments(tmp_path, "--parts", "golden,gates,profile")
    began = []

    def run(part, _args, _seconds):
        began.append(part.name)
        failed = part.name == "gates" and len(began) == 2
        found = {"what": "a|b", "result": "1", "target": "-", "verdict": "-"}
        facts = {"status": "failed", "reason": "ValueError: no"} if failed else {}
        return {"status": "finished", "reason": "", "findings": [found]} | facts

    gpu.run_parts(args, run)
    assert began == ["golden", "gates", "profile"]  # a failure does not stop the others
    assert statuses(tmp_path)["gates"] == "failed"
    table = (tmp_path / "gpu.md").read_text()
    assert "| failed | ValueError: no |" in table and "| a/b |" in table
    gpu.run_parts(args, run)
    assert began[3:] == ["gates"]
    assert "ValueError" not in (tmp_path / "gpu.md").read_text()
    gpu.run_parts(arguments(tmp_path, "--parts", "golden", "--device", "cuda"), run)
    assert began[4:] == ["golden"]  # another device is another record


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


def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys):
    for words in (["--parts", "golden,none"], ["--data", str(tmp_path / "absent")]):
        monkeypatch.setattr("sys.argv", ["gpu.py", *words, "--output_dir", str(tmp_path / "o")])
        with pytest.raises(SystemExit) as stop:
            cli.run(gpu.main)
        assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "unknown part none; known are golden" in err and "absent is not a folder" in err
