"""The model card of an export: what it is, how it was made, how well it does, how to load it."""

from pathlib import Path
from typing import Any

from evaluation.exports import Export
from evaluation.records import AttackRecord, NoRecords, read_records
from reporting import cells, render
from reporting.cells import Cell
from reporting.compared_suites import measures
from reporting.suite_records import SuiteRecord
from training.loading import BUILTIN
from training.metrics import wilson_interval
from utils.files import read_json, read_jsonl

FORMATS = {
    "safetensors": "a checkpoint of transformers, fp32",
    "onnx": "ONNX, fp32",
    "onnx-int8": "ONNX, int8 weights, activations quantized at each call (dynamic quantization)",
}
FRONT = """---
library_name: {library}
pipeline_tag: text-classification
tags:
- robust-tickets
- lottery-ticket
---"""
TRANSFORMERS = """import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
batch = tokenizer(["a text", "a longer text"], padding=True, return_tensors="pt")
with torch.no_grad():
    print(model(**batch).logits.softmax(dim=-1))"""
ONNX = """import onnxruntime
from transformers import AutoTokenizer

session = onnxruntime.InferenceSession("{name}/model.onnx", providers=["CPUExecutionProvider"])
tokenizer = AutoTokenizer.from_pretrained("{name}")
batch = tokenizer(["a text", "a longer text"], padding=True, return_tensors="np")
inputs = {{i.name: batch[i.name].astype("int64") for i in session.get_inputs()}}
print(session.run(["logits"], inputs)[0])"""


def card(export: Export, home: Path) -> str:
    """README.md of the export. `home`: the folder with the records of its checkpoint."""
    is_onnx = export.format != "safetensors"
    code = (ONNX if is_onnx else TRANSFORMERS).format(name=export.name)
    parts = [
        FRONT.format(library="onnxruntime" if is_onnx else "transformers"),
        f"# {export.name}",
        "This folder holds a text classifier, exported with robust-tickets, a reproduction of "
        "*Robust Lottery Tickets for Pre-trained Language Models* (Zheng et al., ACL 2022).",
        "## What it is",
        _table(_what(export)),
        "## How it was made",
        _table(_how(export)) if export.facts else "Another program made the checkpoint.",
        "## How well it does",
        *_results(export, home),
        "## Check",
        f"The export was {export.compared.in_words()}.",
        "## How to load it",
        f"```python\n{code}\n```",
        "## License",
        "The code that made it is MIT-licensed. The license of the weights is that of the base "
        f"encoder, {_encoder(export)}: read its model card.",
    ]
    return render.paragraphs(parts)


def _encoder(export: Export) -> str:
    name = export.facts.get("encoder", {}).get("name") or "which is not recorded"
    return BUILTIN[name].published_as if name in BUILTIN else name


def _table(rows: dict[str, object]) -> str:
    return render.table_of([{"": name, "value": str(value)} for name, value in rows.items()], 2)


def _what(export: Export) -> dict[str, object]:
    labels = ", ".join(f"{i} {name}" for i, name in enumerate(export.label_names))
    rows: dict[str, object] = {
        "format": FORMATS[export.format],
        "base encoder": f"{_encoder(export)} (`{export.architecture}`)",
        "parameters": f"{export.parameters:,}",
        "zeros in the prunable matrices": f"{export.zero_percent:.1f} %",
        "logits": labels,
        "longest text in training": f"{export.facts.get('max_seq_length', render.NONE)} tokens",
    }
    ticket = export.facts.get("ticket")
    if ticket:
        percent = f"{100 * ticket.get('sparsity', ticket['sparsity_asked']):.1f} %"
        rows["ticket"] = f"{ticket['kind']}, {percent} removed, in `ticket.safetensors`"
    if removed := export.facts.get("removed"):
        rows["after removing the ticket's units"] = in_words(removed)
    return rows


def in_words(removed: dict[str, Any]) -> str:
    """What a model has from which units were removed (masking/removal.py)."""
    numbers = {k: v for k, v in removed.items() if k != "zeroed"}
    parts = [
        f"{v} {k.replace('_', ' ').replace('per layer', 'in each layer')}"
        for k, v in numbers.items()
    ]
    parts += [f"zeros in place of some {name.replace('_', ' ')}" for name in removed["zeroed"]]
    return ", ".join(parts) or "nothing less"


def _how(export: Export) -> dict[str, object]:
    """Checkpoints of earlier versions lack some of these facts."""
    facts = export.facts
    trained = {"finetune": "all weights fine-tuned", "retrain": "drawn ticket, rewound, fine-tuned"}
    stage, count = facts.get("stage"), facts.get("training_rows")
    deviations = facts.get("deviations") or facts.get("protocol")
    rows: dict[str, object] = {
        "training": trained.get(str(stage), stage),
        "task": f"{facts.get('task')}, {count:,} rows" if count else facts.get("task"),
        "method": f"{facts.get('method', 'plain')}, deviations {deviations}",
        "seed": facts.get("seed"),
        "checkpoint": f"{export.checkpoint}, epoch {facts.get('epoch')} of {facts.get('epochs')}",
        "settings": _settings(facts.get("training") or {}),
    }
    ticket = facts.get("ticket")
    if ticket:
        epoch = ticket.get("scores_epoch")
        of_epoch = f", epoch {epoch}" if epoch else ""
        rows["scores of the ticket"] = (
            f"{ticket['kind']}, seed {ticket.get('scores_seed')}{of_epoch}, SHA-256 "
            f"{ticket.get('scores_sha256')}"
        )
        rows["settings of the scores"] = _settings(ticket.get("search") or {})
        rows["passes over the labels"] = facts.get("label_passes")
    return {name: render.NONE if value is None else value for name, value in rows.items()}


def _settings(recipe: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(recipe.items()) if v is not None) or render.NONE


def _results(export: Export, home: Path) -> list[str]:
    """Paragraphs on Clean and Aua, from the records of exactly this checkpoint."""
    parts = []
    if export.format == "onnx-int8":
        parts.append("All numbers are those of the fp32 checkpoint, before quantization.")
    path = home / "result.json"
    measured = read_json(path)["checkpoints"].get(export.checkpoint) if path.is_file() else None
    if measured is not None:
        low, high = measured["clean_interval_95_percent"]
        parts.append(
            f"Clean accuracy on the test split: {measured['clean_percent']:.1f} % [{low:.1f}, "
            f"{high:.1f}], {measured['rows_evaluated']:,} rows."
        )
    attacks = [r for r in _attacks(home) if r.checkpoint_sha256 == export.checkpoint_sha256]
    suites = [r for r in _suites(home) if r["checkpoint_sha256"] == export.checkpoint_sha256]
    rows = [*map(_attack_row, attacks), *map(_suite_row, suites)]
    if not rows:
        return [*parts, "It was not attacked: Aua is unknown."]
    legend = (
        "Clean: accuracy before the attack. Aua: accuracy under attack. Both are percentages of "
        "the attacked rows. Brackets: 95 % intervals (Wilson). Only numbers with the same protocol "
        "are comparable."
    )
    return [*parts, render.table_of(rows), legend]


def _attacks(home: Path) -> list[AttackRecord]:
    path = home / "records.jsonl"
    try:
        return read_records([path]) if path.is_file() else []
    except NoRecords:
        return []


def _suites(home: Path) -> list[dict[str, Any]]:
    """The suites whose parts give a class-equalized Aua."""
    path = home / "suites.jsonl"
    records = read_jsonl(path) if path.is_file() else []
    return [r for r in records if {"dev", "margin"} <= {*r["parts"]}]


def _attack_row(record: AttackRecord) -> dict[str, str]:
    def shown(measure: str) -> str:
        return render.cell(Cell.of([record], measure), count=False)

    return {
        "attack": record.recipe,
        "rows": f"{record.rows_attacked} of {record.split or 'test'}",
        "Clean %": shown("clean_percent"),
        "Aua %": shown("aua_percent"),
        "class-equalized Aua %": render.NONE,
        "protocol": record.protocol_id or render.NONE,
        "warnings": "; ".join(cells.doubts_of([record])) or render.NONE,
    }


def _suite_row(record: dict[str, Any]) -> dict[str, str]:
    suite = SuiteRecord.of(record, "suites.jsonl")
    right_in = measures(tuple(record["label_names"]))

    def shown(measure: str) -> str:
        right = right_in[measure](suite)
        low, high = wilson_interval(int(right.sum()), len(right))
        return f"{100 * right.mean():.1f} [{low:.1f}, {high:.1f}]"

    return {
        "attack": f"suite, {record['recipe']}",
        "rows": f"{record['rows_attacked']} of {record['split']}",
        "Clean %": shown("Clean"),
        "Aua %": shown("Aua, mean"),
        "class-equalized Aua %": shown("Aua, class-equalized"),
        "protocol": f"rows {record['rows']['fingerprint']}",
        "warnings": "; ".join(flag["why"] for flag in record["flags"]) or render.NONE,
    }
