"""The training steps on torch's meta device, which holds no numbers.

There, reading a number (`.item()`, `bool(tensor)`) raises, and OneDevice refuses operations with a
tensor that was left on the CPU. On a GPU the first would make the host wait for the device, and the
second would fail. The bodies of the scripts' loops run as they are written. Where there is a GPU, a
search step runs on it in the mode in which torch refuses to wait.

Two things that wait in a step are not tested: InfoBERT's choice of tokens by a mask, and the check
of transformers, in each pass, whether a batch has padding. Attention is eager, so that no version
makes this check, or its result is fixed.
"""

import ast
import contextlib
import importlib
import inspect
from types import CodeType, SimpleNamespace

import pytest
import torch
from conftest import make_tokenizer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForSequenceClassification

import search_ticket
from masking import encoders, surgery, tickets
from training import adversary, optim
from training.batching import Encoded, collate
from training.trainee import make_trainee
from utils import devices

pytestmark = pytest.mark.slow

META = torch.device("meta")
MOVES = (torch.ops.aten.copy_.default,)
SCRIPTS = ("finetune", "retrain_ticket", "prune_iteratively")


def loop_body(script: str) -> CodeType:
    """The body of the loop over `training.batches(...)` in a script, which is one step."""
    module = importlib.import_module(script)
    loops = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.For) and ast.unparse(node.iter).startswith("training.batches(")
    ]
    assert len(loops) == 1, f"{script} has {len(loops)} loops over batches"
    return compile(ast.Module(loops[0].body, []), module.__file__, "exec")


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices. A scalar on the CPU is allowed, as on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        tensors = [t for t in leaves if isinstance(t, Tensor)]
        devices = {t.device for t in tensors if t.dim() or t.device == META}
        if len(devices) > 1 and func not in MOVES:
            raise RuntimeError(f"{func} on the devices {devices}")
        return func(*args, **(kwargs or {}))


class Training:
    """In place of loop.Loop: admits each step, and keeps what a step logs."""

    step = 1

    def __init__(self):
        self.admitted, self.lines = 0, []

    def admits(self, losses: Tensor, grad_norm: Tensor) -> bool:
        """Here alone a step may wait for the device."""
        assert losses.device == grad_norm.device == META
        self.admitted += 1
        return True

    def end_step(self, line: dict, losses: Tensor) -> None:
        self.lines.append(line | {"losses": losses})


@pytest.fixture
def on_meta(monkeypatch):
    """Stand-ins for what the meta device lacks: generators, the fused AdamW, autocast."""
    monkeypatch.setattr(adversary.Draws, "_generator", lambda *_: None)
    check = "transformers.masking_utils._ignore_bidirectional_mask_sdpa"  # of versions from 5
    monkeypatch.setattr(check, lambda *_, **__: False, raising=False)
    real = optim.make_adamw

    def make_adamw(kind, parameters, lr, weight_decay):
        if kind == "released":
            return real(kind, parameters, lr, weight_decay)
        return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay, foreach=True)

    monkeypatch.setattr(optim, "make_adamw", make_adamw)


ACCELERATOR = SimpleNamespace(
    device=META,
    num_processes=1,
    process_index=0,
    mixed_precision="no",
    autocast=contextlib.nullcontext,
    reduce=lambda tensor, _how: tensor,
)


def tiny_model() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=len(make_tokenizer()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation="eager",
    )
    return BertForSequenceClassification(config)


def rows() -> Encoded:
    ids = [torch.arange(5, 5 + n).numpy().astype("int32") for n in (4, 6, 6, 8)]
    return Encoded(ids, None, [0, 1, 0, 1], 0, 0)


def arguments(script: str, *words: str):
    usual = ["--model_name", "-", "--output_dir", "-", "--task_name", "sst2", "--device", "cpu"]
    needed = {"retrain_ticket": ["--scores", "-", "--sparsity", "0.3"]}
    needed["prune_iteratively"] = ["--to_sparsity", "0.3"]
    module = importlib.import_module(script)
    return module.parse_args([*usual, *needed.get(script, []), *words])


def run_step(script: str, **names) -> Training:
    """Run the loop's body once with these names besides the module's."""
    training = Training()
    usual = {"training": training, "positions": [0, 1, 2, 3], "epoch": 1, "train": rows()}
    usual |= {"total_steps": 10, "accelerator": ACCELERATOR}
    with OneDevice():
        exec(loop_body(script), vars(importlib.import_module(script)) | usual | names)
    assert training.admitted == 1
    (line,) = training.lines
    logged = [v for v in line.values() if isinstance(v, Tensor)]
    assert len(logged) >= 2 and all(v.device == META for v in logged)
    return training


@pytest.mark.parametrize("words", ["plain", "plain --micro_bsz 2", "freelb --micro_bsz 2", "pgd"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_steps_of_all_weights(script, words, on_meta):
    args = arguments(script, "--method", *words.split())
    trainee = make_trainee(tiny_model(), args, ACCELERATOR)
    model, draws, optimizer = trainee.model, trainee.draws, trainee.optimizer
    assert {p.device for p in trainee.modules.parameters()} == {META}
    if script != "finetune":
        shapes = encoders.weight_shapes(model)
        scores = {name: torch.rand(shape) for name, shape in shapes.items()}
        surgery.apply_ticket(model, tickets.draw(scores, shapes, 0.3))
    names = {"trainee": trainee, "model": model, "draws": draws, "optimizer": optimizer}
    run_step(script, args=args, first_step=0, steps_per_epoch=10, **names)
    assert len(optimizer.state) > 10  # it has made its step


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ("bytes", ""),
        ("bytes", "--micro_bsz 2"),
        ("key", ""),
        ("floats", ""),
        ("floats", "--adv_steps 0"),
        ("floats", "--adv_gradient last"),
        ("floats", "--clean_loss_weight 1 --adv_norm_type linf --adv_max_norm 0.1"),
        ("floats", "--deviations released"),
    ],
)
def test_steps_of_the_search(gates, words, on_meta, monkeypatch):
    # Asked for a device that autocast does not know, torch raises.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)
    two = [] if "--adv_steps" in words else ["--adv_steps", "2"]
    args = arguments("search_ticket", *two, *words.split())
    model = tiny_model()
    gated = surgery.install_gates(model, args.mask_p)
    model.to(META).train()

    def draw(generator) -> None:
        surgery.draw_noise(gated, generator, gates)

    draws = adversary.Draws(16, args, args.seed, ACCELERATOR, draw)
    search = search_ticket.Search(model, gated, args, ACCELERATOR, draws)
    clocks = search_ticket.Clocks(args, len(rows()), 3)
    names = {"args": args, "draws": draws, "search": search, "clocks": clocks}
    training = run_step("search_ticket", shares_every=100, **names)
    assert {"penalty", "clip_norm", "score_grad_norm"} <= training.lines[0].keys()
    assert all(score in search.optimizer.state for score in search.scores)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gates", ["bytes", "key", "floats"])
def test_the_search_does_not_wait_for_a_gpu(gates):
    args = arguments("search_ticket", "--adv_steps", "2", "--device", "cuda")
    accelerator = devices.make_accelerator(args)
    model = tiny_model()
    gated = surgery.install_gates(model, args.mask_p)
    model.to("cuda").train()

    def draw(generator) -> None:
        surgery.draw_noise(gated, generator, gates)

    draws = adversary.Draws(16, args, args.seed, accelerator, draw)
    search = search_ticket.Search(model, gated, args, accelerator, draws)
    arrays = collate(rows(), [0, 1, 2, 3])
    batch = devices.to_device(arrays, accelerator)
    for step, mode in ((1, "default"), (2, "error")):  # the first step loads kernels
        draws.start_step(step, batch, arrays["input_ids"].shape)
        torch.cuda.set_sync_debug_mode(mode)
        try:
            search.step(batch, 0.1, 0.5, lambda _losses, _norm: True)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_meta_device_finds_what_it_is_for():
    tensor = torch.ones(2, device=META)
    for wait in (lambda: tensor.sum().item(), lambda: bool(tensor.all()), tensor.tolist):
        with pytest.raises((RuntimeError, NotImplementedError)):
            wait()
    with OneDevice(), pytest.raises(RuntimeError, match="on the devices"):
        torch.nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2, device=META))
