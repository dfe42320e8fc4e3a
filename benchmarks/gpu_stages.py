"""Parts of benchmarks/gpu.py that train for real: stages, stages_base."""

import json
from pathlib import Path

from gpu_job import Job, cache_in, call, data_folder, encoder_folder

from training import data_sources, tasks

EPOCHS, SEARCH_EPOCHS, BATCH = 3, 20, 32  # the paper's for SST-2
TRIAL_STEPS = 10
RESERVE = 1.3  # seconds that are planned for a second that the trial took


def stages(job: Job) -> None:
    """Fine-tuning, the paper's search (K = 5) and retraining with an encoder of MiniLM's shape."""
    _stages(job, job.size("bert-6x384", "bert-1x64"), is_minilm=True)


def stages_base(job: Job) -> None:
    """The same with an encoder of BERT-base's shape and random weights."""
    _stages(job, job.size("bert-base", "bert-1x64"), is_minilm=False)


def fit(seconds: float, steps: int, train: float, search: float) -> tuple[int, int, float]:
    """Epochs of a training, epochs of the search, and the share of the rows, that fit.

    `steps`: of an epoch over all rows. `train`, `search`: seconds of a step.
    """
    for epochs in range(EPOCHS, 0, -1):
        searched = int((seconds / RESERVE / steps - 2 * epochs * train) / search)
        if searched >= min(epochs, SEARCH_EPOCHS):
            return epochs, min(searched, SEARCH_EPOCHS), 1.0
    share = seconds / RESERVE / (steps * (2 * train + search))
    return 1, 1, max(0.0, min(1.0, share))


def _stages(job: Job, shape: str, is_minilm: bool) -> None:
    data, about_data = data_folder(job)
    encoder, about_encoder = encoder_folder(job, shape, is_minilm)
    table = data_sources.read_table(data_sources.files_in(data, tasks.TASKS["sst2"])["train"])
    rows = all_rows = int(0.9 * len(table))  # dev is a tenth of them
    batch = job.size(BATCH, 16)
    with cache_in(job.scratch / "cache"):
        trial = {"max_train_rows": batch * job.size(TRIAL_STEPS, 2), "max_eval_rows": 40}
        small = _run(job, encoder, data, batch, "trial", 1, 1, trial)
        seconds = {name: run["in_steps"] / trial["max_train_rows"] * batch for name, run in small}
        steps = -(-rows // batch)
        slower = max(seconds["finetune"], seconds["retrain_ticket"])
        # Besides the steps: compiling the gates, loading, evaluations, checkpoints.
        left = job.left() - job.size(40, 0)
        epochs, searched, share = fit(left, steps, slower, seconds["search_ticket"])
        if job.toy:
            epochs, searched, share = 1, 1, min(0.5, 80 / rows)
        rows = int(share * rows)
        if rows < 2 * batch:
            raise TimeoutError("less time is left than the smallest training takes")
        limit = {} if share == 1 else {"max_train_rows": rows}
        about = f"{about_encoder}, {rows} {about_data}"
        job.numbers["plan"] = {"rows": rows, "epochs": epochs, "search_epochs": searched}
        job.numbers["seconds_a_step_in_trial"] = seconds
        for name, run in _run(job, encoder, data, batch, "whole", epochs, searched, limit):
            what = f"{name} ({searched if name == 'search_ticket' else epochs} epochs; {about})"
            job.numbers[name] = run
            job.find(what, f"{run['seconds']:.1f} s from start to end; {run['accuracy']}")
        part = rows * searched / (all_rows * SEARCH_EPOCHS)
        minutes = job.numbers["search_ticket"]["in_steps"] / part / 60
        what = f"search of {SEARCH_EPOCHS} epochs over all {all_rows} rows, {about_encoder}"
        job.find(f"{what}, extrapolated", f"{minutes:.1f} minutes")


def _run(job: Job, encoder: Path, data: Path, batch: int, kind: str, epochs, searched, limit):
    """Yield each stage's name, with its seconds from start to end and its result."""
    root = job.scratch / f"{encoder.name}-{kind}"
    usual = {"bsz": batch, "device": job.device}
    fresh = usual | limit | {"model_name": encoder, "task_name": "sst2", "data_dir": data}
    fresh |= {"epochs": epochs}
    search = usual | {"model_name": root / "finetune", "epochs": searched}
    search |= {"adv_steps": job.size(5, 2)}
    scores = {"scores": root / "search_ticket", "sparsity": 0.3}
    stages = {"finetune": fresh, "search_ticket": search, "retrain_ticket": fresh | scores}
    for name, flags in stages.items():
        seconds = call(name, **flags, output_dir=root / name)
        result = json.loads((root / name / "result.json").read_text())
        in_steps = result.get("seconds_of_training") or result["seconds_of_search"]
        about = {"accuracy": _accuracy(result), "result": result}
        yield name, {"seconds": seconds, "in_steps": in_steps} | about


def _accuracy(result: dict) -> str:
    if "checkpoints" in result:
        return f"test accuracy {result['checkpoints']['last']['clean_percent']:.1f} %"
    last = result["last_epoch"]
    accuracy = last["dev_accuracy_ticket_percent"]
    return f"dev accuracy {accuracy:.1f} % with the ticket, R(m) {last['penalty_of_all_gates']:.3f}"
