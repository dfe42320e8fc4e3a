"""Attack a fine-tuned classifier with TextAttack and record what is left of its accuracy.

    python attack.py --model_name RUN_OR_CHECKPOINT --recipe textfooler-minilm --num_examples 200

Every attacked row is written as it is done; the same command again goes on where it was stopped.
"""

import argparse
import contextlib
from pathlib import Path

from evaluation import RECIPES, presets
from training.settings import DataSettings, resolve_data_settings
from training.tasks import Task, check_task, resolve_task
from utils import cli, interrupts, settings

SOURCES = ("data_dir", "train_file", "validation_file", "test_file")
RESOURCES = ("neighbours", "word_vectors", "sentence_encoder", "masked_lm")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model_name", required=True, help="folder of a training run, or of any checkpoint")
    add("--checkpoint", choices=["last", "best", "both"], default="last", help="which of a run")
    add(
        "--attack_epochs",
        type=cli.epoch_list,
        help="attack these epochs of a run instead, such as 1,3 (see --keep_epochs)",
    )
    settings.add_flags(parser, DataSettings)
    g = parser.add_argument_group("attack")
    g.add_argument("--recipe", choices=list(RECIPES), required=True, help="the attack")
    g.add_argument(
        "--attack_protocol",
        choices=list(presets.PRESETS),
        default="balanced",
        help="which rows, ranked how, cut where: ours, as the paper's text or as the "
        "released code has it, or rows that all compared models get right",
    )
    g.add_argument(
        "--split",
        choices=["test", "dev"],
        default="test",
        help="dev: rows to select "
        "an epoch or a sparsity on, by the attack, never the reported ones",
    )
    g.add_argument(
        "--num_examples",
        type=cli.positive_int,
        help="rows to attack (default: the paper's number for the task, else 1000)",
    )
    g.add_argument(
        "--rows",
        choices=["balanced", "random", "first", "intersection"],
        help="balanced over classes; random; first in file order; balanced, of those "
        "that all --compared_with get right (default: the protocol's)",
    )
    g.add_argument(
        "--compared_with",
        nargs="+",
        default=[],
        help="run or checkpoint folders, for "
        "the intersection; the same list for each of the models",
    )
    g.add_argument(
        "--seed",
        type=cli.non_negative_int,
        default=42,
        help="of the choice of rows, and of the draws inside an attack",
    )
    g.add_argument(
        "--score_with",
        choices=["log_odds", "softmax"],
        help="what candidates are ranked by: log-odds in float64, or TextAttack's own "
        "1 - p in float32, which saturates (default: the protocol's)",
    )
    g.add_argument(
        "--query_budget",
        type=cli.positive_int,
        help="most victim queries a row (default: any number)",
    )
    g.add_argument(
        "--temperature",
        default="1",
        help="what logits are divided by: a number, "
        "fitted (on the dev rows), a multiple such as 4xfitted, or several in one list; "
        "sweep stands for 0.25xfitted,fitted,4xfitted",
    )
    g.add_argument(
        "--flag_skipped_percent",
        type=cli.non_negative_float,
        default=presets.FLAG_SKIPPED_PERCENT,
        help="flag a result where more of the rows were wrong before the attack",
    )
    g.add_argument(
        "--similarity_threshold",
        type=cli.fraction,
        help="least cosine of MiniLM's similarity (default: the recipe's)",
    )
    g.add_argument("--neighbours", help="JSON table word -> list of words")
    g.add_argument("--word_vectors", help="counter-fitted vectors, a text file or a zip of it")
    g.add_argument("--sentence_encoder", help="Universal Sentence Encoder, a SavedModel folder")
    g.add_argument("--masked_lm", help="folder of a masked language model")
    g = parser.add_argument_group("run")
    g.add_argument(
        "--processes",
        type=cli.positive_int,
        default=1,
        help="that attack rows at the "
        "same time, on the visible GPUs in turn or on a share of the CPU's threads; "
        "the outcomes are the same",
    )
    g.add_argument("--bsz", type=cli.positive_int, default=64, help="queries per batch")
    g.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the victim")
    g.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto: CUDA where there is one",
    )
    g.add_argument("--output_dir", help="the attack's folder (default: inside the run's)")
    g.add_argument(
        "--result_file",
        help="JSON lines that the summary is appended to (default: the run's records.jsonl)",
    )
    g.add_argument(
        "--time_budget",
        type=cli.duration,
        help="save and stop after this time, such as 45m or 8h; the same command resumes",
    )
    g.add_argument(
        "--quiet", action=argparse.BooleanOptionalAction, default=False, help="no progress bar"
    )
    args = parser.parse_args(argv)
    check_task(args)
    apply_protocol(args)
    args.temperature = presets.temperature_rules(args.temperature)
    if args.attack_epochs is not None and not args.attack_epochs:
        raise cli.UserError("--attack_epochs names no epoch")
    if args.similarity_threshold is not None and "minilm" not in RECIPES[args.recipe]:
        raise cli.UserError(f"--similarity_threshold is not read by the recipe {args.recipe}")
    return args


def apply_protocol(args: argparse.Namespace) -> None:
    """Fill in the settings of --attack_protocol that have no flag given."""
    for name, value in presets.PRESETS[args.attack_protocol].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.attack_protocol == "released":
        args.recipe = presets.RELEASED_RECIPES.get(args.recipe, args.recipe)
    if (args.rows == "intersection") != bool(args.compared_with):
        raise cli.UserError("--rows intersection and --compared_with need each other")


def main() -> None:
    args = parse_args()
    interrupts.limit_time(args.time_budget)
    # Imported here, not above: transformers takes seconds, TextAttack (below) ten; wrong arguments
    # are answered at once.
    from evaluation import checkpoints, checks, protocol, resources
    from evaluation.attack_folder import AttackFolder
    from evaluation.minilm import SIMILARITY_THRESHOLDS
    from training import models
    from training.splits import load_splits

    targets = checkpoints.find_targets(args.model_name, args.checkpoint, args.attack_epochs)
    task = task_of(args, targets[0])
    orders = [checkpoints.label_order(target, task) for target in targets]
    device = device_name(args.device)
    split = load_splits(args, task, (args.split,))[args.split]
    max_seq_length = args.max_seq_length or targets[0].facts.get("max_seq_length")
    max_seq_length = max_seq_length or task.max_seq_length
    models.check_length(checkpoints.load_classifier(targets[0])[0], max_seq_length)
    if args.num_examples is None:
        args.num_examples = task.paper_attacked_rows or 1000
    common = {}
    candidates = split
    if args.rows == "intersection":
        compared = compared_models(args, targets)
        candidates = right_for_all(args, compared, task, candidates, max_seq_length, device)
        common = {"right_for": sorted(checkpoints.weights_digest(t) for t in compared)}
    rows = protocol.choose_rows(candidates, args.num_examples, args.rows, args.seed)
    if len(set(rows.labels)) == 1:
        cli.warn(f"all {len(rows)} rows are of one class, {task.label_names[rows.labels[0]]}")
    unchanged = len(task.label_names) == 2 and args.score_with == "log_odds"
    if unchanged and args.temperature != ["1"] and args.recipe != "pwws":
        # PWWS ranks words by products of probabilities, which a temperature can reorder.
        cli.warn("with two classes no temperature reorders log-odds: use --score_with softmax")
    # A checkpoint of no run: dev rows, if need be, are those of the data that it is attacked with.
    own_dev = dev_rows(args, task) if targets[0].run is None else None
    given = {name: getattr(args, name) for name in RESOURCES}
    for name in given.keys() - set(RECIPES[args.recipe]):
        if given[name] is not None:  # no error: scripts give all that they have to every recipe
            cli.warn(f"--{name} is not read by the recipe {args.recipe}")
    paths = resources.locate(args.recipe, given, device)
    resource_facts = resources.describe(args.recipe, paths)
    if args.similarity_threshold is None:
        args.similarity_threshold = SIMILARITY_THRESHOLDS.get(args.recipe)

    attacks = []
    for target, order, rule in (
        (t, o, r) for t, o in zip(targets, orders, strict=True) for r in args.temperature
    ):
        attack_settings = {
            "task": task.name,
            "checkpoint": target.name,
            "checkpoint_sha256": checkpoints.weights_digest(target),
            "label_order": order,
            "max_seq_length": max_seq_length,
            "precision": args.precision,
            "device": device,
            "recipe": args.recipe,
            "score_with": args.score_with,
            "similarity_threshold": args.similarity_threshold,
            "attack_seed": args.seed,
            "data": protocol.describe_data(split),
            "rows": protocol.describe_rows(rows, args.rows, args.seed) | common,
            "resources": resource_facts,
        }
        if args.split == "dev":  # to select on, never to be reported
            attack_settings["split"] = "dev"
        if args.query_budget is not None:
            attack_settings["query_budget"] = args.query_budget
        if rule != "1":
            attack_settings["temperature_rule"] = rule
        result_file = Path(args.result_file or target.home / "records.jsonl")
        folder = AttackFolder(
            output_dir(args, target, rule), attack_settings, rows.ids, result_file
        )
        if folder.summary is None:
            attacks.append((target, order, rule, folder))
        else:
            folder.publish()
            print(f"{folder.folder} is finished; nothing to do")
    if not attacks:
        return

    resources.import_textattack(device)
    from evaluation import recipes, workers

    loaded = recipes.load(args.recipe, paths, device)
    known: dict[tuple, AttackFolder] = {}  # the best checkpoint is often the last
    for target, order, rule, folder in attacks:
        setup = workers.Setup(
            target,
            order,
            task,
            rows,
            args.seed,
            args.recipe,
            paths,
            args.score_with,
            args.similarity_threshold,
            args.query_budget,
            max_seq_length,
            args.bsz,
            args.precision,
            device,
        )
        victim = setup.victim()
        made_with = checkpoints.rows_it_was_made_with(target, task)
        facts = target.known(task) | {"attack_protocol": args.attack_protocol}
        facts["made_in"] = [target.home.resolve().name, folder.folder.name]
        facts |= checks.overlaps(rows, **made_with)
        facts |= set_temperature(args, victim, rule, made_with["dev"] or own_dev, target)
        facts |= checks.examine(victim, rows)
        attack = setup.attack(victim, loaded)
        folder.begin()
        interrupts.raise_on_signals()
        same = known.get((folder.settings["checkpoint_sha256"], rule))
        for line in same.outcomes() if same is not None else ():
            if line["row_id"] not in folder.done:
                folder.append({k: v for k, v in line.items() if k != "digest"})
        bar = cli.progress_bar(len(rows), len(folder.done), "row", args.recipe, args.quiet)
        waiting = [i for i, row_id in enumerate(rows.ids) if row_id not in folder.done]
        lines = workers.attack_rows(setup, attack, victim, waiting, args.processes)
        with contextlib.closing(lines):
            for line in lines:
                folder.append(line)
                bar.update()
                bar.set_postfix_str(protocol.so_far(folder.outcomes()))
        bar.close()
        described = protocol.describe_protocol(folder.settings, rows.ids, recipes.describe(attack))
        folder.finish(
            protocol.summary(
                facts,
                folder.settings,
                folder.outcomes(),
                folder.attack_id,
                described,
                args.flag_skipped_percent,
            ),
            described,
        )
        known[folder.settings["checkpoint_sha256"], rule] = folder
        print(protocol.in_words(folder.summary))
        for flag in folder.summary["flags"]:
            cli.warn(f"suspicious ({flag['flag']}): {flag['why']}")
        if folder.summary["intervals_95"]["clean_percent"][1] < 100 / len(task.label_names):
            cli.warn(
                "the checkpoint is right less often than by chance: has it another label order?"
            )


def task_of(args: argparse.Namespace, target) -> Task:
    """The task named by flags, else the one the run was trained on, with its data flags."""
    if target.run is not None:
        earlier = dict(target.run["args"])
        if any(getattr(args, name) for name in SOURCES):
            earlier |= dict.fromkeys(SOURCES)  # rows from elsewhere: the run's sources stay out
    else:
        earlier = {}
    resolve_data_settings(args, earlier)
    if target.run is None and args.task_name is None and args.dataset_name is None:
        raise cli.UserError(f"{target.folder} is no run of ours: say with --task_name what it does")
    from evaluation.checkpoints import with_checkpoint_labels

    return with_checkpoint_labels(resolve_task(args), target)


def compared_models(args: argparse.Namespace, targets: list) -> list:
    """The checkpoints of --compared_with, and those attacked, each once."""
    from evaluation.checkpoints import find_targets

    found = [t for name in args.compared_with for t in find_targets(name, args.checkpoint, None)]
    return list({t.folder.resolve(): t for t in [*found, *targets]}.values())


def right_for_all(args, compared: list, task: Task, rows, max_seq_length: int, device: str):
    """Of the rows those that every compared model gets right."""
    from evaluation import checkpoints, resources

    resources.import_textattack(device)
    from evaluation.victim import Victim

    right = [True] * len(rows)
    for target in compared:
        order = checkpoints.label_order(target, task)
        model, tokenizer = checkpoints.load_classifier(target)
        victim = Victim(model, tokenizer, order, max_seq_length, args.bsz, args.precision, device)
        answers = victim(rows.for_tokenizer()).argmax(dim=1).tolist()
        right = [r and a == y for r, a, y in zip(right, answers, rows.labels, strict=True)]
    found = rows.take([i for i, r in enumerate(right) if r])
    if not len(found):
        raise cli.UserError(f"no row is right for all of the {len(compared)} compared models")
    return found


def dev_rows(args: argparse.Namespace, task: Task):
    """The dev rows of the data that the flags name; None where there are none, or none needed."""
    from training.splits import load_splits

    if not any(rule.endswith("fitted") for rule in args.temperature):
        return None
    try:
        return load_splits(args, task, ("dev",))["dev"]
    except cli.UserError:
        return None


def set_temperature(args, victim, rule: str, dev, target) -> dict:
    """Give the victim its temperature; for the record: the number, and how it was found."""
    if rule == "1":
        return {}
    import numpy as np

    from evaluation import calibration, protocol

    fitted, facts = None, {}
    if rule.endswith("fitted"):
        if dev is None:
            raise cli.UserError(
                f"--temperature {rule} is fitted on dev rows, and those of {target.folder} are not "
                "to be had: attack the run's folder where its data are, give training rows (dev is "
                "a part of them) by --data_dir or --train_file, or give a number"
            )
        dev = protocol.choose_rows(dev, calibration.MOST_DEV_ROWS, "random", args.seed)
        logits = victim(dev.for_tokenizer()).numpy()
        fitted = calibration.fit_temperature(logits, np.array(dev.labels))
        facts = {
            "temperature_fitted_on": {"rows": len(dev), "fingerprint": dev.fingerprint},
            "temperature_at_bound": calibration.at_bound(fitted),
        }
    victim.temperature = calibration.temperature_of(rule, fitted)
    return facts | {"temperature": victim.temperature}


def device_name(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise cli.UserError("--device cuda, but torch sees no CUDA device here")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def output_dir(args: argparse.Namespace, target, temperature: str) -> Path:
    """--output_dir (a folder in it per checkpoint and temperature, where there are several), else
    one in the run's."""
    if args.output_dir:
        several = args.attack_epochs or args.checkpoint == "both"
        parts = [target.name] * bool(several)
        parts += [f"T{temperature}"] * (len(args.temperature) > 1)
        return Path(args.output_dir, *parts)
    from evaluation.protocol import folder_name

    name = folder_name(
        args.recipe,
        target.name,
        args.rows,
        args.num_examples,
        args.seed,
        args.score_with,
        temperature,
        args.split,
    )
    return target.home / "attacks" / name


if __name__ == "__main__":
    cli.run(main)
