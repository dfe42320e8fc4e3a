"""Write the score file of a ticket that needs no search, such as magnitude, random or wanda.

    python make_scores.py --kind magnitude --model_name bert-base-uncased --output_dir FOLDER
    python make_scores.py --kind random --model_name bert-base-uncased --output_dir FOLDER
    python make_scores.py --kind wanda --model_name bert-base-uncased --finetuned RUN_OF_STAGE_1 \\
        --output_dir FOLDER
    python make_scores.py --kind taylor --model_name bert-base-uncased --finetuned RUN_OF_STAGE_1 \\
        --output_dir FOLDER
    python make_scores.py --kind random_matched --scores FOLDER_OF_SEARCH --output_dir FOLDER
    python make_scores.py --kind complement --scores FOLDER_OF_SEARCH --output_dir FOLDER

magnitude: |weight| of the pre-trained encoder, or of a fine-tuned checkpoint (--finetuned).
wanda: |weight| times the norm of its input over some training rows, ranked within each row of a
matrix; of a fine-tuned checkpoint, or of the pre-trained encoder on the texts of a --task_name.
taylor: |weight * gradient of the loss| over some training rows, of a fine-tuned checkpoint.
random: noise. random_matched: the scores of another file, permuted within each matrix; at each
sparsity, both tickets keep the same number of weights of each matrix.
complement: the reversed ranking of another file; at sparsity 1 - s, the ticket keeps the weights
that the other ticket removes at sparsity s (except one if both round a half).
--structure: a score per neuron, head or layer: the L2 norm of its weights (magnitude), the first-
order change of the loss without it (taylor), or noise (random).
"""

import dataclasses
import math
from pathlib import Path

from training.settings import (
    DataSettings,
    FolderSettings,
    MatrixSettings,
    ModelSettings,
    StructureSettings,
    TicketSettings,
    check_structure,
    resolve_data_settings,
)
from training.tasks import check_task, resolve_task
from utils import cli
from utils.settings import REQUIRED, Role, changed, names_of, parse, setting

FROM_SCORES = ("random_matched", "complement")  # the other kinds come from an encoder
FROM_ROWS = ("wanda", "taylor")  # and these from training rows as well
OF_FINETUNED = ("magnitude", *FROM_ROWS)
CALIBRATION_ROWS = 128  # Wanda's number of samples


@dataclasses.dataclass(kw_only=True)
class Settings(FolderSettings, MatrixSettings, StructureSettings, DataSettings):
    """Scores."""

    kind: str = setting(
        REQUIRED,
        "kind of scores",
        choices=("magnitude", "random", "wanda", "taylor", "random_matched", "complement"),
    )
    model_name: str | None = changed(ModelSettings, "model_name", None)
    finetuned: str | None = setting(
        None,
        "with --kind magnitude, wanda, taylor: fine-tuned checkpoint whose weights are ranked, or "
        "a run folder, for its checkpoint with the best dev accuracy",
        role=Role.PLACE,
    )
    calibration_rows: int | None = setting(
        None,
        "with --kind wanda, taylor: number of rows, drawn from the training split in equal shares "
        "of the classes",
        cli.positive_int,
        unset=str(CALIBRATION_ROWS),
    )
    scores: str | None = changed(TicketSettings, "scores", None)


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    needed = "scores" if args.kind in FROM_SCORES else "model_name"
    if getattr(args, needed) is None:
        raise cli.UserError(f"--kind {args.kind} needs --{needed}")
    unread = "model_name" if needed == "scores" else "scores"
    if getattr(args, unread) is not None:
        raise cli.UserError(f"--{unread} has no effect with --kind {args.kind}: omit it")
    if needed == "scores" and (args.matrices or args.exclude or args.structure):
        raise cli.UserError(
            f"--kind {args.kind} ranks what --scores does: omit --matrices, --exclude, --structure"
        )
    check_structure(args)
    if args.structure and args.kind == "wanda":
        raise cli.UserError(
            "--kind wanda compares the weights within a row, so it ranks no units: choose "
            "--kind magnitude, taylor or random"
        )
    if args.finetuned and args.kind not in OF_FINETUNED:
        raise cli.UserError(f"--finetuned needs --kind {', '.join(OF_FINETUNED)}")
    if args.kind == "taylor" and not args.finetuned:
        raise cli.UserError("--kind taylor needs --finetuned: a run of finetune.py has the loss")
    if args.kind in FROM_ROWS:
        args.calibration_rows = args.calibration_rows or CALIBRATION_ROWS
        check_task(args)
        return args
    for name in (*names_of(DataSettings, *Role), "calibration_rows"):
        if getattr(args, name) is not None:
            raise cli.UserError(f"--{name} has no effect with --kind {args.kind}: omit it")
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # report wrong arguments before the imports below, which take seconds

import torch
from transformers import PreTrainedModel

from masking import encoders, removal, structures, ticket_files, tickets, unit_tickets
from masking.structures import Units
from masking.tickets import Shapes
from training import checkpoints, importance, models, tokenizers
from training.batching import Encoded, encode
from training.rounds import label_passes_of
from training.rows import sample_balanced
from training.splits import load_splits
from training.tasks import Task
from utils.environment import environment
from utils.files import sha256_of
from utils.runs import Run, read_run, seed_for


def finetuned_checkpoint(args: Settings) -> Path:
    """The checkpoint that --finetuned names, itself or as the best one of a run."""
    folder = Path(args.finetuned)
    return folder / "best" if (folder / "run.json").is_file() else folder


def pretrained_encoder(args: Settings) -> tuple[PreTrainedModel, list[Units], dict]:
    """The model of --model_name, the units of --structure, and what a manifest says of them."""
    model = models.load_pretrained(args.model_name, ("0", "1"), args.seed, None, "eager")
    units: list[Units] = []
    with cli.explain():
        if args.structure:
            units = structures.find_units(model, args.structure)
            removal.check_units(model, units)
            encoders.select(model, structures.covered_kinds(units))
        else:
            encoders.select(model, args.matrices, args.exclude)
        fingerprint = encoders.encoder_fingerprint(model)
    facts: dict = {"encoder": models.encoder_facts(args.model_name, model, fingerprint)}
    if args.structure:
        facts["structure"] = args.structure
    if encoders.selected(model):
        facts["matrices"] = encoders.selected(model)
    return model, units, facts


def finetuned_model(
    args: Settings, pretrained: PreTrainedModel, task: Task | None
) -> PreTrainedModel:
    """The model of --finetuned, with the prunable matrices of the pre-trained encoder."""
    model = checkpoints.load_checkpoint(finetuned_checkpoint(args), task, "eager")
    encoders.mark_not_pretrained(model, encoders.not_pretrained(pretrained))
    encoders.select(model, encoders.selected(pretrained))
    with cli.explain(f"{args.finetuned}: "):
        encoders.check_masks_fit(model, encoders.weight_shapes(pretrained))
    return model


def from_encoder(args: Settings) -> tuple[dict, Shapes, dict]:
    """Scores, weight shapes and manifest facts from an encoder's weights."""
    model, units, facts = pretrained_encoder(args)
    shapes = structures.virtual_shapes(units) or encoders.weight_shapes(model)
    if args.kind == "random":
        noise = torch.Generator().manual_seed(seed_for(args.seed, "random scores"))
        grids = {unit.name: (unit.count, 1) for unit in units} or shapes
        scores = {name: torch.rand(grid, generator=noise) for name, grid in grids.items()}
        return scores, shapes, facts
    facts["of"] = "finetuned" if args.finetuned else "pretrained"
    if args.finetuned:
        model = finetuned_model(args, model, None)
        if (finetuned_checkpoint(args) / "checkpoint.json").is_file():
            # A search counts the fine-tuning that it starts from in the same way.
            checkpoint = checkpoints.checkpoint_facts(finetuned_checkpoint(args))
            facts["label_passes"] = checkpoint["epoch"]
    matrices = encoders.prunable_matrices(model)
    scores = {name: matrix.weight.detach().abs() for name, matrix in matrices.items()}
    if units:  # the L2 norm of all weights of a unit
        squares = unit_tickets.sums_over_units(units, {n: s.square() for n, s in scores.items()})
        scores = {name: s.sqrt() for name, s in squares.items()}
    return scores, shapes, facts


def read_stage_1(args: Settings) -> dict:
    """Facts of --finetuned's checkpoint, {} without; takes over that run's data settings."""
    run, facts = None, {}
    if args.finetuned:
        checkpoint = finetuned_checkpoint(args)
        run = read_run(checkpoint.parent)
        if run is not None and run["status"] != "finished":
            raise cli.UserError(
                f"the run in {checkpoint.parent} is not finished: run the same command again"
            )
        facts = checkpoints.checkpoint_facts(checkpoint)
        if facts["stage"] != "finetune":
            raise cli.UserError(f"--finetuned {args.finetuned} is not a run of finetune.py")
    resolve_data_settings(args, (run or {}).get("args"))
    length = facts.get("max_seq_length") or resolve_task(args).max_seq_length
    args.max_seq_length = args.max_seq_length or length
    return facts


def from_rows(args: Settings, stage_1: dict) -> tuple[dict, Shapes, dict]:
    """Scores, weight shapes and manifest facts from a model and some training rows.

    `stage_1`: facts of the fine-tuned checkpoint, {} for the pre-trained encoder.
    """
    task = resolve_task(args)
    splits = load_splits(args, task, ("train", "dev"))
    if args.calibration_rows > len(splits["train"]):
        raise cli.UserError(
            f"--calibration_rows {args.calibration_rows}: the training split has only "
            f"{len(splits['train'])} rows"
        )
    rows = sample_balanced(
        splits["train"], args.calibration_rows, seed_for(args.seed, "calibration rows")
    )
    model, units, facts = pretrained_encoder(args)
    shapes = structures.virtual_shapes(units) or encoders.weight_shapes(model)
    folder = args.model_name
    if args.finetuned:
        check_start(args, model, stage_1["encoder"])
        folder = str(finetuned_checkpoint(args))
        model = finetuned_model(args, model, splits.task)
    tokenizer = tokenizers.load_tokenizer(folder)
    models.check_length(model, args.max_seq_length)
    tokenizers.fit_tokenizer(model, tokenizer)
    encoded = encode(rows, tokenizer, args.max_seq_length)
    scores = scores_of_rows(args.kind, model, encoded, units)
    facts |= {
        "task": splits.task.name,
        "of": "finetuned" if args.finetuned else "pretrained",
        "recipe": {"calibration_rows": args.calibration_rows},
        "calibration": {"fingerprint": rows.fingerprint, "source": rows.source},
        # Labels that Taylor reads of some rows count as a pass over all rows: passes are whole.
        "label_passes": stage_1.get("epoch", 0) + (args.kind == "taylor"),
    }
    return scores, shapes, facts


def check_start(args: Settings, pretrained: PreTrainedModel, encoder: dict) -> None:
    """UserError unless --finetuned started from --model_name."""
    # Earlier versions' fingerprints include a pooler that the encoder's checkpoint does not hold.
    known = {encoders.encoder_fingerprint(pretrained, fresh) for fresh in (False, True)}
    if encoder["fingerprint"] not in known:
        raise cli.UserError(
            f"--finetuned {args.finetuned} was fine-tuned from {encoder['name']} "
            f"({encoder['fingerprint']}), but --model_name {args.model_name} is another encoder: "
            "give the one that stage 1 started from"
        )


def scores_of_rows(kind: str, model: PreTrainedModel, encoded: Encoded, units: list[Units]) -> dict:
    """Name -> scores: float, (out, in) or (units, 1). UserError if all are 0 (no gradient)."""
    with cli.explain(f"--kind {kind}: "):
        if kind == "wanda":
            values = importance.weights_times_inputs(model, encoded)
        else:
            signed, of_biases = importance.weights_and_biases_times_gradients(model, encoded)
            if units:  # the change of the loss without the whole unit
                signed = unit_tickets.sums_over_units(units, signed, of_biases)
            values = {name: value.abs() for name, value in signed.items()}
    total = sum(float(value.double().sum()) for value in values.values())
    if not 0 < total < math.inf:
        raise cli.UserError(
            f"--kind {kind}: the scores add up to {total:g}, so these rows rank no weights; raise "
            "--calibration_rows, or take another checkpoint"
        )
    return tickets.quantiles_in_rows(values) if kind == "wanda" else values


def from_scores(args: Settings) -> tuple[dict, Shapes, dict]:
    """Scores of another file, permuted within each matrix, or with the reversed ranking."""
    path = ticket_files.score_file(args.scores)
    with cli.explain():
        scores, shapes, manifest = ticket_files.load_scores(path)
        ticket_files.check_origin(manifest, path)
    if args.kind == "complement":
        scores = tickets.reversed_ranking(scores)
        facts = _facts(manifest, path, "complement_of")
        if "up_to_sparsity" in manifest:  # IMP ranks weights from this sparsity on
            facts["from_sparsity"] = 1 - manifest["up_to_sparsity"]
        if passes := label_passes_of(manifest):  # IMP's order needs all of its rounds
            facts["label_passes"] = passes
        return scores, shapes, facts
    noise = torch.Generator().manual_seed(seed_for(args.seed, "random matched scores"))
    for name, s in scores.items():
        order = torch.randperm(s.numel(), generator=noise)
        scores[name] = s.flatten()[order].reshape(s.shape)
    facts = _facts(manifest, path, "matched_to")
    if "up_to_sparsity" in manifest:
        facts["up_to_sparsity"] = manifest["up_to_sparsity"]
    return scores, shapes, facts


def _facts(manifest: dict, path: Path, relation: str) -> dict:
    return {
        **{key: manifest[key] for key in ("encoder", "matrices", "structure") if key in manifest},
        relation: manifest["kind"],
        f"{relation}_sha256": sha256_of(path),
    }


def kind_of(args: Settings) -> str:
    """The kind in the manifest: one name for each way to make scores."""
    if args.kind == "magnitude" and args.finetuned:
        return "magnitude_finetuned"
    return "wanda_pretrained" if args.kind == "wanda" and not args.finetuned else args.kind


def main() -> None:
    args = parse_args()
    stage_1 = read_stage_1(args) if args.kind in FROM_ROWS else {}
    run = Run(args.output_dir, "scores", args)
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return
    if args.kind in FROM_ROWS:
        scores, shapes, facts = from_rows(args, stage_1)
    else:
        scores, shapes, facts = (from_scores if args.kind in FROM_SCORES else from_encoder)(args)
    manifest = {
        "kind": kind_of(args),
        "seed": args.seed,
        "task": None,
        "environment": environment(),
        **facts,
    }
    run.begin({"task": manifest["task"], "encoder": facts["encoder"]})
    ticket_files.save_scores(run.folder / "scores.safetensors", scores, shapes, manifest)
    run.finish({"scores": "scores.safetensors"}, [])
    what = ", ".join(args.structure) if args.structure else f"{len(scores)} matrices"
    print(f"{args.kind} scores of {what} in {run.folder}")


if __name__ == "__main__":
    cli.run(main)
