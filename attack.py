"""Attack a fine-tuned classifier with TextAttack and record its accuracy under attack.

    python attack.py --model_name RUN_OR_CHECKPOINT --recipe textfooler-minilm --num_examples 200
    python attack.py --model_name RUN_OR_CHECKPOINT --suite standard --num_examples 200
    python attack.py --check textfooler bertattack

Every row is written as soon as it is attacked. The same command resumes an interrupted attack.
"""

import contextlib
from pathlib import Path

from evaluation import availability, presets
from evaluation.settings import AttackRun
from training.tasks import check_task
from utils import cli, interrupts
from utils.settings import parse


def parse_args(argv: list[str] | None = None) -> AttackRun:
    args = parse(AttackRun, __doc__.split("\n")[0], argv)
    if args.check is not None:
        return args
    if args.model_name is None:
        raise cli.UserError("--model_name is missing: give a run or checkpoint folder")
    check_task(args)
    choose_recipe(args)
    apply_preset(args)
    if args.attack_epochs is not None and not args.attack_epochs:
        raise cli.UserError("--attack_epochs is empty; give epochs such as 1,3")
    if args.similarity_threshold is not None and "minilm" not in presets.RECIPES[args.recipe]:
        raise cli.UserError(
            f"--similarity_threshold has no effect with the recipe {args.recipe}: omit it"
        )
    return args


def choose_recipe(args: AttackRun) -> None:
    """Check the recipe, and fill in that of the suite if it was not given."""
    if args.suite is None:
        if args.recipe is None:
            raise cli.UserError("give --recipe, or --suite standard")
        if args.carry_over:
            raise cli.UserError("--carry_over is read by the suite only; give --suite standard")
        return
    usual = "textfooler-neighbours" if args.neighbours else "textfooler-minilm"
    args.recipe = args.recipe or usual
    if args.recipe not in presets.SUITE_RECIPES:
        raise cli.UserError(
            f"--suite has no recipe {args.recipe}; give one of {', '.join(presets.SUITE_RECIPES)}"
        )
    if args.temperature != ["1"] or args.score_with == "softmax":
        raise cli.UserError(
            "the suite ranks by log-odds at temperature 1; omit --temperature and --score_with"
        )


def apply_preset(args: AttackRun) -> None:
    """Fill in the settings of --preset whose flags were not given."""
    for name, value in presets.PRESETS[args.preset].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.preset == "released":
        args.recipe = presets.RELEASED_RECIPES.get(args.recipe, args.recipe)
    if (args.row_choice == "intersection") != bool(args.compared_with):
        raise cli.UserError(
            "--row_choice intersection and --compared_with need each other; give both"
        )


def main() -> None:
    args = parse_args()
    if args.check is not None:
        return check_resources(args)
    interrupts.limit_time(args.time_budget)
    suites = [presets.SUITE_RECIPES[args.recipe]] if args.suite else []
    availability.check([args.recipe, *suites], vars(args))
    # Imported after the arguments are checked: these imports take seconds, TextAttack's take ten.
    from evaluation import attack_setup, checkpoints, checks, outcomes, protocol, resources
    from evaluation.attack_folder import AttackFolder

    # The models to attack, their task, and the rows.
    subject = attack_setup.resolve(args)
    targets, task, device, rows = subject.targets, subject.task, subject.device, subject.rows
    max_seq_length = subject.max_seq_length
    if args.suite is not None:
        return run_suite(args, subject)
    warn_about(args, task, rows)
    # A checkpoint without a run gets its dev rows from the data that it is attacked with.
    dev_of_data = attack_setup.dev_rows(args, task) if targets[0].run is None else None

    # The resources of the recipe, and one folder per checkpoint and temperature.
    paths = attack_setup.locate_resources(args, device)
    resource_facts = resources.describe(args.recipe, paths)
    data_facts = protocol.describe_data(subject.split)
    row_facts = protocol.describe_rows(rows, args.row_choice, args.seed) | subject.common
    attacks = []
    for target, order in zip(targets, subject.orders, strict=True):
        setup = attack_setup.Setup(args, target, order, task, rows, paths, max_seq_length, device)
        for rule in args.temperature:
            identity = setup.settings(data_facts, row_facts, resource_facts, rule)
            result_file = Path(args.result_file or target.home / "records.jsonl")
            place = attack_setup.output_dir(args, target, rule)
            folder = AttackFolder(place, identity, rows.ids, result_file)
            if folder.summary is None:
                attacks.append((setup, rule, folder))
            else:
                folder.publish()
                print(f"{folder.folder} is finished; nothing to do")
    if not attacks:
        return

    # The attacks, row by row.
    resources.import_textattack(device)
    from evaluation import attack_rows, recipes

    loaded = recipes.load(paths, device)
    finished: dict[tuple, AttackFolder] = {}
    for setup, rule, folder in attacks:
        target, victim = setup.target, setup.victim()
        trained_on = checkpoints.rows_it_was_made_with(target, task)
        facts = target.known(task) | {"preset": args.preset}
        facts["made_in"] = [target.home.resolve().name, folder.folder.name]
        facts |= checks.overlaps(rows, **trained_on)
        dev = trained_on["dev"] or dev_of_data
        facts |= attack_setup.set_temperature(victim, rule, dev, args.seed, target.folder)
        facts |= checks.examine(victim, rows)
        attack = setup.attack(victim, loaded)
        folder.begin()
        interrupts.raise_on_signals()
        model = (folder.settings["checkpoint_sha256"], rule)
        if model in finished:  # the best checkpoint is often the last one
            folder.copy_rows(finished[model])
        bar = cli.progress_bar(len(rows), len(folder.done), "row", args.recipe, args.quiet)
        waiting = [i for i, row_id in enumerate(rows.ids) if row_id not in folder.done]
        lines = attack_rows.attack_rows(setup, victim, loaded, waiting, args.processes)
        with contextlib.closing(lines), bar:
            for line in lines:
                folder.append(line)
                bar.set_postfix_str(outcomes.so_far(folder.outcomes()), refresh=False)
                bar.update()
        described = protocol.describe_protocol(folder.settings, rows.ids, recipes.describe(attack))
        record = protocol.summary(
            facts,
            folder.settings,
            folder.outcomes(),
            folder.attack_id,
            described,
            args.flag_skipped_percent,
        )
        folder.finish(record, described)
        finished[model] = folder
        report(record, task)


def check_resources(args: AttackRun) -> None:
    """Print what each recipe of --check lacks. Raises UserError with the command for it."""
    recipes = args.check or ([args.recipe] if args.recipe else [*presets.RECIPES])
    if args.preset == "released":
        recipes = [presets.RELEASED_RECIPES.get(recipe, recipe) for recipe in recipes]
    for recipe in recipes:
        lacking = availability.missing(recipe, vars(args))
        print(f"{recipe}: {'missing: ' + '; '.join(lacking.values()) if lacking else 'ready'}")
    availability.check(recipes, vars(args))


def run_suite(args: AttackRun, subject) -> None:
    """Run the suite on each checkpoint and print a summary."""
    from evaluation import resources

    warn_about(args, subject.task, subject.rows)
    resources.import_textattack(subject.device)
    from evaluation import suite, suite_record

    interrupts.raise_on_signals()
    for target, order in zip(subject.targets, subject.orders, strict=True):
        record = suite.run(args, subject, target, order)
        print(suite_record.in_words(record))
        for flag in record["flags"]:
            cli.warn(f"suspicious ({flag['flag']}): {flag['why']}")


def warn_about(args: AttackRun, task, rows) -> None:
    """Warn about rows of one class, and about a temperature that cannot change the attack."""
    if len(set(rows.labels)) == 1:
        name = task.label_names[rows.labels[0]]
        cli.warn(
            f"all {len(rows)} attacked rows belong to the class {name}; see --row_choice balanced"
        )
    unchanged = len(task.label_names) == 2 and args.score_with == "log_odds"
    # PWWS ranks words by products of probabilities, which a temperature can reorder.
    if unchanged and args.temperature != ["1"] and args.recipe != "pwws":
        cli.warn("with two classes a temperature cannot reorder log-odds; use --score_with softmax")


def report(record: dict, task) -> None:
    """Print the result in one line, and a warning for each flag."""
    from evaluation import protocol

    print(protocol.in_words(record))
    for flag in record["flags"]:
        cli.warn(f"suspicious ({flag['flag']}): {flag['why']}")
    if record["intervals_95"]["clean_percent"][1] < 100 / len(task.label_names):
        cli.warn(
            "the checkpoint is right less often than chance; check that its labels are in the "
            "order of the task"
        )


if __name__ == "__main__":
    cli.run(main)
