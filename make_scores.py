"""Write the score file of a ticket that needs no search: magnitude, random or a complement.

    python make_scores.py --kind magnitude --model_name bert-base-uncased --output_dir FOLDER
    python make_scores.py --kind random --model_name bert-base-uncased --output_dir FOLDER
    python make_scores.py --kind random_matched --scores FOLDER_OF_SEARCH --output_dir FOLDER
    python make_scores.py --kind complement --scores FOLDER_OF_SEARCH --output_dir FOLDER

magnitude: |weight| of the pre-trained encoder, or of a fine-tuned checkpoint (--finetuned).
random: noise. random_matched: the scores of another file, permuted within each matrix; at each
sparsity, both tickets keep the same number of weights of each matrix.
complement: the reversed ranking of another file; at sparsity 1 - s, the ticket keeps the weights
that the other ticket removes at sparsity s (except one if both round a half).
"""

import dataclasses

from training.settings import FolderSettings, MatrixSettings, ModelSettings, TicketSettings
from utils import cli
from utils.settings import REQUIRED, Role, changed, parse, setting

FROM_SCORES = ("random_matched", "complement")  # the other kinds come from an encoder


@dataclasses.dataclass(kw_only=True)
class Settings(FolderSettings, MatrixSettings):
    """Scores."""

    kind: str = setting(
        REQUIRED,
        "kind of scores",
        choices=("magnitude", "random", "random_matched", "complement"),
    )
    model_name: str | None = changed(ModelSettings, "model_name", None)
    finetuned: str | None = setting(
        None,
        "with --kind magnitude: fine-tuned checkpoint whose weights are ranked",
        role=Role.PLACE,
    )
    scores: str | None = changed(TicketSettings, "scores", None)


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    needed = "scores" if args.kind in FROM_SCORES else "model_name"
    if getattr(args, needed) is None:
        raise cli.UserError(f"--kind {args.kind} needs --{needed}")
    unread = "model_name" if needed == "scores" else "scores"
    if getattr(args, unread) is not None:
        raise cli.UserError(f"--{unread} is not read by --kind {args.kind}: omit it")
    if needed == "scores" and (args.matrices or args.exclude):
        raise cli.UserError(
            f"--kind {args.kind} ranks what --scores does: omit --matrices, --exclude"
        )
    if args.finetuned and args.kind != "magnitude":
        raise cli.UserError("--finetuned needs --kind magnitude")
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # report wrong arguments before the imports below, which take seconds

from pathlib import Path

import torch

from masking import encoders, ticket_files, tickets
from training import checkpoints, models
from training.settings import recipe_in
from utils.environment import environment
from utils.files import sha256_of
from utils.runs import Run, seed_for


def from_encoder(args) -> tuple[dict, dict, dict]:
    """Scores, weight shapes and manifest facts from an encoder's weights."""
    model = models.load_pretrained(args.model_name, ("0", "1"), args.seed, None, "eager")
    with cli.explain():
        encoders.select(model, args.matrices, args.exclude)
        shapes = encoders.weight_shapes(model)
        fingerprint = encoders.encoder_fingerprint(model)
    facts: dict = {"encoder": models.encoder_facts(args.model_name, model, fingerprint)}
    if encoders.selected(model):
        facts["matrices"] = encoders.selected(model)
    if args.kind == "random":
        noise = torch.Generator().manual_seed(seed_for(args.seed, "random scores"))
        scores = {name: torch.rand(shape, generator=noise) for name, shape in shapes.items()}
        return scores, shapes, facts
    if args.finetuned:
        fresh, kinds = encoders.not_pretrained(model), encoders.selected(model)
        model = checkpoints.load_checkpoint(args.finetuned, None, "eager")
        encoders.mark_not_pretrained(model, fresh)
        encoders.select(model, kinds)
        with cli.explain(f"{args.finetuned}: "):
            encoders.check_masks_fit(model, shapes)
    matrices = encoders.prunable_matrices(model)
    scores = {name: matrix.weight.detach().abs() for name, matrix in matrices.items()}
    facts["of"] = "finetuned" if args.finetuned else "pretrained"
    if args.finetuned and (Path(args.finetuned) / "checkpoint.json").is_file():
        # A search counts the fine-tuning that it starts from in the same way.
        facts["label_passes"] = checkpoints.checkpoint_facts(Path(args.finetuned))["epoch"]
    return scores, shapes, facts


def from_scores(args) -> tuple[dict, dict, dict]:
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
        if "label_passes" in manifest:
            facts["label_passes"] = manifest["label_passes"]
        elif "sparsity_after_round" in manifest:  # IMP's order needs all of its rounds
            rounds = len(manifest["sparsity_after_round"])
            facts["label_passes"] = rounds * recipe_in(manifest)["epochs"]
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
        **{key: manifest[key] for key in ("encoder", "matrices") if key in manifest},
        relation: manifest["kind"],
        f"{relation}_sha256": sha256_of(path),
    }


def main() -> None:
    args = parse_args()
    run = Run(args.output_dir, "scores", args)
    if run.finished:
        print(f"{run.folder} is finished; nothing to do")
        return
    source = from_scores if args.kind in FROM_SCORES else from_encoder
    scores, shapes, facts = source(args)
    kind = "magnitude_finetuned" if args.finetuned else args.kind
    manifest = {
        "kind": kind,
        "seed": args.seed,
        "task": None,
        "environment": environment(),
        **facts,
    }
    run.begin({"task": None, "encoder": facts["encoder"]})
    ticket_files.save_scores(run.folder / "scores.safetensors", scores, shapes, manifest)
    run.finish({"scores": "scores.safetensors"}, [])
    print(f"{args.kind} scores of {len(scores)} matrices in {run.folder}")


if __name__ == "__main__":
    cli.run(main)
