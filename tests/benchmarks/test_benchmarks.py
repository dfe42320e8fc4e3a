"""The benchmarks measure what they claim: the yardstick is the released step, and work is counted.

No test measures a time; that is done by hand.
"""

import copy
import io
from pathlib import Path
from types import SimpleNamespace

import common
import pytest
import released_step
import torch
from accelerate import Accelerator
from transformers import BertConfig, BertForSequenceClassification

import search_ticket
from masking import hard_concrete, surgery
from training import adversary
from utils import cli, process_state
from utils.files import read_jsonl

STEPS, BATCH = 12, 8


def tiny_model() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    with process_state.seeded(0):
        return BertForSequenceClassification(config)


def ids_below(rows, vocabulary: int):
    for ids in rows.input_ids:
        ids %= vocabulary
    return rows


@pytest.mark.slow
def test_the_yardstick_and_released_deviations_give_the_same_numbers():
    """Same noise, dropout on, 12 optimizer steps through warm-up and lambda's start.

    fp32: losses, norms and R(m) to 1e-5 of their size, scores to 1e-4 absolute. They drift apart
    by rounding alone (one adds delta in a hook, the other calls the encoder with inputs_embeds).
    """
    rows = ids_below(common.draw_rows("sst2_phrases", STEPS // 2 * BATCH, seed=3), 120)
    rows = common.Encoded([ids[:20] for ids in rows.input_ids], None, rows.labels, 0, 0)
    batches = list(released_step.shuffled_batches(rows.input_ids, rows.labels, BATCH, seed=1)) * 2
    settings = released_step.Settings(epochs=2, batch_size=BATCH)
    noise, first_delta = torch.Generator(), torch.Generator()
    now = SimpleNamespace(step=0)

    def seed_pass(k: int) -> None:
        torch.manual_seed(1000 * now.step + k)
        noise.manual_seed(1000 * now.step + k)

    def draw_delta(shape) -> torch.Tensor:
        return torch.rand(shape, generator=first_delta.manual_seed(now.step)) * 2 - 1

    yardstick = released_step.ReleasedSearch(
        tiny_model(),
        settings,
        len(rows),
        lambda shape: torch.rand(shape, generator=noise),
        seed_pass,
        draw_delta,
    )
    args = search_ticket.parse_args(
        f"--model_name - --output_dir - --task_name sst2 --deviations released --epochs 2 "
        f"--bsz {BATCH} --device cpu --precision fp32".split()
    )
    model = tiny_model().train()
    gated = surgery.install_gates(model, args.mask_p)

    class GivenDraws:
        def redraw(self, k: int) -> None:
            seed_pass(k)
            surgery.draw_noise(gated, noise)

        def delta(self) -> torch.Tensor:
            mask = self.mask
            uniform = draw_delta((*mask.shape, model.config.hidden_size))
            return adversary.initial_delta(uniform, mask, args.adv_init_mag)

    draws = GivenDraws()
    search = search_ticket.Search(model, gated, args, Accelerator(cpu=True), draws)
    clocks = search_ticket.Clocks(args, len(rows), 3)

    for step, batch in enumerate(batches, 1):
        now.step, draws.mask = step, batch["attention_mask"]
        theirs = yardstick.step(batch)
        weighted = batch | {"row_weight": torch.tensor(1 / BATCH)}
        losses, ours = search.step(
            weighted, clocks.lr(step), clocks.lambda_reg(step), lambda losses, norm: True
        )
        ours["loss_per_pass"] = losses
        assert theirs["lr"] == pytest.approx(clocks.lr(step))
        assert theirs["lambda_reg"] == pytest.approx(clocks.lambda_reg(step))
        for name in (
            "loss_per_pass",
            "delta_norm_per_pass",
            "score_grad_norm",
            "clip_norm",
            "penalty",
        ):
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6, msg=name)
        assert list(gated) == list(yardstick.gates)
        for mine, its in zip(search.scores, yardstick.scores, strict=True):
            torch.testing.assert_close(mine, its, rtol=0, atol=1e-4)
    assert theirs["clip_norm"] > 1 and theirs["lambda_reg"] == 0.5  # both matter by then
    start = hard_concrete.score_for_gate(args.mask_p)
    assert (search.scores[0] - start).abs().max() > 0.1


def test_another_noise_gives_other_numbers():
    """The equality above is not that of programs that ignore their noise."""
    rows = ids_below(common.draw_rows("8", BATCH, seed=3), 120)
    batch = next(released_step.shuffled_batches(rows.input_ids, rows.labels, BATCH, seed=1))
    losses = []
    for seed in (0, 1):
        noise = torch.Generator().manual_seed(seed)
        search = released_step.ReleasedSearch(
            tiny_model(),
            released_step.Settings(),
            64,
            lambda shape, noise=noise: torch.rand(shape, generator=noise),
            lambda k: torch.manual_seed(k),
            torch.zeros,
        )
        losses.append(search.step(copy.deepcopy(batch))["loss_per_pass"])
    assert (losses[0] != losses[1]).all()


def test_the_yardstick_imports_nothing_of_ours():
    imports = [
        line.split()[1].split(".")[0]
        for line in Path(released_step.__file__).read_text().splitlines()
        if line.startswith(("import ", "from "))
    ]
    assert set(imports) == {"math", "re", "collections", "dataclasses", "numpy", "torch"} | {
        "transformers"
    }


@pytest.mark.slow
def test_steps_are_measured_and_written(tmp_path, monkeypatch):
    """The whole benchmark on a BERT of one layer: every variant, its work, record and table."""
    import training_steps

    flags = common.flags(
        encoder="bert-1x64",
        lengths=8,
        bsz=2,
        device="cpu",
        precision="fp32",
        adv_steps=2,
        repeats=1,
        batches=1,
        output_dir=tmp_path,
    )
    monkeypatch.setattr("sys.argv", ["training_steps.py", *flags])
    monkeypatch.setattr("utils.progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    cli.run(training_steps.main)
    [record] = read_jsonl(tmp_path / "training_steps.jsonl")
    monkeypatch.setattr(training_steps, "measure", lambda _: copy.deepcopy(record))
    cli.run(training_steps.main)  # in the table, the second record replaces the first one
    records = read_jsonl(tmp_path / "training_steps.jsonl")
    assert len(records) == 2 and set(records[0]["ratios"]) == {
        "search : dense_adversarial",
        "released : search",
        "retrain : dense",
    }
    lines = (tmp_path / "training_steps.md").read_text().splitlines()
    assert len(lines) == 2 + len(training_steps.VARIANTS)
    work = {name: step["flops"] for name, step in records[0]["steps"].items()}
    # The same passes and the same weight gradients; gates are not matrix products.
    assert work["search"] == work["dense_adversarial"] and work["dense"] == work["retrain"]
    assert work["released"] >= work["search"]
    import sys

    printed = [line for line in sys.stderr.getvalue().splitlines() if "training_steps:" in line]
    assert printed[0].startswith("training_steps: 1 of 42 measurements (2 %)")
    assert printed[-1].startswith("training_steps: 42 of 42 measurements (100 %)")


def test_products_are_counted_by_hand():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    done = common.work(lambda: (a @ b).t())
    assert done == {"flops": 2 * 3 * 5 * 7, "bytes": 4 * (15 + 35 + 21)}


def test_lengths_have_the_means_they_state():
    for name, mean in (("sst2", 25.3), ("sst2_phrases", 13.3), ("imdb", 207.8)):
        assert len(common.LENGTHS[name]) == 64
        assert sum(common.LENGTHS[name]) / 64 == pytest.approx(mean, abs=0.1)
    assert set(map(len, common.draw_rows("9", 20, 0).input_ids)) == {9}
