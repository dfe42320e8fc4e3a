"""Replay a recorded trajectory of the released search step with `--deviations released`.

    python tests/golden.py FOLDER [cuda]

FOLDER holds released_trajectory.json (configuration, settings, batches, one log entry per step),
weights.safetensors and released_scores.safetensors. Every random draw is given by formula. Prints
the largest deviation per quantity, and exits 1 where one is beyond its tolerance. fp32, on the CPU
or on a GPU.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import search_ticket  # noqa: E402
from masking import hard_concrete, surgery  # noqa: E402
from training.adversary import initial_delta  # noqa: E402
from utils import process_state  # noqa: E402

# Absolute, float32: losses and norms, and scores.
TOLERANCE = 1e-5
SCORES_TOLERANCE = 1e-4


def gate_noise(shape: tuple[int, int]) -> torch.Tensor:
    i, j = torch.arange(shape[0])[:, None], torch.arange(shape[1])[None, :]
    return ((31 * i + 17 * j) % 97 + 1).float() / 98


def delta_noise(shape: tuple[int, int, int]) -> torch.Tensor:
    b, t, h = (torch.arange(n) for n in shape)
    pattern = (7 * b[:, None, None] + 13 * t[None, :, None] + 29 * h[None, None, :]) % 101
    return pattern.float() / 50 - 1


def load_model(folder: Path, config: dict) -> BertForSequenceClassification:
    model = BertForSequenceClassification(BertConfig(**config, attn_implementation="eager"))
    weights = load_file(folder / "weights.safetensors")
    weights = {k.removeprefix("weights."): v for k, v in weights.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or [name for name in missing if "position_ids" not in name]:
        raise SystemExit(f"weights do not fit the model: {missing} missing, {unexpected} left over")
    return model.train()


def arguments(settings: dict) -> search_ticket.Settings:
    args = search_ticket.parse_args(
        ["--model_name", "-", "--output_dir", "-", "--deviations", "released"]
    )
    for name in (
        *("adv_steps", "adv_lr", "adv_init_mag", "lr", "weight_decay", "warmup_ratio", "mask_p"),
        *("lambda_amp", "lambda_startup_frac", "lambda_warmup_frac", "max_grad_norm", "epochs"),
    ):
        setattr(args, name, settings[name])
    args.bsz = settings["batch_size"]
    args.adv_max_norm = settings.get("adv_max_norm", 0.0)
    args.adv_norm_type = settings.get("adv_norm_type", "l2")
    return args


class GivenDraws:
    """Noise by a formula, the same in each pass."""

    def __init__(self, hidden: int, magnitude: float):
        self.hidden, self.magnitude, self.mask = hidden, magnitude, torch.empty(0, 0)

    def redraw(self, k: int) -> None:
        """The gates keep their noise, and dropout is off."""

    def delta(self) -> torch.Tensor:
        noise = delta_noise((*self.mask.shape, self.hidden)).to(self.mask.device)
        return initial_delta(noise, self.mask, self.magnitude)


def replay(
    folder: Path, stop_when_off: bool = False, device: str = "cpu", steps: int | None = None
) -> dict[str, tuple[float, float]]:
    """Quantity -> (largest absolute deviation, tolerance).

    `stop_when_off`: end after the first step that deviates. `steps`: end after so many.
    """
    with process_state.threads(1), process_state.generators():
        return _replay(folder, stop_when_off, device, steps)


def _replay(
    folder: Path, stop_when_off: bool, device: str, steps: int | None
) -> dict[str, tuple[float, float]]:
    record = json.loads((folder / "released_trajectory.json").read_text())
    stored = load_file(folder / "released_scores.safetensors")
    settings, args = record["settings"], arguments(record["settings"])
    accelerator = Accelerator(cpu=device == "cpu")
    model = load_model(folder, record["config"]).to(device)
    gated = surgery.install_gates(model, args.mask_p)
    for layer in gated.values():
        layer.uniform = gate_noise(tuple(layer.scores.shape)).to(device)
    draws = GivenDraws(model.config.hidden_size, args.adv_init_mag)
    search = search_ticket.Search(model, gated, args, accelerator, draws)
    batches = [{k: torch.tensor(v, device=device) for k, v in b.items()} for b in record["batches"]]
    for batch in batches:
        batch["row_weight"] = torch.tensor(1 / len(batch["labels"]), device=device)
    examples = sum(len(b["labels"]) for b in batches)
    tensors = settings.get("tensors_per_batch", 3)
    clocks = search_ticket.Clocks(args, examples, tensors)
    worst: dict[str, tuple[float, float]] = {}

    def compare(quantity: str, ours, theirs, tolerance: float = TOLERANCE) -> None:
        ours, theirs = (torch.as_tensor(x).double().cpu() for x in (ours, theirs))
        if ours.shape != theirs.shape:
            raise SystemExit(f"{quantity}: shape {tuple(ours.shape)}, not {tuple(theirs.shape)}")
        off = float((ours - theirs).abs().max())
        off = float("inf") if off != off else off
        worst[quantity] = (max(off, worst.get(quantity, (0.0,))[0]), tolerance)

    for entry in record["log"]:
        step = entry["optimizer_step"]
        batch = batches[(step - 1) % len(batches)]
        lr, lambda_reg = clocks.lr(step), clocks.lambda_reg(step)

        draws.mask = batch["attention_mask"]
        losses, logged = search.step(batch, lr, lambda_reg, lambda losses, norm: True)
        compare("loss_per_pass", losses, entry["loss_per_pass"])
        compare("delta_norm_per_pass", logged["delta_norm_per_pass"], entry["delta_norm_per_pass"])
        compare(
            "score_grad_norm_before_clip",
            logged["score_grad_norm"],
            entry["score_grad_norm_before_clip"],
        )
        compare("clip_norm", logged["clip_norm"], entry["clip_norm"])
        compare("penalty", logged["penalty"], entry["penalty"])
        compare("lambda_reg", lambda_reg, entry["lambda_reg"])
        compare("lr", lr, entry["lr"])
        for name, layer in gated.items():
            if f"step{step}.{name}" in stored:
                compare(
                    "scores",
                    layer.scores.detach(),
                    stored.pop(f"step{step}.{name}"),
                    SCORES_TOLERANCE,
                )
        is_off = stop_when_off and any(off > tolerance for off, tolerance in worst.values())
        if is_off or step == steps:
            return worst
    if stored:
        raise SystemExit(f"stored scores that no matrix of ours has: {sorted(stored)[:3]}")
    compare_the_end(record, model, gated, batches, compare)
    return worst


def compare_the_end(record: dict, model, gated: dict, batches: list[dict], compare) -> None:
    flat = torch.cat([layer.scores.detach().flatten() for layer in gated.values()])
    shares = hard_concrete.gate_shares([layer.scores.detach() for layer in gated.values()])
    compare(
        "final below_half",
        (torch.sigmoid(flat) < 0.5).float().mean(),
        record["final"]["below_half"],
        1e-3,
    )
    compare("final binary", 1 - shares["undecided"], record["final"]["binary"], 1e-3)
    model.eval()
    for layer in gated.values():
        layer.uniform = None
    for batch, theirs in zip(batches, record["eval_logits_first_two_batches"], strict=False):
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        with torch.no_grad():
            compare("eval logits", model(**inputs).logits, theirs, SCORES_TOLERANCE)


def main() -> int:
    words = sys.argv[1:]
    is_right = len(words) == 1 or words[1:] == ["cuda"]
    if not is_right or not (Path(words[0]) / "released_trajectory.json").is_file():
        print(
            "usage: python tests/golden.py FOLDER [cuda] (FOLDER with released_trajectory.json)",
            file=sys.stderr,
        )
        return 2
    beyond = False
    for quantity, (off, tolerance) in replay(Path(words[0]), device=[*words, "cpu"][1]).items():
        beyond |= off > tolerance
        print(f"{quantity:30} {off:.2e}  {'ok' if off <= tolerance else f'beyond {tolerance}'}")
    return int(beyond)


if __name__ == "__main__":
    sys.exit(main())
