"""How two models differ on the same rows, and the dense models beside which a ticket is read."""

import statistics
from dataclasses import dataclass

from utils.intervals import crossed_difference, mcnemar
from utils.report.records import STRICT_COMPARISON, one_per_seed, outcomes


def difference(mine: list[dict], theirs: list[dict], measure: str = "aua_percent") -> str | None:
    """Mine less theirs over the seeds that both have, in points, and whether it is noise.

    One seed: McNemar's exact test; several: a 95 % interval for new rows and seeds, and that test
    of each seed. None where the records do not tell (no common seed, other rows, no outcomes row by
    row).
    """
    seeds = {r["seed"] for r in mine} & {r["seed"] for r in theirs}
    lacking = {r["seed"] for r in (*mine, *theirs)} - seeds
    by_seed = [{r["seed"]: r for r in records} for records in (mine, theirs)]
    a, b = (outcomes([records[seed] for seed in sorted(seeds)], measure) for records in by_seed)
    if a is None or b is None or a.shape != b.shape:
        return None
    if len(a) == 1:
        only_a, only_b, p = mcnemar(a[0], b[0])
        points = 100 * (only_a - only_b) / a.shape[1]
        told = f"{points:+.1f} (right alone on {only_a} rows against {only_b}, p = {p:.2g})"
        noise, by_seed_told = p >= 0.05, ""
    else:
        points, low, high = crossed_difference(a, b)
        told = f"{points:+.1f} [{low:+.1f}, {high:+.1f}]"
        noise = low <= 0 <= high
        tests = (f"{seed}: {mcnemar(*rows)[2]:.2g}"
                 for seed, *rows in zip(sorted(seeds), a, b, strict=True))  # fmt: skip
        by_seed_told = f" (McNemar's p by seed: {', '.join(tests)})"
    if lacking:
        told += f", seed{'s' * (len(a) > 1)} {', '.join(map(str, sorted(seeds)))} alone"
    told += ", not distinguishable from noise" if noise else ""
    return (told + by_seed_told).replace("-", "−")


TESTS = (
    "one seed: McNemar's exact test; several: 95 % interval for new rows and seeds, and that test "
    "of each; not corrected for their number"
)


@dataclass(frozen=True)
class Control:
    """A dense model that a ticket is to be read beside. `records`: empty where it was not run."""

    name: str
    wanted: str
    records: list[dict]


def controls_of(ticket: list[dict], records: list[dict]) -> list[Control]:
    """The matched dense models of a ticket's records (one a seed), among all `records`.

    As many epochs, the same last training loss, as many passes over the labels as the ticket and
    its mask have seen; with the same training settings, attack and rows.
    """
    first = ticket[0]
    keys = (*STRICT_COMPARISON, "training_settings")
    seeds = {r["seed"] for r in ticket}
    dense = [
        r
        for r in records
        if r["ticket"] is None
        and r.get("method", "plain") == "plain"
        and r["seed"] in seeds
        and all(r.get(key) == first.get(key) for key in keys)
    ]
    by_seed = {r["seed"]: r for r in ticket}
    plain = [r for r in dense if r.get("stop_at_loss") is None]

    loss = _mean_last_loss(ticket)
    wanted = "training loss unknown" if loss is None else f"loss {loss:.3f}"
    stopped = [r for r in dense if _stops_for(r, by_seed[r["seed"]])]
    reached = [r for r in stopped if _last_loss(r) <= r["stop_at_loss"]["loss"]]
    if len(reached) < len(stopped):
        wanted += f", not reached in {max(r['epochs'] for r in stopped)} epochs"
    controls = [
        Control("same epochs", f"{first['epochs']} epochs",
                one_per_seed([r for r in plain if r["epochs"] == first["epochs"]])),
        Control("same training loss", wanted, one_per_seed(reached)),
    ]  # fmt: skip
    passes = {r.get("label_passes") for r in ticket}
    if passes != {first["epochs"]}:
        wanted = f"{max(passes)} epochs" if None not in passes else "its number is in no record"
        same = [r for r in plain if r["epochs"] == by_seed[r["seed"]].get("label_passes")]
        controls.append(Control("same passes over the labels", wanted, one_per_seed(same)))
    return controls


def missing_controls(controls: list[Control], ticket: list[dict]) -> list[str]:
    """Names of the controls that lack one of the ticket's seeds, or all."""
    seeds = {r["seed"] for r in ticket}
    return [c.name for c in controls if seeds - {r["seed"] for r in c.records}]


def _last_loss(record: dict) -> float | None:
    """Mean training loss of the run's last epoch; `mean_training_loss` is of the checkpoint's."""
    found = record.get("last_training_loss")
    return record.get("mean_training_loss") if found is None else found


def _mean_last_loss(records: list[dict]) -> float | None:
    losses = [loss for r in records if (loss := _last_loss(r)) is not None]
    return statistics.fmean(losses) if losses else None


def _stops_for(dense: dict, ticket: dict) -> bool:
    """Whether a dense model was trained to stop where its loss would be this ticket's."""
    stop, loss = dense.get("stop_at_loss"), _last_loss(dense)
    if not stop or not stop.get("ticket") or loss is None:
        return False
    same = all(stop["ticket"].get(key) == ticket["ticket"].get(key)
               for key in ("kind", "sparsity_asked", "scores_sha256", "reinitialised"))  # fmt: skip
    # Tickets of several seeds can have one score file; each ended at a loss of its own.
    same = same and stop.get("seed", dense["seed"]) == ticket["seed"]
    return same and stop["epochs"] == ticket["epochs"]
