"""The runner: jobs in the order of their needs, on each device, and what ends them."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments import commands, runner
from experiments.commands import Command
from experiments.jobs import Attack, Job
from training.settings import FolderSettings
from utils.cli import UserError


@pytest.fixture(autouse=True)
def no_chosen_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def fake_scripts(tmp_path, monkeypatch):
    """Scripts that only note their start and end, and finish the run; the run `bad` fails."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "train.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "folder, journal = pathlib.Path(sys.argv[1]), open(sys.argv[2], 'a')\n"
        "gpu = os.environ['CUDA_VISIBLE_DEVICES'] or 'cpu'\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "print('start', folder.name, gpu, file=journal, flush=True)\n"
        "if folder.name == 'slow':\n"
        "    signal.sigwait([signal.SIGTERM])\n"
        "    sys.exit(print('saved', file=journal))\n"
        "time.sleep(0.05)\n"
        "if folder.name == 'bad':\n"
        "    sys.exit(3)\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        '(folder / \'run.json\').write_text(\'{"stage": "x", "status": "finished"}\')\n'
        "print('end', folder.name, file=journal, flush=True)\n"
    )
    (root / "attack.py").write_text(
        "import pathlib, sys\n"
        "folder, status = pathlib.Path(sys.argv[1]), int(sys.argv[3])\n"
        "print('attack', folder.name, status, file=open(sys.argv[2], 'a'))\n"
        "if status == 0:\n"
        "    folder.mkdir(parents=True)\n"
        "    (folder / 'attack.json').write_text('{}')\n"
        "    (folder / 'summary.json').write_text('{}')\n"
        "sys.exit(status)\n"
    )
    monkeypatch.setattr(commands, "ROOT", root)
    monkeypatch.setattr(runner, "visible_gpus", lambda: ["0", "1", "2"])
    journal = tmp_path / "journal"
    journal.touch()

    def make(name: str, *needs: str, attacks: tuple[int, ...] = ()) -> Job:
        """`attacks`: the exit status of each attack."""
        folder = tmp_path / "runs" / name
        training = Command("train", (str(folder), str(journal)), FolderSettings(output_dir="x"))
        made = []
        for number, status in enumerate(attacks):
            place = folder / "attacks" / str(number)
            command = Command(
                "attack", (str(place), str(journal), str(status)), FolderSettings(output_dir="x")
            )
            made.append(FakeAttack(command, folder, place))
        return Job(name, "sst2", 1, folder, training, 1.0, needs=needs, attacks=tuple(made))

    return make, lambda: journal.read_text().splitlines()


@dataclass
class FakeAttack(Attack):
    place: Path

    @property
    def folders(self) -> list[Path]:
        return [self.place]

    def differing(self, settings: dict) -> list[str]:
        return []


@pytest.mark.parametrize("gpus", ["", "0,1"])
def test_jobs_run_after_what_they_need_and_once(fake_scripts, gpus):
    make, journal = fake_scripts
    jobs = [make("a"), make("b", "a"), make("c", "b"), make("d")]
    assert runner.execute(jobs, gpus, 1) == []
    lines = [line.split()[:2] for line in journal()]
    for earlier, later in (("a", "b"), ("b", "c")):
        assert lines.index(["end", earlier]) < lines.index(["start", later])
    assert sorted(name for what, name in lines if what == "start") == ["a", "b", "c", "d"]
    if gpus:
        assert {line.split()[2] for line in journal() if line.startswith("start")} == {"0", "1"}
    assert runner.execute(jobs, gpus, 1) == [] and len(journal()) == 8  # nothing runs again


def test_a_failed_attack_stops_neither_other_attacks_nor_later_trainings(fake_scripts):
    make, journal = fake_scripts
    dense, search = make("dense", attacks=(2, 0)), make("search", "dense")
    assert runner.execute([dense, search], "", 1) == [dense]
    assert journal()[2:4] == ["attack 0 2", "attack 1 0"]
    assert "end search" in journal() and dense.state == "unattacked"
    # The next call runs what is missing: one attack, not the training.
    assert runner.execute([dense, search], "", 1) == [dense]
    assert journal()[6:] == ["attack 0 2"]


def test_a_signal_ends_the_attacks_of_a_job(fake_scripts):
    make, journal = fake_scripts
    dense = make("dense", attacks=(143, 0))
    assert runner.execute([dense], "", 1) == [dense]
    assert journal()[2:] == ["attack 0 143"]


def test_an_interrupt_reaches_what_runs_and_starts_no_more(fake_scripts):
    make, journal = fake_scripts
    jobs = [make("slow"), make("later", "slow"), make("x"), make("z")]

    def interrupt(_) -> None:
        while "start slow 0" not in journal():
            time.sleep(0.01)
        raise KeyboardInterrupt  # as the signal does, here after x

    with pytest.raises(KeyboardInterrupt):
        runner.execute(jobs, "0,1", 1, interrupt)
    assert journal()[-1] == "saved" and "end x" in journal()
    assert not any("start z" in line or "later" in line for line in journal())


def test_what_failed_stops_only_what_needs_it(fake_scripts, capsys):
    make, journal = fake_scripts
    jobs = [make("bad"), make("x", "bad"), make("y", "x")]
    assert {job.name for job in runner.execute(jobs, "", 1)} == {"bad", "x", "y"}
    jobs.append(make("z"))
    assert {job.name for job in runner.execute(jobs, "", 1)} == {"bad", "x", "y"}
    assert "end z" in journal() and not any("start x" in line for line in journal())
    assert "failed  bad (status 3)" in capsys.readouterr().err


def test_devices(monkeypatch):
    assert runner.devices(None, 1) == [{"CUDA_VISIBLE_DEVICES": ""}]
    two = runner.devices("", 2)
    assert len(two) == 2 and int(two[0]["OMP_NUM_THREADS"]) >= 1
    with pytest.raises(UserError, match="sees no GPU '1'"):
        runner.devices("1", 1)
    monkeypatch.setattr(runner, "visible_gpus", lambda: ["0", "1", "2"])
    assert runner.devices("0, 2", 1) == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "2"},
    ]
    assert len(runner.devices(None, 1)) == 3
