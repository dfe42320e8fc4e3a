"""The suite: one evaluation of a classifier that a default answer cannot raise. See attack.py.

Each part writes a line per row to its own folder and resumes. The summary unites the parts, row by
row, and gives Aua by class, at no bias and at the bias where all classes survive alike.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation import attack_rows, checkpoints, checks, default_answer, protocol, resources
from evaluation.attack_folder import AttackFolder
from evaluation.attack_setup import Setup, Subject, bias_rows
from evaluation.margins import Margins, equalizing_bias
from evaluation.presets import SUITE_CONSTRAINED, SUITE_PARTS, SUITE_RECIPES
from evaluation.settings import RESOURCE_FLAGS, AttackRun
from evaluation.suite_record import margins_of, summarize
from training.rows import Rows
from utils import cli
from utils.cli import UserError
from utils.files import append_jsonl, read_json, read_jsonl, write_json
from utils.runs import seed_for


def run(args: AttackRun, subject: Subject, target: checkpoints.Target, order: list[int]) -> dict:
    """Attack one checkpoint with the parts of --suite. Returns the record, also in summary.json."""
    suite = Suite.of(args, subject, target, order)
    path = suite.folder / "summary.json"
    for part in (part for part in SUITE_PARTS if part in args.suite):
        suite.run(part)
    answers = checks.examine(suite.victim, subject.rows)
    record = json.loads(json.dumps(summarize(suite, answers)))  # as a later run reads it
    written = read_json(path) if path.is_file() else {}
    if {**written, "environment": None} != {**record, "environment": None}:
        write_json(path, record)
        append_jsonl(Path(args.result_file or target.home / "suites.jsonl"), record)
    return record


@dataclass
class Suite:
    """The suite on one checkpoint, and what its parts have brought so far.

    `lines`: part -> line of each row that the part attacked. `answers`: of the probe.
    """

    args: AttackRun
    setup: Setup
    data: dict[str, dict]  # split -> describe_data
    dev: Rows | None
    folder: Path
    carried: dict[str, list[tuple[str, ...]]]  # row id -> texts found on other models
    overlaps: dict[str, int | None]  # with the rows that made the model, from checks.overlaps
    lines: dict[str, list[dict]] = field(default_factory=dict)
    answers: dict | None = None

    @classmethod
    def of(cls, args: AttackRun, subject: Subject, target, order: list[int]) -> "Suite":
        rows, length, device = subject.rows, subject.max_seq_length, subject.device
        setup = Setup(args, target, order, subject.task, rows, {}, length, device)
        data = {args.split: protocol.describe_data(subject.split)}
        dev, known = None, checkpoints.rows_it_was_made_with(target, subject.task)
        if "dev" in args.suite:
            known["dev"] = bias_rows(args, subject.task, target, known["dev"])
            data["dev"] = protocol.describe_data(known["dev"])
            dev = protocol.choose_rows(known["dev"], args.dev_examples, "balanced", args.seed)
            absent = set(range(len(subject.task.label_names))) - set(dev.labels)
            if absent:
                raise UserError(
                    f"the dev rows have none of the class {subject.task.label_names[min(absent)]}, "
                    "so no bias can be chosen; give more --dev_examples or other dev rows"
                )
        name = protocol.folder_name(args, target.name, "1")
        folder = Path(args.output_dir or target.home / "suites" / name)
        if args.output_dir and len(subject.targets) > 1:
            folder = folder / target.name
        carried = carried_texts(args.carry_over, rows)
        return cls(args, setup, data, dev, folder, carried, checks.overlaps(rows, **known))

    @cached_property
    def victim(self):
        """Loaded once for all parts."""
        return self.setup.victim()

    # The parts.

    def run(self, part: str) -> None:
        first, second = self.args.recipe, SUITE_RECIPES[self.args.recipe]
        rows = self.setup.rows
        if part == "dev":
            self.lines[part] = self._attack(part, first, "margin", self.dev)
        elif part == "margin":
            self.lines[part] = self._attack(part, first, "margin", rows)
        elif part == "second":
            self.lines[part] = self._attack(part, second, "margin", self.standing())
        elif part == "probe":
            self._probe()
        elif part == "carried":
            self._carry_over()
        else:
            search, number = part.rstrip("12"), int(part[-1]) if part[-1].isdigit() else 0
            self.lines[part] = self._attack(part, first, search, self.standing(), number)

    def _attack(
        self, part: str, recipe: str, search: str, rows: Rows, more_seed: int = 0
    ) -> list[dict]:
        """Attack `rows`, those that a part's folder lacks, and return the lines of all."""
        split = "dev" if part == "dev" else self.args.split
        args = replace(self.args, recipe=recipe, seed=self.args.seed + more_seed, split=split)
        if recipe != self.args.recipe:
            args.similarity_threshold = None  # the flag is for the first recipe
        given = {name: getattr(args, name) for name in RESOURCE_FLAGS}
        paths = resources.locate(recipe, given, self.setup.device)
        setup = replace(self.setup, args=args, rows=rows, paths=paths, search=search)
        facts = protocol.describe_rows(rows, args.row_choice, args.seed)
        identity = setup.settings(self.data[split], facts, resources.describe(recipe, paths), "1")
        # Parts get no record of their own, so nothing is written to the record file.
        folder = AttackFolder(self.folder / part, identity, rows.ids, self.folder / "none.jsonl")
        waiting = [i for i, row_id in enumerate(rows.ids) if row_id not in folder.done]
        if waiting:
            from evaluation import recipes

            victim, loaded = self.victim, recipes.load(paths, setup.device)
            folder.begin()
            bar = cli.progress_bar(len(rows), len(folder.done), "row", part, args.quiet)
            lines = attack_rows.attack_rows(setup, victim, loaded, waiting, args.processes)
            with contextlib.closing(lines), bar:
                for line in lines:
                    folder.append(line)
                    bar.update()
            folder.end()
        return folder.outcomes()

    def _carry_over(self) -> None:
        """Query the texts that the suites in --carry_over found for the same rows."""
        if not self.carried:
            return
        victim, lines = self.victim, []
        rows, names = self.setup.rows, self.setup.task.label_names
        for row_id, label, original in zip(rows.ids, rows.labels, rows.texts, strict=True):
            tried = [original, *self.carried.get(row_id, ())]
            logits = victim([t[0] if len(t) == 1 else t for t in tried]).numpy()
            of_texts = Margins.of_logits(logits, [label] * len(tried), names).margins
            others = np.delete(of_texts, label, axis=1).round(5)
            curve = [[1, *others[0]], [len(tried), *others.min(axis=0)]]
            victim.forget()
            lines.append({"row_id": row_id, "label": label, "curve": curve})
        self.lines["carried"] = lines

    def _probe(self) -> None:
        victim = self.victim

        def predict(texts: list) -> np.ndarray:
            victim.forget()
            return victim(texts).argmax(dim=1).numpy()

        classes = len(self.setup.task.label_names)
        unknown = victim.tokenizer.unk_token
        seed = seed_for(self.args.seed, "default-answer probe")
        self.answers = default_answer.probe(predict, self.setup.rows, classes, unknown, seed)

    # What the parts have brought.

    def margins(self, part: str, entry: int = -1) -> Margins:
        """Margins after a part (entry -1) or before it (entry 0), of the part's rows."""
        return margins_of(self.lines[part], self.setup.task.label_names, entry)

    def union(self, parts: Iterable[str]) -> Margins:
        """Each attacked row's lowest margins over the parts that have run."""
        united = self.margins("margin")
        return united.lowest(*(self._of_all_rows(part) for part in parts if part in self.lines))

    def _of_all_rows(self, part: str) -> Margins:
        """Margins after a part; infinite for the rows that it did not attack."""
        position = {row_id: i for i, row_id in enumerate(self.setup.rows.ids)}
        places = [position[line["row_id"]] for line in self.lines[part]]
        names = self.setup.task.label_names
        values = np.full((len(position), len(names)), np.inf)
        values[places] = self.margins(part).margins
        return Margins(np.array(self.setup.rows.labels), values, names)

    @property
    def bias(self) -> np.ndarray | None:
        """The equalizing bias of the attacked dev rows; None without them."""
        return equalizing_bias(self.margins("dev")) if "dev" in self.lines else None

    def standing(self) -> Rows:
        """The rows that survive the constrained parts so far, at no bias or at the bias."""
        united = self.union(SUITE_CONSTRAINED)
        right = united.right()
        if self.bias is not None:
            right |= united.right(self.bias)
        return self.setup.rows.take(right.nonzero()[0].tolist())


def carried_texts(places: list[str], rows: Rows) -> dict[str, list[tuple[str, ...]]]:
    """Row id -> texts that the constrained parts of the suites in `places` found for `rows`.

    Raises UserError if a place holds no suite, or none of these rows.
    """
    texts: dict[str, list[tuple[str, ...]]] = {}
    for place in places:
        files = [Path(place) / part / "rows.jsonl" for part in SUITE_CONSTRAINED]
        lines = [line for file in files if file.is_file() for line in read_jsonl(file)]
        of_rows = [line for line in lines if line["row_id"] in set(rows.ids)]
        if not of_rows:
            why = "has other rows" if lines else "holds no suite"
            raise UserError(f"--carry_over {place} {why}; give suites/NAME of a run on these rows")
        for line in of_rows:
            texts.setdefault(line["row_id"], []).append(tuple(line["perturbed"].values()))
    return texts
