"""Settings of attacks, shared by scripts. Without torch: flags are checked before its import."""

from dataclasses import dataclass
from functools import partial

from evaluation import presets
from training.settings import (
    DataSettings,
    DeviceSettings,
    FolderSettings,
    ModelSettings,
    RunSettings,
    SessionSettings,
)
from utils import cli
from utils.settings import REQUIRED, Role, changed, names_of, setting

_measure = partial(setting, role=Role.MEASURE)


@dataclass(kw_only=True)
class AttackSettings:
    """Attack."""

    recipe: str = _measure(REQUIRED, "attack recipe", choices=tuple(presets.RECIPES))
    preset: str = _measure(
        "balanced",
        "defaults of --row_choice, --score_with and --max_seq_length: balanced classes; the "
        "paper's text; the released code; or the rows that all compared models classify correctly",
        choices=tuple(presets.PRESETS),
    )
    checkpoint: str = _measure(
        "last",
        "checkpoint of a run: of the last epoch, or with the best dev accuracy",
        choices=("last", "best", "both"),
    )
    attack_epochs: list | None = _measure(
        None,
        "epochs of a run to attack instead of --checkpoint, such as 1,3 (see --keep_epochs)",
        cli.epoch_list,
    )
    split: str = _measure(
        "test",
        "split of the attacked rows; dev is for selecting epochs and sparsities",
        choices=("test", "dev"),
    )
    num_examples: int | None = _measure(
        None,
        "number of attacked rows",
        cli.positive_int,
        unset="the paper's number for the task, or 1000",
    )
    row_choice: str | None = _measure(
        None,
        "choice of rows: the same number per class; random; the first of the file; or balanced "
        "among those that all models of --compared_with classify correctly",
        choices=("balanced", "random", "first", "intersection"),
        unset="the preset's",
    )
    new_rows_after: int | None = _measure(
        None,
        "exclude the rows that an attack with this number as --num_examples would choose",
        cli.positive_int,
    )
    compared_with: list = _measure(
        [],
        "run or checkpoint folders for --row_choice intersection; give each model the same list",
        nargs="+",
    )
    seed: int = changed(FolderSettings, "seed", 42, Role.MEASURE)
    score_with: str | None = _measure(
        None,
        "score that ranks candidates: log-odds in float64, or TextAttack's 1 - p in float32, which "
        "saturates",
        choices=("log_odds", "softmax"),
        unset="the preset's",
    )
    query_budget: int | None = _measure(
        None, "maximum number of victim queries per row (default: unlimited)", cli.positive_int
    )
    temperature: list = _measure(
        ["1"],
        "divisor of the logits: a number, fitted (on the dev rows), a multiple such as 4xfitted, "
        "or a comma-separated list; sweep means 0.25xfitted,fitted,4xfitted",
        presets.temperature_rules,
        unset="1",
    )
    flag_skipped_percent: float = setting(
        25.0,
        "flag a result if a larger percentage of rows is misclassified before the attack",
        cli.non_negative_float,
        role=Role.OUTPUT,
    )
    similarity_threshold: float | None = _measure(
        None, "minimum cosine of MiniLM's sentence similarity (default: the recipe's)", cli.fraction
    )


@dataclass(kw_only=True)
class ResourceSettings:
    """Resources of the recipes."""

    neighbours: str | None = _measure(
        None, "JSON file that maps each word to a list of words, nearest first"
    )
    word_vectors: str | None = _measure(
        None, "counter-fitted word vectors: a text file or a zip of one"
    )
    sentence_encoder: str | None = _measure(None, "Universal Sentence Encoder: a SavedModel folder")
    masked_lm: str | None = _measure(None, "folder of a masked language model")


RESOURCE_FLAGS = names_of(ResourceSettings, Role.MEASURE)


@dataclass(kw_only=True)
class VictimSettings:
    """Victims and their records."""

    eval_bsz: int = setting(
        64, "texts per forward pass of an attacked model", cli.positive_int, role=Role.COMPUTE
    )
    result_file: str | None = setting(
        None,
        "JSON-lines file of the attacks' records (default: records.jsonl of each run)",
        role=Role.OUTPUT,
    )


@dataclass(kw_only=True)
class SuiteSettings:
    """Suite."""

    suite: list | None = _measure(
        None,
        "run the suite in place of one attack: standard, or a comma-separated list of its parts "
        f"({', '.join(presets.SUITE_PARTS)}) and those that they need",
        presets.suite_parts,
    )
    dev_examples: int = _measure(
        100,
        "number of dev rows that the suite attacks to choose the bias of each class",
        cli.positive_int,
    )
    carry_over: list = _measure(
        [],
        "folders suites/NAME of other models on the same rows, whose texts the suite tries as well",
        nargs="+",
    )


@dataclass(kw_only=True)
class AttackRun(
    AttackSettings,
    SuiteSettings,
    ResourceSettings,
    VictimSettings,
    ModelSettings,
    DataSettings,
    SessionSettings,
    DeviceSettings,
):
    """Run."""

    recipe: str | None = changed(
        AttackSettings,
        "recipe",
        None,
        unset="required without --suite; with it, textfooler-neighbours if --neighbours is given, "
        "else textfooler-minilm",
    )
    model_name: str | None = changed(
        ModelSettings, "model_name", None, unset="required without --check"
    )
    check: list | None = setting(
        None,
        "only look for the resources of these recipes (none named: of --recipe, else of all), and "
        "list all that is missing",
        choices=tuple(presets.RECIPES),
        role=Role.OUTPUT,
        nargs="*",
    )
    processes: int = setting(
        1,
        "number of processes that attack rows in parallel, on the visible GPUs in turn or on a "
        "share of the CPU threads each; outcomes do not depend on it",
        cli.positive_int,
        role=Role.COMPUTE,
    )
    rows_at_once: int | None = setting(
        None,
        "number of rows that a process attacks at the same time, their queries in common batches",
        cli.positive_int,
        role=Role.COMPUTE,
        unset="1 on a CPU, 16 on a GPU",
    )
    precision: str = changed(RunSettings, "precision", "fp32", choices=("fp32", "bf16"))
    output_dir: str | None = changed(
        FolderSettings, "output_dir", None, unset="a folder inside the run"
    )


@dataclass(kw_only=True)
class FinishedAttacks:
    """Finished attacks."""

    attacks: list = setting(REQUIRED, "folders of finished attacks", role=Role.PLACE, nargs="+")


@dataclass(kw_only=True)
class TrainingTexts:
    """Training texts (default: those of the first attack's run)."""

    data_dir: str | None = changed(DataSettings, "data_dir", None)
    train_file: str | None = changed(DataSettings, "train_file", None)
    label_column: str | None = changed(DataSettings, "label_column", None)
    max_train_rows: int = changed(DataSettings, "max_train_rows", 10_000)  # of IMDB: 1.8 GB


@dataclass(kw_only=True)
class QualityTools(DeviceSettings):
    """Judge and language model."""

    language_model: str | None = _measure(
        None, "folder of a causal language model (default: trigrams of the training texts)"
    )
    judge: str | None = _measure(
        None,
        "folder of a run or checkpoint that was not attacked, preferably with another encoder",
        unset="TF-IDF and logistic regression on the training rows",
    )
    checkpoint: str = changed(AttackSettings, "checkpoint", "last", choices=("last", "best"))


@dataclass(kw_only=True)
class RecordFiles:
    """Records."""

    records: list = setting(
        REQUIRED, "folders of runs, or record files", role=Role.PLACE, nargs="+"
    )
