"""Export a finished run as a folder to ship: a checkpoint or an ONNX file, with a model card.

    python export.py RUN --to safetensors --output_dir FOLDER
    python export.py RUN --to onnx-int8 --output_dir FOLDER

Loads the export again and compares its logits with the checkpoint's on 64 rows of the run's data
before the folder appears. ONNX needs: pip install -r requirements-export.txt
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.exports import FACTS, FORMATS, MODEL
from evaluation.settings import AttackSettings
from training.settings import DataSettings, FolderSettings
from utils import cli, interrupts
from utils.settings import REQUIRED, Role, changed, parse, setting

ROWS = 64  # that are compared
# Largest difference between a logit of an fp32 export and the checkpoint's, as a share of the
# largest logit (or of 1, if that is larger): kernels add in other orders.
TOLERANCE = 1e-4


@dataclass(kw_only=True)
class Settings(DataSettings):
    """Export."""

    run: str = setting(
        REQUIRED,
        "run folder of finetune.py or retrain_ticket.py, or a checkpoint folder",
        role=Role.PLACE,
        metavar="RUN",
        positional=True,
    )
    to: str = setting(
        REQUIRED,
        "format: a checkpoint for transformers, ONNX in fp32, or ONNX with int8 weights",
        choices=FORMATS,
        role=Role.OUTPUT,
    )
    output_dir: str = changed(FolderSettings, "output_dir", REQUIRED)
    overwrite: bool = changed(FolderSettings, "overwrite", False)
    checkpoint: str = changed(AttackSettings, "checkpoint", "last", choices=("last", "best"))
    push_to_hub: str | None = setting(
        None,
        "also upload the folder to this repository of the hub, OWNER/NAME, with the login of the "
        "hub's client (hf auth login)",
        role=Role.OUTPUT,
    )


def parse_args(argv: list[str] | None = None) -> Settings:
    args = parse(Settings, __doc__.split("\n")[0], argv)
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise cli.UserError(f"{folder} is a file; choose another --output_dir")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / FACTS).is_file():  # also with --overwrite
            raise cli.UserError(
                f"{folder} is not empty and holds no export; choose another --output_dir"
            )
        if not args.overwrite:
            raise cli.UserError(
                f"{folder} holds an export; choose another --output_dir, or pass --overwrite"
            )
        run = Path(args.run).resolve()
        if folder.resolve() in (run, *run.parents):
            raise cli.UserError(
                f"{run} lies in the --output_dir, which --overwrite would empty; choose another "
                "--output_dir"
            )
    return args


if __name__ == "__main__":
    cli.run(parse_args)  # answer wrong arguments before the imports below, which take seconds

import numpy as np
import torch
from transformers import PreTrainedModel

from evaluation import checkpoints
from evaluation.checkpoints import Target
from evaluation.exports import Comparison, Export
from masking import encoders, removal, structures, surgery, ticket_files
from masking.parts import layers_of
from masking.tickets import Masks, shapes_of
from reporting import model_card
from training import models, onnx_models
from training.batching import Encoded, collate, encode
from training.checkpoints import load_checkpoint, write_checkpoint
from training.prediction import inputs_of
from training.splits import load_splits
from utils.environment import environment
from utils.files import sha256_of, write_json

Batch = dict[str, np.ndarray]
Classifier = Callable[[Batch], np.ndarray]


def find_target(args: Settings) -> Target:
    """The checkpoint to export. Raises UserError if its run is not finished."""
    [target] = checkpoints.find_targets(args.run, args.checkpoint, None)
    if target.runtime is not None:
        raise cli.UserError(
            f"{args.run} is an ONNX export; give the run that it was made from, or its export to "
            "safetensors"
        )
    if target.run is not None and target.run.get("status") != "finished":
        raise cli.UserError(f"the run in {target.home} is not finished: run the same command again")
    return target


def compared_batches(args: Settings, target: Target, tokenizer) -> list[Batch]:
    """Up to 64 dev and test rows of the run's data: in padded batches, and some alone."""
    task = checkpoints.task_of(args, target)
    splits = load_splits(args, task, ("dev", "test"))
    length = args.max_seq_length or target.facts.get("max_seq_length") or task.max_seq_length
    batches: list[Batch] = []
    left = ROWS
    for name in ("dev", "test"):
        rows = splits[name].take(list(range(min(left, len(splits[name])))))
        left -= len(rows)
        if len(rows):
            batches += batches_of(encode(rows, tokenizer, length))
    return batches


def batches_of(encoded: Encoded) -> list[Batch]:
    """Batches of 15 rows, in the order of the rows, and every 16th row alone."""
    alone = range(0, len(encoded), 16)
    groups = [[i, *range(i + 1, min(i + 16, len(encoded)))] for i in alone]
    groups = [part for i, *others in groups for part in ([i], others) if part]
    return [inputs_of(collate(encoded, group)) for group in groups]


def without_removed_units(target: Target, model) -> tuple[PreTrainedModel, dict]:
    """A model without the neurons, heads and layers that a structured ticket removes, and the facts
    of its checkpoint, which then say so. The model itself where nothing is left to remove.

    Raises UserError without the run's own ticket, if it is needed.
    """
    path, ticket = target.home / "ticket.safetensors", target.facts.get("ticket") or {}
    if not ticket.get("structure"):
        return model, target.facts
    # What the ticket removes is zero, unless it is gone already, or starts from noise.
    earlier = target.facts.get("removed", {})
    is_gone = "neurons_per_layer" in earlier or "heads_per_layer" in earlier
    has_zeros = not is_gone and ticket.get("reinitialised") != "rest"
    if not path.is_file():
        if has_zeros:
            raise cli.UserError(
                f"{path} is missing, which says what units the ticket removes: copy it back"
            )
        return model, target.facts
    with cli.explain():
        masks, manifest = ticket_files.load_ticket(path)
        structure = manifest["source"]["structure"]
        if "layers" in earlier:
            masks = masks_after_layers(masks)
        is_smaller = shapes_of(masks) != encoders.weight_shapes(model)
        if is_smaller or surgery.count_unpruned(model, masks):
            if has_zeros:
                raise ValueError(f"{path} is not the ticket of this run: copy that one back")
            return model, target.facts
        inside_layers = [name for name in structure if name != "layers"]
        if not inside_layers:
            return model, target.facts
        smaller, removed = removal.without_units(
            model, structures.find_units(model, inside_layers), masks
        )
    return smaller, target.facts | {"removed": earlier | removed}


def masks_after_layers(masks: Masks) -> Masks:
    """The masks of the layers that are left, under the names that these have without the others."""
    layers = layers_of(masks)
    left = sorted({layers[name] for name, mask in masks.items() if layers[name] and mask.any()})
    renamed = {}
    for name, mask in masks.items():
        if layers[name] is None:
            renamed[name] = mask
        elif layers[name] in left:
            names = [n for n in masks if layers[n] == left.index(layers[name]) + 1]
            same = [n for n in masks if layers[n] == layers[name]]
            renamed[names[same.index(name)]] = mask
    return renamed


def logits_of(model) -> Classifier:
    """The model as a function from a batch to its logits."""

    @torch.inference_mode()
    def run(batch: Batch) -> np.ndarray:
        return model(**{name: torch.from_numpy(v) for name, v in batch.items()}).logits.numpy()

    return run


def write(args: Settings, model, tokenizer, facts: dict, batches: list[Batch], folder: Path):
    """Write the export's files to a folder. Returns the loaded export."""
    if args.to == "safetensors":
        write_checkpoint(folder, model, tokenizer, facts)
        return logits_of(load_checkpoint(folder, None, "sdpa").eval())
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    example = max(batches, key=lambda batch: batch["input_ids"].size)
    example = {name: torch.from_numpy(values) for name, values in example.items()}
    if args.to == "onnx":
        onnx_models.write_onnx(model, example, folder / MODEL)
    else:
        scratch = folder / "fp32"
        scratch.mkdir()
        onnx_models.write_onnx(model, example, scratch / MODEL)
        onnx_models.quantize(scratch / MODEL, folder / MODEL)
        shutil.rmtree(scratch)
    return onnx_models.load_onnx(folder / MODEL, threads=1)


def compare(original: Classifier, exported: Classifier, batches: list[Batch], is_exact: bool):
    """Compare the logits. Raises UserError if they are not finite or, with `is_exact`, differ."""
    before = np.concatenate([original(batch) for batch in batches])
    after = np.concatenate([exported(batch) for batch in batches])
    if not np.isfinite(before).all():
        raise cli.UserError("the checkpoint's logits are not finite; train it again")
    if not np.isfinite(after).all():
        raise cli.UserError("the logits of the export are not finite; choose another --to")
    largest = float(np.abs(before).max())
    comparison = Comparison(
        rows=len(before),
        largest_difference=float(np.abs(before - after).max()),
        largest_logit=largest,
        tolerance=TOLERANCE * max(1.0, largest) if is_exact else None,
        equal_predictions_percent=100 * float((before.argmax(1) == after.argmax(1)).mean()),
    )
    if comparison.tolerance is not None and comparison.largest_difference > comparison.tolerance:
        raise cli.UserError(
            f"the export differs from the checkpoint: logits by up to "
            f"{comparison.largest_difference:.1e}, allowed are {comparison.tolerance:.1e}; choose "
            "another --to, and report it"
        )
    return comparison


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of `folder` at the end, and is removed if anything fails."""
    new, old = (folder.with_name(f".{folder.name}.{word}-export") for word in ("new", "old"))
    for leftover in (new, old):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def describe(
    args: Settings, target: Target, facts: dict, model, comparison: Comparison, folder: Path
) -> Export:
    """What the card and export.json say. `folder`: of the files whose checksums they hold."""
    matrices = encoders.prunable_matrices(model, of_all_kinds=True).values()
    zeros = sum(int((m.weight == 0).sum()) for m in matrices)
    return Export(
        name=args.push_to_hub or Path(args.output_dir).resolve().name,
        format=args.to,
        architecture=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        zero_percent=100 * zeros / sum(m.weight.numel() for m in matrices),
        label_names=[str(model.config.id2label[i]) for i in range(model.config.num_labels)],
        checkpoint=target.name,
        checkpoint_sha256=checkpoints.weights_digest(target),
        facts=facts,
        compared=comparison,
        environment=environment(),
        sha256={path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    )


def check_login(name: str) -> None:
    """Raise UserError if the name is wrong or the hub's client has no login."""
    import huggingface_hub

    try:
        huggingface_hub.utils.validate_repo_id(name)
    except ValueError as e:
        raise cli.UserError(f"--push_to_hub: {e}") from e
    if huggingface_hub.get_token() is None:
        raise cli.UserError("--push_to_hub: the hub's client has no login; run: hf auth login")


def push(folder: Path, name: str) -> None:
    """Upload the folder with the login of the hub's client."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        repository = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder)
    except (OSError, ValueError) as e:  # of the hub, of the connection
        reason = " ".join(str(e).split())[:200]
        raise cli.UserError(
            f"{folder} is complete, but the upload failed ({reason}); run: hf upload {name} "
            f"{folder}"
        ) from e
    print(f"uploaded to {repository}")


def main() -> None:
    args = parse_args()
    interrupts.raise_on_signals(interrupts.NOTHING_SAVED)
    if args.push_to_hub is not None:
        check_login(args.push_to_hub)
    if args.to != "safetensors":
        onnx_models.check_installed()
    target = find_target(args)
    model, tokenizer = checkpoints.load_classifier(target)
    models.check_length(model, args.max_seq_length or 8)
    batches = compared_batches(args, target, tokenizer)
    smaller, facts = without_removed_units(target, model)
    folder = Path(args.output_dir)
    with new_folder(folder) as place:
        exported = write(args, smaller, tokenizer, facts, batches, place)
        comparison = compare(logits_of(model), exported, batches, is_exact=args.to != "onnx-int8")
        ticket = target.home / "ticket.safetensors"
        if target.facts.get("ticket") and ticket.is_file():
            shutil.copyfile(ticket, place / ticket.name)
        export = describe(args, target, facts, smaller, comparison, place)
        write_json(place / FACTS, asdict(export))
        (place / "README.md").write_text(model_card.card(export, target.home), encoding="utf-8")
    if removed := facts.get("removed"):
        print(f"removed units of the ticket: the export has {model_card.in_words(removed)}")
    print(f"{folder}: {comparison.in_words()}")
    if args.push_to_hub is not None:
        push(folder, args.push_to_hub)


if __name__ == "__main__":
    cli.run(main)
