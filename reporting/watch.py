"""A table of runs while they are going: stage, progress, last loss, dev accuracy, expected end."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from utils.cli import UserError
from utils.files import is_locked, read_json
from utils.runs import read_run

SECONDS_BETWEEN_LOOKS = 5.0
WIDTH_OF_A_FILE = 160
STATUSES = ("running", "stopped", "finished")


@dataclass
class Log:
    """A file of JSON lines that grows; each look reads what is new.

    `done`: optimizer steps, or attacked rows.
    """

    path: Path
    offset: int = 0
    done: int = 0
    loss: float | None = None
    dev_percent: float | None = None
    looks: list[tuple[float, int]] = field(default_factory=list)  # when the file grew, to how many

    def look(self) -> None:
        if not self.path.is_file():
            return
        if self.path.stat().st_size < self.offset:  # a resumed run cut its log
            self.offset, self.done, self.looks = 0, 0, []
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            new = f.read()
        complete = new[: new.rfind(b"\n") + 1]  # a line can be half written
        before = self.done
        for line in complete.splitlines():
            self._read(line)
        self.offset += len(complete)
        if self.done != before:
            self.looks.append((self.path.stat().st_mtime, self.done))

    def _read(self, line: bytes) -> None:
        try:
            values = json.loads(line)
        except ValueError:
            return  # a damaged line is the business of the run that reads it again
        self.done = values.get("optimizer_step", self.done + ("row_id" in values))
        self.loss = _number(values.get("loss"), self.loss)
        dev = values.get("dev") or {}
        percent = values.get("dev_accuracy_percent", dev.get("dev_accuracy_ticket_percent"))
        self.dev_percent = _number(percent, self.dev_percent)


def _number(value: Any, otherwise: float | None) -> float | None:
    return value if isinstance(value, int | float) else otherwise


@dataclass(frozen=True)
class State:
    """A line of the table. `done`, `total`: optimizer steps or attacked rows; None: not known."""

    name: str
    stage: str
    status: str
    done: int
    total: int | None
    loss: float | None
    dev_percent: float | None
    seconds_left: float | None


class Watcher:
    """Reads the runs below folders, again and again."""

    def __init__(self, folders: Iterable[str | Path], clock: Callable[[], float] = time.time):
        self.folders, self._clock = list(map(Path, folders)), clock
        self._logs: dict[Path, Log] = {}
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(f"--watch {folder} is not a folder; give the folder of the runs")

    def states(self) -> list[State]:
        """Of all runs, and of attacks without a summary: those that are going first."""
        states = []
        for top in self.folders:
            for file in sorted([*top.rglob("run.json"), *top.rglob("attacks/*/attack.json")]):
                folder = file.parent
                name = folder.relative_to(top).as_posix() if folder != top else folder.name
                is_run = file.name == "run.json"
                state = self._run(folder, name) if is_run else self._attack(folder, name)
                states += [state] if state else []
        return sorted(states, key=lambda state: STATUSES.index(state.status))

    def _run(self, folder: Path, name: str) -> State | None:
        run = read_run(folder)
        if run is None:  # removed since
            return None
        status = run["status"]
        if status != "finished":
            status = "running" if is_locked(folder / "run.lock") else "stopped"
        log = self._look(folder / "log.jsonl")
        total = run.get("optimizer_steps")
        return self._state(name, run["stage"], status, log, total, folder / "run.json")

    def _attack(self, folder: Path, name: str) -> State | None:
        if (folder / "summary.json").is_file():
            return None
        total = len(read_json(folder / "attack.json").get("row_ids", []))
        status = "running" if is_locked(folder / "attack.lock") else "stopped"
        log = self._look(folder / "rows.jsonl")
        return self._state(name, "attack", status, log, total, folder / "attack.json")

    def _look(self, path: Path) -> Log:
        log = self._logs.setdefault(path, Log(path))
        log.look()
        return log

    def _state(
        self,
        name: str,
        stage: str,
        status: str,
        log: Log,
        total: int | None,
        started: Path,
    ) -> State:
        left = None
        if status == "running" and total:
            left = self._seconds_left(log, total, started)
        done = total if status == "finished" and total else log.done
        return State(name, stage, status, done, total, log.loss, log.dev_percent, left)

    def _seconds_left(self, log: Log, total: int, started: Path) -> float | None:
        """From the speed since the first look or, at the first look, since the run was started.

        A run that resumed has steps from before; its speed is known after the second look.
        """
        if not log.looks:
            return None
        (first_time, first_done), (last_time, last_done) = log.looks[0], log.looks[-1]
        if len(log.looks) == 1:
            first_time, first_done = started.stat().st_mtime, 0
            state = started.with_name("state.pt")
            if state.is_file() and state.stat().st_mtime < first_time:
                return None
        if last_time <= first_time or last_done <= first_done:
            return None
        speed = (last_done - first_done) / (last_time - first_time)
        return max(0.0, (total - last_done) / speed - (self._clock() - last_time))


def table_of(states: Iterable[State], now: datetime) -> Table:
    table = Table(title=f"Runs at {now:%H:%M:%S}", title_justify="left", box=SIMPLE_HEAD)
    table.collapse_padding, table.pad_edge = True, False
    table.add_column("run", overflow="fold", min_width=14)
    for name in ("stage", "state", "steps or rows"):
        table.add_column(name, no_wrap=True)
    for name in ("loss", "dev %", "ends at"):
        table.add_column(name, justify="right")
    styles = {"running": "bold", "stopped": "yellow"}
    for state in states:
        percent = f"{100 * state.done // state.total} % of {state.total}" if state.total else None
        progress = percent or str(state.done)
        table.add_row(
            state.name,
            state.stage,
            state.status,
            progress if state.done or state.total else "",
            "" if state.loss is None else f"{state.loss:.3f}",
            "" if state.dev_percent is None else f"{state.dev_percent:.1f}",
            "" if state.seconds_left is None else _end(now, state.seconds_left),
            style=styles.get(state.status, ""),
        )
    return table


def _end(now: datetime, seconds: float) -> str:
    """Time of day; with the date if it is another day."""
    end = now + timedelta(seconds=seconds)
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%b %d, %H:%M}"


def watch(folders: Iterable[str | Path], console: Console | None = None) -> None:
    """Show the table and refresh it until Ctrl-C; without a terminal, print it once."""
    console, watcher = console or Console(), Watcher(folders)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE

    def table() -> Table:
        return table_of(watcher.states(), datetime.now())

    if not console.is_terminal:
        console.print(table())
        return
    try:
        with Live(table(), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                live.update(table(), refresh=True)
    except KeyboardInterrupt:
        return
