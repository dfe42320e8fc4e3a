"""How two models differ on the same rows, and the dense models beside which a ticket is read."""

import statistics
from dataclasses import dataclass

from evaluation.intervals import crossed_difference, mcnemar, mean_crossed_difference
from evaluation.records import STRICT_COMPARISON, one_per_seed, outcomes


@dataclass(frozen=True)
class Difference:
    """Between two models on the same rows, in points, over the seeds that both have.

    `bounds`: 95 %, for new rows and seeds; None with one seed. `right_alone`, `p_values`: of
    McNemar's exact test, a pair and a value a seed. `lacking`: seeds that only one of the two has.
    """

    points: float
    bounds: tuple[float, float] | None
    seeds: list[int]
    right_alone: list[tuple[int, int]]
    p_values: list[float]
    lacking: set[int]

    @property
    def is_noise(self) -> bool:
        """Whether it is not distinguishable from none."""
        if self.bounds is None:
            return self.p_values[0] >= 0.05
        return self.bounds[0] <= 0 <= self.bounds[1]

    @property
    def in_short(self) -> str:
        """The points with their interval or p-value; bold where they are not noise."""
        mark = "" if self.is_noise else "**"
        beside = f"p = {self.p_values[0]:.2g}" if self.bounds is None else self._interval
        beside += f" ({self._seeds_alone})" if self.lacking else ""
        return f"{mark}{self.points:+.1f}{mark} {beside}".replace("-", "−")

    @property
    def _seeds_alone(self) -> str:
        return f"seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))} alone"

    @property
    def _interval(self) -> str:
        return f"[{self.bounds[0]:+.1f}, {self.bounds[1]:+.1f}]"

    def __str__(self) -> str:
        told, tests = f"{self.points:+.1f}", ""
        if self.bounds is None:
            (a, b), p = self.right_alone[0], self.p_values[0]
            told += f" (right alone on {a} rows against {b}, p = {p:.2g})"
        else:
            of_seeds = zip(self.seeds, self.p_values, strict=True)
            tests = ", ".join(f"{seed}: {p:.2g}" for seed, p in of_seeds)
            told, tests = f"{told} {self._interval}", f" (McNemar's p by seed: {tests})"
        if self.lacking:
            told += f", {self._seeds_alone}"
        told += ", not distinguishable from noise" if self.is_noise else ""
        return (told + tests).replace("-", "−")


def difference(
    mine: list[dict], theirs: list[dict], measure: str = "aua_percent"
) -> Difference | None:
    """Mine less theirs over the seeds that both have.

    None where the records do not tell (no common seed, other rows, no outcomes row by row).
    """
    seeds, lacking, tables = _paired([(mine, theirs)], measure)
    if tables is None:
        return None
    ((a, b),) = tables
    tests = [mcnemar(*rows) for rows in zip(a, b, strict=True)]
    points, bounds = 100 * (tests[0][0] - tests[0][1]) / a.shape[1], None
    if len(a) > 1:
        points, *ends = crossed_difference(a, b)
        points, bounds = float(points), tuple(map(float, ends))
    return Difference(points, bounds, seeds, [t[:2] for t in tests], [t[2] for t in tests], lacking)


def mean_difference(
    pairs: list[tuple[list[dict], list[dict]]], measure: str = "aua_percent"
) -> Difference | None:
    """The mean over data sets of mine less theirs, over the seeds that all have; `pairs`: (mine,
    theirs) of each. None where the records do not tell, or there are not two such seeds."""
    seeds, lacking, tables = _paired(pairs, measure)
    if tables is None or len(seeds) < 2:
        return None
    points, *bounds = mean_crossed_difference(tables)
    return Difference(points, tuple(bounds), seeds, [], [], lacking)


def _paired(pairs: list[tuple[list[dict], list[dict]]], measure: str) -> tuple:
    """(seeds that all have, those that only some have, outcomes by pair or None if unknown)."""
    sides = [{r["seed"]: r for r in records} for pair in pairs for records in pair]
    seeds = sorted(set.intersection(*map(set, sides)))
    found = [outcomes([side[seed] for seed in seeds], measure) for side in sides]
    tables = list(zip(found[::2], found[1::2], strict=True))
    known = all(a is not None and b is not None and a.shape == b.shape for a, b in tables)
    return seeds, set().union(*sides).difference(seeds), tables if known else None


NOT_REACHED = "not reached"
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
        wanted += f", {NOT_REACHED} in {max(r['epochs'] for r in stopped)} epochs"
    controls = [
        Control(
            "same epochs",
            f"{first['epochs']} epochs",
            one_per_seed([r for r in plain if r["epochs"] == first["epochs"]]),
        ),
        Control("same training loss", wanted, one_per_seed(reached)),
    ]
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
    same = all(
        stop["ticket"].get(key) == ticket["ticket"].get(key)
        for key in ("kind", "sparsity_asked", "scores_sha256", "reinitialised")
    )
    # Tickets of several seeds can have one score file; each ended at a loss of its own.
    same = same and stop.get("seed", dense["seed"]) == ticket["seed"]
    return same and stop["epochs"] == ticket["epochs"]
