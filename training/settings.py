"""Settings that several scripts share. Without torch: flags are checked before its import."""

import dataclasses
from typing import Any

from training.deviations import TRAINING, Deviations, apply_deviations
from training.methods import MethodSettings, apply_method
from utils import cli
from utils.cli import UserError
from utils.settings import REQUIRED, Role, names_of, setting

DEFAULT_SPLIT_SEED = 42


@dataclasses.dataclass(kw_only=True)
class DataSettings:
    """Data."""

    dataset_name: str | None = setting(
        None,
        "glue, imdb, ag_news, builtin/NAME or custom; any other classification data set: an id "
        "OWNER/NAME of the hub, or a local folder",
        role=Role.DATA,
    )
    dataset_config: str | None = setting(
        None,
        "configuration of a data set that has several (also OWNER/NAME:CONFIG)",
        role=Role.DATA,
    )
    task_name: str | None = setting(
        None, "sst2, qnli, qqp, mnli, or the same as --dataset_name", role=Role.DATA
    )
    data_dir: str | None = setting(
        None,
        "local folder with files {train,dev,test}*.{tsv,csv,jsonl,parquet}[.gz], read in place of "
        "the hub",
        role=Role.DATA_PLACE,
    )
    train_file: str | None = setting(
        None, "local training file (tsv, csv, jsonl or parquet, also .gz)", role=Role.DATA_PLACE
    )
    validation_file: str | None = setting(
        None, "local dev file (default: 10 %% of the training rows)", role=Role.DATA_PLACE
    )
    test_file: str | None = setting(None, "local test file", role=Role.DATA_PLACE)
    text_columns: str | None = setting(
        None,
        "names of one or two text columns in local files or any data set, with a comma, or as a "
        "JSON list",
        role=Role.DATA,
    )
    label_column: str | None = setting(
        None, "name of the label column in local files or any data set", role=Role.DATA
    )
    train_split: str | None = setting(
        None, "training split of any data set", role=Role.DATA, unset="train"
    )
    test_split: str | None = setting(
        None, "split of any data set that is the test", role=Role.DATA, unset="test or validation"
    )
    split_seed: int | None = setting(
        None,
        "seed of the train/dev split and of the choice of rows",
        cli.non_negative_int,
        role=Role.DATA,
        unset=f"the earlier stage's, else {DEFAULT_SPLIT_SEED}",
    )
    max_seq_length: int | None = setting(
        None,
        "maximum number of tokens of a text (default: the earlier stage's, else the task's)",
        cli.positive_int,
        role=Role.DATA,
    )
    max_train_rows: int | None = setting(
        None,
        "maximum number of training rows, drawn in equal shares of the classes",
        cli.positive_int,
        role=Role.DATA,
    )
    max_eval_rows: int | None = setting(
        None, "maximum number of rows of dev and of test", cli.positive_int, role=Role.DATA
    )


def data_settings_in(arguments: dict[str, Any]) -> DataSettings:
    """The data settings among the arguments in a run.json."""
    names = names_of(DataSettings, Role.DATA, Role.DATA_PLACE)
    settings = DataSettings(**{name: arguments.get(name) for name in names})
    resolve_data_settings(settings)
    return settings


def resolve_data_settings(settings: DataSettings, earlier: dict[str, Any] | None = None) -> None:
    """Fill in the data settings that the command line does not give.

    `earlier`: the arguments in the run.json of an earlier stage, which are taken over where the
    command line names no task.
    """
    if earlier and settings.task_name is None and settings.dataset_name is None:
        for name in names_of(DataSettings, Role.DATA, Role.DATA_PLACE):
            if getattr(settings, name) is None:
                setattr(settings, name, earlier.get(name))
    if settings.split_seed is None:
        settings.split_seed = DEFAULT_SPLIT_SEED


@dataclasses.dataclass(kw_only=True)
class ModelSettings:
    """Model."""

    model_name: str = setting(
        REQUIRED,
        "model to start from: a pre-trained encoder (hub name, local folder or builtin/minilm); "
        "for the search the run folder of stage 1; for an attack a run or checkpoint folder",
        role=Role.PLACE,
    )


@dataclasses.dataclass(kw_only=True)
class TicketSettings:
    """Ticket."""

    scores: str = setting(
        REQUIRED, "score file, or folder that holds scores.safetensors", role=Role.PLACE
    )
    sparsity: float = setting(
        REQUIRED,
        "fraction of the prunable weights that the ticket removes; a search logs the dev accuracy "
        "of this ticket, and its scores serve every sparsity",
        cli.sparsity,
        role=Role.TICKET,
    )


@dataclasses.dataclass(kw_only=True)
class MatrixSettings:
    """Prunable matrices."""

    matrices: list[str] | None = setting(
        None,
        "kinds of the matrices that are gated or pruned, such as query,value; sparsity is a "
        "fraction of their weights",
        cli.word_list,
        role=Role.TICKET,
        unset="all, as in the paper",
    )
    exclude: list[str] | None = setting(
        None,
        "kinds of the matrices that are neither gated nor pruned, such as pooler",
        cli.word_list,
        role=Role.TICKET,
    )


@dataclasses.dataclass(kw_only=True)
class StructureSettings:
    """Structure."""

    structure: list[str] | None = setting(
        None,
        "what a gate or a score covers, and what is removed whole: weights, or one or more of "
        "ffn_neurons,heads,layers",
        cli.word_list,
        role=Role.TICKET,
        unset="weights, as in the paper",
    )


def check_structure(settings: Any) -> None:
    """Make "weights" the same as no structure. UserError for settings that it does not go with."""
    if settings.structure == ["weights"]:
        settings.structure = None
    if not settings.structure:
        return
    if len(set(settings.structure)) < len(settings.structure):
        raise UserError(f"--structure {','.join(settings.structure)} names one of them twice")
    if "weights" in settings.structure:
        raise UserError("--structure weights cannot be combined with other structures")
    if settings.matrices or settings.exclude:
        raise UserError(
            "--matrices and --exclude have no effect with --structure, which decides what is "
            "prunable: omit them"
        )


@dataclasses.dataclass(kw_only=True)
class FolderSettings:
    """Folder and seed."""

    output_dir: str = setting(
        REQUIRED,
        "folder for the results",
        role=Role.OUTPUT,
    )
    overwrite: bool = setting(
        False,
        "discard an earlier run or export in --output_dir; without this flag a run resumes, a "
        "finished one stays, and an export is refused",
        role=Role.OUTPUT,
    )
    seed: int = setting(
        42,
        "seed of all random draws but the data split (--split_seed)",
        cli.non_negative_int,
        role=Role.SEED,
    )


@dataclasses.dataclass(kw_only=True)
class DeviceSettings:
    """Device."""

    device: str = setting(
        "auto",
        "device; auto takes CUDA where it is available",
        choices=("auto", "cpu", "cuda"),
        role=Role.COMPUTE,
    )


@dataclasses.dataclass(kw_only=True)
class SessionSettings:
    """Session."""

    quiet: bool = setting(False, "show no progress", role=Role.OUTPUT)
    time_budget: float | None = setting(
        None,
        "save and stop after this time, such as 45m or 8h; the same command resumes",
        cli.duration,
        role=Role.OUTPUT,
    )


@dataclasses.dataclass(kw_only=True)
class RunSettings(FolderSettings, SessionSettings, DeviceSettings):
    """Run."""

    precision: str = setting(
        "auto",
        "fp32 or bf16 autocast; training also has auto, bf16 where the hardware computes in it",
        choices=("auto", "fp32", "bf16"),
        role=Role.COMPUTE,
    )
    attn_implementation: str = setting(
        "sdpa", "attention kernels", choices=("sdpa", "eager"), role=Role.COMPUTE
    )
    group_by_length: bool = setting(
        True, "put texts of similar length into one batch, which saves padding"
    )
    deterministic: bool | None = setting(
        None, "use kernels that give the same bytes each time (default: on a CPU only)"
    )
    checkpoint_every: tuple[str, float] = setting(
        ("minutes", 10.0),
        "time between resume points: optimizer steps such as 500, or minutes such as 10m; 0 saves "
        "at the end of each epoch (default: 10m)",
        cli.save_interval,
        role=Role.OUTPUT,
    )
    tensorboard: bool = setting(
        False, "also write the numbers of log.jsonl for TensorBoard", role=Role.OUTPUT
    )
    micro_bsz: int | None = setting(
        None,
        "rows per forward and backward pass, whose gradients are added up (default: the whole "
        "batch)",
        cli.positive_int,
        role=Role.OUTPUT,
    )
    checkpoint_activations: bool = setting(
        False,
        "keep one activation per layer and recompute the others in the backward pass, which saves "
        "memory",
        role=Role.OUTPUT,
    )


@dataclasses.dataclass(kw_only=True)
class TrainingSettings:
    """Training (the paper's Table 5)."""

    epochs: int = setting(
        3, "passes over the training rows (of each round, in iterative pruning)", cli.positive_int
    )
    bsz: int = setting(32, "rows per optimizer step", cli.positive_int)
    lr: float = setting(2e-5, "peak learning rate", cli.positive_float)
    weight_decay: float = setting(
        1e-2, "AdamW's weight decay; none on biases and LayerNorm weights", cli.non_negative_float
    )
    warmup_ratio: float = setting(
        0.1, "share of the steps in which the learning rate rises", cli.fraction
    )
    dropout: float | None = setting(
        None, "every dropout probability (default: the encoder's own)", cli.fraction
    )


@dataclasses.dataclass(kw_only=True)
class KeepSettings:
    """Checkpoints."""

    keep_epochs: list[int] = setting(
        [],
        "epochs whose checkpoints are kept as well, such as 1,2,3 (see attack.py --attack_epochs)",
        cli.epoch_list,
        role=Role.KEEP,
    )


@dataclasses.dataclass(kw_only=True)
class WeightSettings(DataSettings, RunSettings, TrainingSettings, Deviations, MethodSettings):
    """Settings of everything that trains all weights: stages 1 and 3, iterative pruning."""


@dataclasses.dataclass(kw_only=True)
class StageSettings(ModelSettings, WeightSettings, KeepSettings):
    """Settings of stages 1 and 3."""


def complete(settings: WeightSettings) -> None:
    """Fill in what --deviations and --method decide."""
    apply_deviations(settings, TRAINING)
    apply_method(settings)


def check_kept_epochs(settings: StageSettings) -> None:
    """UserError where an epoch is to be kept that the run does not reach."""
    if settings.keep_epochs and max(settings.keep_epochs) > settings.epochs:
        raise UserError(
            f"--keep_epochs {max(settings.keep_epochs)} is beyond --epochs {settings.epochs}: name "
            "epochs that the run reaches"
        )


def recipe_in(manifest: dict[str, Any]) -> dict[str, Any]:
    """How scores or weights came out, from a run.json or the manifest of a score file.

    Earlier versions keep no recipe but all arguments, the switches under other names.
    """
    if "recipe" in manifest:
        return manifest["recipe"]
    arguments = manifest.get("settings", manifest.get("args", {}))
    shared = (DataSettings, RunSettings, KeepSettings, ModelSettings, TicketSettings)
    others = {n for group in shared for n in names_of(group, *set(Role) - {Role.RECIPE})}
    others |= {"keep_scores", "compile", "stop_at_loss"}
    recipe = {k: v for k, v in arguments.items() if k not in others}
    if "protocol" in recipe:
        recipe["deviations"] = recipe.pop("protocol")
    if "lambda_clock" in recipe:  # D17 had no switch of its own
        released = recipe.get("deviations") == "released"
        recipe.setdefault("schedule_length", "examples" if released else "steps")
    return recipe
