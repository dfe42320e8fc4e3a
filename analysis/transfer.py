"""Replay the adversarial texts found on some models on others, and report the worst of all.

    python analysis/transfer.py --attacks RUN_A/attacks/NAME RUN_B/attacks/NAME --output_dir FOLDER

Each attack's model is a target, and further ones by --models; all attacks must be on the same rows.
A model that is fooled by other models' texts where its own attack failed was not robust there: that
is said, and put beside the attack's record, so that report.py says it, too.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from utils import cli


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add(
        "--attacks",
        nargs="+",
        required=True,
        help="folders of finished attacks, whose texts are "
        "replayed; the models that they attacked, in whose run they are or which --models "
        "names, are targets",
    )
    add("--models", nargs="+", default=[], help="further targets: run or checkpoint folders")
    add("--checkpoint", choices=["last", "best"], default="last", help="of --models")
    add(
        "--flag_percent",
        type=cli.non_negative_float,
        default=2.0,
        help="warn where at least so "
        "many of the rows fall to carried-over texts though the direct attack failed",
    )
    add("--bsz", type=cli.positive_int, default=64, help="texts per batch")
    add(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto: CUDA where there is one",
    )
    add(
        "--result_file",
        help="JSON lines that the attacks' records are in (default: each run's records.jsonl)",
    )
    add("--output_dir", required=True, help="folder for transfer.json and transfer.md")
    args = parser.parse_args(argv)
    args.precision, args.deterministic = "fp32", None  # as the attack computes
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

import numpy as np
from accelerate import Accelerator

from evaluation import checkpoints, transfer
from training import models
from training.batching import encode
from training.prediction import predict
from training.tasks import TASKS
from utils.devices import make_accelerator
from utils.files import write_atomically, write_json
from utils.runs import environment


def attacked_model(attack: transfer.Finished, further: list[checkpoints.Target]):
    """The checkpoint that an attack was on: in the run above its folder, else one of `further`."""
    run, name = attack.folder.resolve().parent.parent, attack.settings["checkpoint"]
    folder = run / name if (run / name).is_dir() else run
    there = (folder / "config.json").is_file()
    above = checkpoints.find_targets(str(folder), "last", None) if there else []
    for target in (*above, *further):
        if checkpoints.weights_digest(target) == attack.settings["checkpoint_sha256"]:
            return target
    if there:
        raise cli.UserError(f"{folder} is no longer the checkpoint that {attack.folder} attacked")
    raise cli.UserError(
        f"{attack.folder} is in no run: name the model that it attacked by --models"
    )


def targets_of(args, attacks: list[transfer.Finished]) -> list[tuple]:
    """(checkpoint, the attacks on it), each checkpoint once."""
    further = [checkpoints.find_targets(name, args.checkpoint, None)[0] for name in args.models]
    targets = {}
    for attack in attacks:
        target = attacked_model(attack, further)
        targets.setdefault(target.folder.resolve(), (target, []))[1].append(attack)
    for target in further:
        targets.setdefault(target.folder.resolve(), (target, []))
    return list(targets.values())


def answers(
    target,
    own: list[transfer.Finished],
    attacks: list[transfer.Finished],
    batch_size: int,
    accelerator: Accelerator,
) -> tuple[np.ndarray, dict]:
    """Where the target is right: on the originals, and by source on its texts; bool, (rows,).

    Texts are cut where the attack on it cut them, else where its training did.
    """
    model, tokenizer = checkpoints.load_classifier(target)
    first = (own or attacks)[0].settings
    length = None if own else target.facts.get("max_seq_length")
    length = length or first["max_seq_length"]
    names = attacks[0].summary.get("label_names")  # a custom task has none of its own
    task = TASKS[first["task"]]
    task = task if task.label_names else replace(task, label_names=tuple(names or ()))
    order = checkpoints.label_order(target, task)
    models.check_length(model, length)
    model.to(accelerator.device)
    labels = np.array(attacks[0].labels)

    def right_on(attack: transfer.Finished, texts: list) -> np.ndarray:
        encoded = encode(attack.rows(texts), tokenizer, length)
        logits = predict(model, encoded, batch_size, accelerator)[:, order]
        return logits.argmax(axis=1) == labels

    before = right_on(attacks[0], attacks[0].originals)
    return before, {str(a.folder): right_on(a, a.found) for a in attacks}


def carried_over(
    target,
    own: list[transfer.Finished],
    attacks: list[transfer.Finished],
    before: np.ndarray,
    after: dict,
    flag_percent: float,
    name: str,
    result_file: str | None,
) -> int:
    """Rows of the own attack (of several, the one with most) that other models' texts alone fool;
    where they are many, that is said and put beside the attack's record."""
    same = {a.settings["checkpoint_sha256"] for a in own}
    others = {
        str(a.folder): after[str(a.folder)] | ~before
        for a in attacks
        if a.settings["checkpoint_sha256"] not in same
    }
    counts = []
    for attack in own:
        counts.append(transfer.carried_over(attack, others))
        if 100 * counts[-1] >= flag_percent * len(before) and counts[-1]:
            why = (
                f"texts carried over from other models fool it on {counts[-1]} of "
                f"{len(before)} rows where its own attack failed"
            )
            cli.warn(f"suspicious (carried_over_texts): {name}: {why}")
            records = Path(result_file or target.home / "records.jsonl")
            transfer.add_doubt(attack, records, "carried_over_texts", why)
    return max(counts)


def markdown(results: list[dict], sources: list[dict]) -> str:
    heads = ["model", "Clean", *(f"texts of {s['name']}" for s in sources), "worst of all"]
    lines = [
        "# Adversarial texts replayed on other models",
        "",
        "Percent of all rows on which the model is right before and after; 95 % intervals.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for result in results:
        cells = [
            f"{c['percent']:.1f} [{c['interval_95'][0]:.1f}, {c['interval_95'][1]:.1f}]"
            for c in result["by_source"].values()
        ]
        low, high = result["worst_of_all_interval_95"]
        cells.append(f"{result['worst_of_all_percent']:.1f} [{low:.1f}, {high:.1f}]")
        lines.append(
            f"| {result['model']} | {result['clean_percent']:.1f} | " + " | ".join(cells) + " |"
        )
    told = [f"{s['name']}: {s['recipe']}, protocol {s['protocol_id']}" for s in sources]
    lines += ["", f"The texts' attacks: {'; '.join(told)}."]
    if len({s["protocol_id"] for s in sources}) > 1:
        lines.append("They are of different protocols, so columns differ by more than the model.")
    return "\n".join([*lines, ""])


def main() -> None:
    args = parse_args()
    attacks = [transfer.read_attack(folder) for folder in args.attacks]
    transfer.check_same_rows(attacks)
    targets = targets_of(args, attacks)
    places = {str(a.folder): target.folder for target, own in targets for a in own}
    names = transfer.short_names(
        [places[str(a.folder)] for a in attacks], [a.folder.name for a in attacks]
    )
    model_names = transfer.short_names([target.folder for target, _ in targets])
    accelerator, results = make_accelerator(args), []
    for (target, own), name in zip(targets, model_names, strict=True):
        before, after = answers(target, own, attacks, args.bsz, accelerator)
        found = transfer.replayed(before, dict(zip(names, after.values(), strict=True)))
        found = {"model": name} | found
        if own:
            found["fooled_by_carried_over_texts_alone"] = carried_over(
                target, own, attacks, before, after, args.flag_percent, name, args.result_file
            )
        results.append(found)
    folder = Path(args.output_dir)
    sources = [
        {
            "name": name,
            "recipe": a.settings.get("recipe"),
            "protocol_id": a.summary.get("protocol_id"),
            "attack_id": a.attack_id,
        }
        for name, a in zip(names, attacks, strict=True)
    ]
    record = {
        "kind": "transfer",
        "task": attacks[0].settings["task"],
        "attacks": args.attacks,
        "sources": sources,
        "rows": len(attacks[0].ids),
        "results": results,
        "environment": environment(),
    }
    text = markdown(results, sources)
    write_json(folder / "transfer.json", record)
    write_atomically(folder / "transfer.md", lambda p: p.write_text(text, encoding="utf-8"))
    print(text)


if __name__ == "__main__":
    cli.run(main)
