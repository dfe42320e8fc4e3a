"""Say what adversarial texts are like, and write a sheet of them for a person to read.

    python analysis/text_quality.py --attacks RUN_A/attacks/NAME RUN_B/attacks/NAME \\
        --output_dir FOLDER

Of each finished attack's successes: share of words changed, sentence similarity, perplexity before
and after, and how often a judge that was not attacked still sees the row's label.
"""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from utils import cli


def parse_args(argv: list[str] | None = None) -> Namespace:
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--attacks", nargs="+", required=True, help="folders of finished attacks on one task")
    add(
        "--language_model",
        help="folder of a causal language model (default: trigrams of the training texts)",
    )
    add(
        "--judge",
        help="folder of a run or checkpoint that was not attacked, best of another "
        "encoder (default: TF-IDF and logistic regression on the training rows)",
    )
    add("--checkpoint", choices=["last", "best"], default="last", help="of --judge")
    add("--pairs", type=cli.non_negative_int, default=40, help="pairs in the sheet, per attack")
    add("--seed", type=cli.non_negative_int, default=42, help="of the choice of pairs")
    g = parser.add_argument_group("training texts (default: those of the first attack's run)")
    g.add_argument("--data_dir", help="local folder with a file named train")
    g.add_argument("--train_file", help="local training file (tsv, csv, jsonl, parquet; .gz)")
    g.add_argument("--label_column", help="name of its label column")
    g.add_argument(
        "--max_train_rows",
        type=cli.positive_int,
        default=10_000,
        help="use at most this many, balanced (10,000 of IMDB's take 1.8 GB)",
    )
    add(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto: CUDA where there is one",
    )
    add(
        "--output_dir",
        required=True,
        help="folder for quality.json, .md and .csv, pairs.csv and pairs.html",
    )
    args = parser.parse_args(argv)
    if args.data_dir and args.train_file:
        raise cli.UserError("give either --data_dir or --train_file, not both")
    if args.language_model and not Path(args.language_model).is_dir():
        raise cli.UserError(
            f"no folder {args.language_model}: fetch a language model with: hf download "
            f"openai-community/gpt2 --local-dir {args.language_model}"
        )
    if Path(args.output_dir).is_file():
        raise cli.UserError(f"{args.output_dir} is a file; choose another --output_dir")
    args.precision, args.deterministic = "fp32", None
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

import csv
import io
import math
from dataclasses import replace

from evaluation import checkpoints, quality
from evaluation.fluency import CausalModel, NgramModel
from evaluation.minilm import MiniLM
from evaluation.records import number, text_cell, write_text
from evaluation.transfer import Finished, read_attack
from reporting import pairs
from training.settings import DataSettings, data_settings_in
from training.splits import Rows, load_splits, without
from training.tasks import Task, resolve_task
from utils.devices import make_accelerator
from utils.files import write_json
from utils.runs import environment, read_run

SOURCES = ("data_dir", "train_file", "validation_file", "test_file")
COLUMNS = {
    "model": "model",
    "recipe": "recipe",
    "rows_successful": "successes",
    "words_changed_percent": "words changed %",
    "similarity": "similarity",
    "perplexity_original": "perplexity, original",
    "perplexity_adversarial": "perplexity, adversarial",
    "perplexity_ratio": "ratio",
    "judge_accuracy_percent": "judge right on originals %",
    "label_kept_percent": "of these, label kept %",
}


def data_settings(args: Namespace, attack: Finished) -> DataSettings:
    """Those of the run above the attack, then those given on the command line."""
    task, run = attack.settings.get("task"), read_run(attack.folder.resolve().parent.parent) or {}
    earlier = data_settings_in(run.get("args", {}))
    if (earlier.task_name or earlier.dataset_name) != task:  # the attack has another task's rows
        earlier = data_settings_in({})
    if args.data_dir or args.train_file:
        earlier = replace(earlier, **dict.fromkeys(SOURCES))
    given = {n: getattr(args, n) for n in ("data_dir", "train_file", "label_column")}
    return replace(
        earlier,
        **{name: value for name, value in given.items() if value},
        # All training rows, however few the run used: two runs' attacks have one judge.
        max_train_rows=args.max_train_rows,
        max_eval_rows=None,
        dataset_name=None,
        task_name=task,
        text_columns=",".join(attack.lines[0]["original"]),
    )


def check_attacks(attacks: list[Finished]) -> None:
    """UserError where two are on different tasks, or the same."""
    first, seen = attacks[0], {}
    for attack in attacks:
        if attack.settings.get("task") != first.settings.get("task"):
            raise cli.UserError(
                f"{first.folder} is on the task {first.settings.get('task')}, {attack.folder} on "
                f"{attack.settings.get('task')}: one task at a time"
            )
        if attack.attack_id in seen:
            raise cli.UserError(f"{seen[attack.attack_id]} and {attack.folder} are one attack")
        seen[attack.attack_id] = attack.folder


def training_rows(flags: DataSettings, task: Task, attacks: list[Finished]) -> Rows:
    """The task's training rows, less the texts that were attacked."""
    try:
        rows = load_splits(flags, task, ("train",))["train"]
    except cli.UserError as e:
        raise cli.UserError(
            f"the judge and the trigrams need the task's training rows ({e}): give --train_file "
            "or --data_dir, or else --judge and --language_model"
        ) from e
    for attack in attacks:
        rows = without(rows, attack.rows(attack.originals))[0]
    if not len(rows):
        raise cli.UserError("all training texts were attacked, too: give others by --train_file")
    return rows


def describe(attack: Finished) -> dict:
    home = attack.folder.resolve().parent.parent
    return {
        "model": f"{home.name}/{attack.settings['checkpoint']}",
        "recipe": attack.settings.get("recipe"),
        "attack_id": attack.attack_id,
        "folder": str(attack.folder),
        "rows_attacked": len(attack.ids),
    }


def pair(facts: dict, line: dict, measured: dict, task: Task) -> dict:
    """One row of the sheet."""
    names, column = task.label_names, task.attack_column
    others = [f"{name}: {text}" for name, text in line["original"].items() if name != column]
    return {
        **{name: facts[name] for name in ("model", "recipe")},
        **{name: line[name] for name in ("row_id", "words_changed", "words_total")},
        **{n: names[line[n]] for n in ("label", "predicted_before", "predicted_after")},
        **{n: names[measured[n]] for n in ("judge_before", "judge_after")},
        "context": " ".join(others),
        "original": line["original"][column],
        "adversarial": line["perturbed"][column],
        "similarity": measured["similarity"],
        "perplexity_ratio": math.exp(
            measured["log_perplexity_after"] - measured["log_perplexity_before"]
        ),
    }


def cell(result: dict, name: str) -> str:
    value = result[name]
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value).replace("|", "\\|")
    if not name.endswith("percent"):
        return f"{value:.3f}" if name == "similarity" else f"{value:.2f}"
    interval = result.get(name.replace("percent", "interval_95"))
    return f"{value:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def markdown(results: list[dict], language_model: dict, judge: dict) -> str:
    lines = [
        "# Quality of the adversarial texts",
        "",
        f"| {' | '.join(COLUMNS.values())} |",
        "|---" * len(COLUMNS) + "|",
    ]
    lines += ["| " + " | ".join(cell(r, name) for name in COLUMNS) + " |" for r in results]
    empty = [r for r in results if r["empty_because"]]
    lines += ["", *(f"{r['model']}, {r['recipe']}: {r['empty_because']}.\n" for r in empty)]
    if language_model:
        lines += [
            "Over the rows where the attack succeeded; in brackets Wilson's 95 % intervals. Words "
            "changed: mean share. Similarity: mean cosine of MiniLM's sentence encodings, by which "
            "textfooler-minilm, textbugger-minilm and textfooler-neighbours choose, too. "
            f"Perplexity, per {language_model['unit']}: geometric means; {language_model['kind']}. "
            f"Judge: {judge['kind']}; one that is seldom right on the originals says little of "
            "what became of their labels.",
            "",
        ]
    return "\n".join(lines)


def csv_text(results: list[dict]) -> str:
    texts = ("model", "recipe", "attack_id", "folder", "empty_because")
    intervals = [name for name in results[0] if name.endswith("interval_95")]
    numbers = [name for name in results[0] if name not in (*texts, *intervals)]
    ends = [f"{name}_{end}" for name in intervals for end in ("low", "high")]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*texts, *numbers, *ends])
    for result in results:
        limits = [limit for name in intervals for limit in result[name] or (None, None)]
        cells = [text_cell(result[name]) for name in texts]
        cells += [number(value) for value in (*(result[name] for name in numbers), *limits)]
        writer.writerow(cells)
    return text.getvalue()


def main() -> None:
    args = parse_args()
    attacks = [read_attack(folder) for folder in args.attacks]
    check_attacks(attacks)
    flags = data_settings(args, attacks[0])
    task = resolve_task(flags)
    if not task.label_names:  # a custom task has those of the attacked checkpoint
        task = replace(task, label_names=tuple(attacks[0].summary.get("label_names") or ()))
    won = [quality.successful(attack, task) for attack in attacks]
    language_model = judge = encoder = None
    if any(won):
        accelerator = make_accelerator(args)
        if args.judge:
            target = checkpoints.find_targets(args.judge, args.checkpoint, None)[0]
            judge = quality.CheckpointJudge(target, task, attacks, accelerator)
        if args.language_model:
            language_model = CausalModel(args.language_model, str(accelerator.device))
        if judge is None or language_model is None:
            rows = training_rows(flags, task, attacks)
            column = task.text_columns.index(task.attack_column)
            judge = judge or quality.WordsJudge(rows)
            language_model = language_model or NgramModel([text[column] for text in rows.texts])
        encoder = MiniLM(str(accelerator.device))
    results, sheet = [], []
    for attack, lines in zip(attacks, won, strict=True):
        measured = []
        if lines:
            measured = quality.measure(lines, task.attack_column, encoder, language_model, judge)
        facts = describe(attack)
        reason = None if lines else "the attack fooled the model on no row"
        results.append(facts | quality.summarise(lines, measured) | {"empty_because": reason})
        chosen = pairs.sample(len(lines), args.pairs, args.seed, attack.attack_id)
        sheet += [pair(facts, lines[i], measured[i], task) for i in chosen]
    model_facts = language_model.facts | {"unit": language_model.unit} if language_model else {}
    judge_facts = judge.facts if judge else {}
    folder, text = Path(args.output_dir), markdown(results, model_facts, judge_facts)
    record = {
        "kind": "text_quality",
        "task": task.name,
        "column": task.attack_column,
        "language_model": model_facts,
        "judge": judge_facts,
        "pairs": args.pairs,
        "seed": args.seed,
        "results": results,
        "environment": environment(),
    }
    write_json(folder / "quality.json", record)
    write_text(folder / "quality.md", text)
    write_text(folder / "quality.csv", csv_text(results))
    write_text(folder / "pairs.csv", pairs.csv_text(sheet))
    remark = (
        f"{len(sheet)} pairs; at most {args.pairs} of each attack, drawn at random (seed "
        f"{args.seed}). Struck out: words that the attack removed; underlined: words that it "
        "put in. Write in the boxes, or into pairs.csv."
    )
    title = f"Adversarial texts, {task.name}"
    write_text(folder / "pairs.html", pairs.html_text(title, remark, sheet))
    print(text)


if __name__ == "__main__":
    cli.run(main)
