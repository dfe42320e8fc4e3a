"""Replay the adversarial texts found on some models on others, and report the worst of all.

    python transfer.py --attacks RUN_A/attacks/NAME RUN_B/attacks/NAME --output_dir FOLDER

Each attack's model is a target, and further ones by --models; all attacks must be on the same rows.
A model that is fooled by other models' texts where its own attack failed was not robust there: that
is said, and put beside the attack's record, so that report.py says it, too.
"""

from pathlib import Path

from utils import cli


def parse_args(argv: list[str] | None = None):
    parser = cli.Parser(__doc__.split("\n")[0])
    add = parser.add_argument
    add("--attacks", nargs="+", required=True, help="folders of finished attacks, whose texts are "
        "replayed; the models that they attacked are targets")  # fmt: skip
    add("--models", nargs="+", default=[], help="further targets: run or checkpoint folders")
    add("--checkpoint", choices=["last", "best"], default="last", help="of --models")
    add("--flag_percent", type=cli.non_negative_float, default=2.0, help="warn where at least so "
        "many of the rows fall to carried-over texts though the direct attack failed")  # fmt: skip
    add("--bsz", type=cli.positive_int, default=64, help="texts per batch")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: CUDA where there "
        "is one")  # fmt: skip
    add("--output_dir", required=True, help="folder for transfer.json and transfer.md")
    args = parser.parse_args(argv)
    args.precision, args.deterministic = "fp32", None  # as the attack computes
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # what is wrong with them is said before the imports, which take seconds

import numpy as np
from accelerate import Accelerator

from utils.attack import checkpoints, transfer
from utils.batching import encode
from utils.devices import make_accelerator
from utils.evaluation import predict
from utils.files import write_atomically, write_json
from utils.runs import environment
from utils.tasks import TASKS


def targets_of(args, attacks: list[transfer.Finished]) -> list[tuple]:
    """(checkpoint, the attack on it or None), each checkpoint once."""
    targets = {}
    for attack in attacks:
        run, name = attack.folder.resolve().parent.parent, attack.settings["checkpoint"]
        folder = run / name if (run / name).is_dir() else run
        target = checkpoints.find_targets(str(folder), args.checkpoint, None)[0]
        if checkpoints.weights_digest(target) != attack.settings["checkpoint_sha256"]:
            raise cli.UserError(
                f"{folder} is no longer the checkpoint that {attack.folder} attacked"
            )
        targets[target.folder.resolve()] = (target, attack)
    for name in args.models:
        target = checkpoints.find_targets(name, args.checkpoint, None)[0]
        targets.setdefault(target.folder.resolve(), (target, None))
    return list(targets.values())


def answers(
    target, attacks: list[transfer.Finished], batch_size: int, accelerator: Accelerator
) -> tuple[np.ndarray, dict]:
    """Where the target is right: on the originals, and by source on its texts; bool, (rows,)."""
    model, tokenizer = checkpoints.load_classifier(target)
    settings = attacks[0].settings
    order = checkpoints.label_order(target, TASKS[settings["task"]])
    model.to(accelerator.device)
    labels = np.array(attacks[0].labels)

    def right_on(attack: transfer.Finished, texts: list) -> np.ndarray:
        encoded = encode(attack.rows(texts), tokenizer, settings["max_seq_length"])
        logits = predict(model, encoded, batch_size, accelerator)[:, order]
        return logits.argmax(axis=1) == labels

    before = right_on(attacks[0], attacks[0].originals)
    return before, {str(a.folder): right_on(a, a.found) for a in attacks}


def markdown(results: list[dict], sources: list[str]) -> str:
    heads = ["model", "Clean", *(f"texts of {s}" for s in sources), "worst of all"]
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
        lines.append(f"| {result['model']} | {result['clean_percent']:.1f} | "
                     + " | ".join(cells) + " |")  # fmt: skip
    return "\n".join([*lines, ""])


def main() -> None:
    args = parse_args()
    attacks = [transfer.read_attack(folder) for folder in args.attacks]
    transfer.check_same_rows(attacks)
    names = [f"{a.folder.resolve().parent.parent.name}/{a.settings['checkpoint']}" for a in attacks]
    accelerator, results = make_accelerator(args), []
    for target, own in targets_of(args, attacks):
        before, after = answers(target, attacks, args.bsz, accelerator)
        found = transfer.replayed(before, dict(zip(names, after.values(), strict=True)))
        found = {"model": f"{target.home.name}/{target.name}"} | found
        if own is not None:
            count = transfer.carried_over(own, after)
            found["fooled_by_carried_over_texts_alone"] = count
            if 100 * count >= args.flag_percent * len(before) and count:
                why = (f"texts carried over from other models fool it on {count} of {len(before)} "
                       "rows where its own attack failed")  # fmt: skip
                cli.warn(f"suspicious (carried_over_texts): {found['model']}: {why}")
                transfer.add_doubt(own, target.home, "carried_over_texts", why)
        results.append(found)
    folder = Path(args.output_dir)
    record = {"kind": "transfer", "task": attacks[0].settings["task"], "attacks": args.attacks,
              "rows": len(attacks[0].ids), "results": results,
              "environment": environment()}  # fmt: skip
    text = markdown(results, names)
    write_json(folder / "transfer.json", record)
    write_atomically(folder / "transfer.md", lambda p: p.write_text(text, encoding="utf-8"))
    print(text)


if __name__ == "__main__":
    cli.run(main)
