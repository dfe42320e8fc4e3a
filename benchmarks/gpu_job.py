"""What the parts of benchmarks/gpu.py share: device, deadline and findings; runs of the stages."""

import argparse
import contextlib
import importlib
import os
import shutil
import sys
import sysconfig
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import common
import numpy as np
from accelerate.state import AcceleratorState

from training import data_sources, tasks
from utils import files, interrupts, process_state

RECORD = "record.json"
MOST_WORDS = 30_000  # of a vocabulary made from the training sentences


@dataclass
class Job:
    """One part at work. Findings are written at once, so that a part that is killed leaves them."""

    device: str
    toy: bool
    seconds: float  # from now; after them the process is killed
    folder: Path  # of the records
    scratch: Path  # deleted afterward; holds RECORD
    data: Path | None = None
    minilm: Path | None = None
    numbers: dict = field(default_factory=dict)
    findings: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self.end = time.monotonic() + self.seconds
        AcceleratorState._reset_state(True)  # not the precision of a part before

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def find(self, what: str, result: str, target: str = "-", fine: bool | None = None) -> None:
        """Note one line of the table. `fine`: whether the target is met, if there is one."""
        verdict = "-" if fine is None else "ok" if fine else "missed"
        found = {"what": what, "result": result, "target": target, "verdict": verdict}
        self.findings.append(found)
        print(f"{what}: {result} (target {target}: {verdict})", flush=True)
        self.write(status="running")

    def write(self, **facts) -> None:
        record = {"findings": self.findings, "numbers": self.numbers}
        files.write_json(self.scratch / RECORD, record | facts)

    def size(self, real, toy):
        """The first, or the second with --toy."""
        return toy if self.toy else real

    def compiles(self) -> bool:
        """Whether the gates are compiled where that is tested: on a CPU it takes half a minute."""
        header = Path(sysconfig.get_path("include")) / "Python.h"
        here = shutil.which(os.environ.get("CXX", "g++")) and header.is_file()
        return self.device == "cuda" or self.toy and bool(here)

    def bench_args(self, encoder: str, lengths: str, **others) -> argparse.Namespace:
        """Arguments of training_steps.Bench and training_steps.measure."""
        usual = {
            "encoder": encoder,
            "lengths": self.size(lengths, "8"),
            "bsz": self.size(32, 2),
            "adv_steps": self.size(5, 2),
            "batches": self.size(3, 1),
            "precision": self.size("auto", "fp32"),
            "device": self.device,
            "search_flags": self.size([], ["--no-compile"]),  # it takes seconds
        }
        return argparse.Namespace(**usual | others)


class Killed(BaseException):
    """In place of a signal: no code of a stage catches it."""


def call(stage: str, *words: str, **flags: object) -> float:
    """Run a stage's main in this process; returns its seconds. Its errors pass through."""
    module = importlib.import_module(stage)
    AcceleratorState._reset_state(True)
    before, sys.argv = sys.argv, [f"{stage}.py", *common.flags(**flags), *words, "--quiet"]
    start = time.perf_counter()
    try:
        with process_state.preserved():
            module.main()
    finally:
        sys.argv = before
        interrupts.release_signals()
    return time.perf_counter() - start


@contextlib.contextmanager
def cache_in(folder: Path):
    """Token caches of the stages go to `folder`, not to the user's."""
    with process_state.environment(ROBUST_TICKETS_CACHE=str(folder), HF_HUB_OFFLINE="1"):
        yield


def sst2_in(data: Path) -> Path:
    """The folder of SST-2's files in --data, which may be that folder itself."""
    inside = data / "sst2"
    return inside if inside.is_dir() else data


def data_folder(job: Job) -> tuple[Path, str]:
    """The folder with SST-2's train.tsv and dev.tsv, and what these are."""
    if job.data is not None:
        return sst2_in(job.data), f"sentences of {job.data.name}"
    folder = job.scratch / "data"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for number, (name, rows) in enumerate((("train", job.size(6920, 160)), ("dev", 60))):
            draw = np.random.default_rng(number)
            lines = [_made_up_row(draw) for _ in range(rows)]
            text = "\n".join(["sentence\tlabel", *lines]) + "\n"
            (folder / f"{name}.tsv").write_text(text, encoding="utf-8")
    return folder, "made-up sentences"


def _made_up_row(draw: np.random.Generator) -> str:
    """A sentence of SST-2's length; three of its words give the label."""
    label = int(draw.integers(2))
    count = max(4, int(draw.choice(common.LENGTHS["sst2"])) - 2)
    words = [f"word{i}" for i in draw.integers(0, 500, count)]
    for place in draw.choice(count, 3, replace=False):
        words[place] = f"{('bad', 'good')[label]}{draw.integers(8)}"
    return f"{' '.join(words)}\t{label}"


def encoder_folder(job: Job, shape: str, is_minilm: bool) -> tuple[Path, str]:
    """A folder with an encoder and a tokenizer, and what it is.

    `shape`: of common.load_model. --minilm's folder where `is_minilm`; else random weights of that
    shape with a vocabulary of the training sentences' words.
    """
    if is_minilm and job.minilm is not None:
        return job.minilm, f"weights in {job.minilm.name}"
    folder = job.scratch / shape
    if not folder.is_dir():
        common.load_model(shape, "cpu").save_pretrained(folder)
        _tokenizer(data_folder(job)[0]).save_pretrained(folder)
    return folder, f"{shape} with random weights"


def _tokenizer(folder: Path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    table = data_sources.read_table(data_sources.files_in(folder, tasks.TASKS["sst2"])["train"])
    split = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word for text in table["sentence"] for word, _ in split.pre_tokenize_str(text.lower())
    )
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    known = [*special.values(), *(word for word, _ in words.most_common(MOST_WORDS))]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.Lowercase(), split
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    raw.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    tokens = {f"{name}_token": token for name, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=512, **tokens)
