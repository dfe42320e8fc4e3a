"""Replay adversarial texts on other models than the attacked ones, and report the worst of all.

    python analysis/transfer.py --attacks RUN_A/attacks/NAME RUN_B/attacks/NAME --output_dir FOLDER

All attacks must be on the same rows. The targets are the attacked models, each in the run above its
attack's folder or in --models, and the other models of --models. If other models' texts fool a
model on rows where its own attack failed, it was not robust there: the script warns, and adds a
flag next to the attack's record, which report.py shows.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere
from evaluation.settings import AttackSettings, FinishedAttacks, VictimSettings
from training.settings import DeviceSettings, FolderSettings, RunSettings
from utils import cli
from utils.settings import REQUIRED, Role, changed, parse, setting


@dataclass(kw_only=True)
class Settings(FinishedAttacks, VictimSettings, DeviceSettings):
    """Transfer."""

    models: list = setting(
        [], "further targets: run or checkpoint folders", role=Role.PLACE, nargs="+"
    )
    checkpoint: str = changed(AttackSettings, "checkpoint", "last", choices=("last", "best"))
    flag_percent: float = setting(
        2.0,
        "warn if at least this percentage of the rows fall to other models' texts though the "
        "direct attack failed",
        cli.non_negative_float,
        role=Role.OUTPUT,
    )
    output_dir: str = changed(FolderSettings, "output_dir", REQUIRED)


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    if Path(args.output_dir).is_file():
        raise cli.UserError(f"{args.output_dir} is a file; choose another --output_dir")
    return args


def main() -> None:
    args = parse_args()  # before the imports, which take seconds
    from evaluation import finished_attacks, transfer
    from reporting import text_tables
    from reporting.render import write_text
    from utils.devices import make_accelerator
    from utils.files import write_json
    from utils.runs import environment

    attacks = finished_attacks.read_attacks(args.attacks, same_rows=True)
    victims = transfer.find_victims(attacks, args.models, args.checkpoint)
    attacked = {a.attack_id: v.target.folder for v in victims for a in v.attacks}
    source_names = transfer.short_names(
        [attacked[a.attack_id] for a in attacks], [a.folder.name for a in attacks]
    )
    sources = [
        text_tables.Source(
            name, a.settings.get("recipe"), a.summary.get("protocol_id"), a.attack_id
        )
        for name, a in zip(source_names, attacks, strict=True)
    ]

    # In fp32, as the attack computes.
    accelerator = make_accelerator(RunSettings(device=args.device, precision="fp32"))
    results = []
    model_names = transfer.short_names([victim.target.folder for victim in victims])
    for victim, name in zip(victims, model_names, strict=True):
        before, after = transfer.answers(victim, attacks, args.eval_bsz, accelerator)
        fooled_by_others = transfer.check_carried_over(
            victim, name, attacks, before, after, args.flag_percent, args.result_file
        )
        by_name = dict(zip(source_names, after.values(), strict=True))
        results.append(transfer.replay(name, before, by_name, fooled_by_others))

    record = {
        "kind": "transfer",
        "task": attacks[0].task,
        "attacks": args.attacks,
        "sources": [vars(source) for source in sources],
        "rows": len(attacks[0].rows),
        "results": [result.as_json() for result in results],
        "environment": environment(),
    }
    folder, text = Path(args.output_dir), text_tables.transfer(results, sources)
    write_json(folder / "transfer.json", record)
    write_text(folder / "transfer.md", text)
    print(text)


if __name__ == "__main__":
    cli.run(main)
