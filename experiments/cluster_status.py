"""The state of a plan that was submitted, its expected end, and how to cancel it."""

from datetime import datetime, timedelta

from experiments import slurm
from experiments.submission import Submission
from experiments.units import Unit

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}


def state_of(plan: Submission, key: str, finished: bool) -> str:
    if finished:
        return "finished"
    if key not in plan.states:
        return "not submitted"
    state = plan.states[key].state
    if not plan.is_active(key):
        return "failed"
    return "waiting" if state in WAITING else "running"


def show_status(plan: Submission) -> None:
    """A table of all units and the report, and the last lines of those that failed."""
    now, ends = datetime.now(), dict[str, datetime]()
    rows: list[tuple[str, str, str]] = []
    for unit in plan.units:
        state = state_of(plan, unit.key, unit.finished)
        if state in ("waiting", "running") and (end := _expected_end(plan, unit, ends, now)):
            ends[unit.key] = end
        rows.append((unit.key, state, _number(plan, unit.key)))
    is_written = plan.report in plan.states and plan.states[plan.report].state == "COMPLETED"
    rows.append((plan.report, state_of(plan, plan.report, is_written), _number(plan, plan.report)))
    width = max(len(key) for key, *_ in rows)
    print(f"{'job':{width}} {'state':13} {'id':10} expected end     waits for")
    for key, state, number in rows:
        end = f"{ends[key]:%Y-%m-%d %H:%M}" if key in ends else "-"
        reason = plan.states[key].reason if state == "waiting" else ""
        print(f"{key:{width}} {state:13} {number:10} {end:16} {reason}".rstrip())
    for unit in plan.failed:
        print(f"failed  {unit.key}: {plan.why(unit)}")
    states = [state for _, state, _ in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    end = f"; expected end {max(ends.values()):%Y-%m-%d %H:%M}" if ends else ""
    print(counts + end)


def _number(plan: Submission, key: str) -> str:
    return plan.jobs[key]["id"] if key in plan.states else "-"


def _expected_end(
    plan: Submission, unit: Unit, ends: dict[str, datetime], now: datetime
) -> datetime | None:
    """From Slurm's start and the planner's seconds; None where something it needs has no end."""
    needs = [need for need in unit.needs if need in plan.states and plan.is_active(need)]
    if any(need not in ends for need in needs):
        return None
    begin = max([ends[need] for need in needs], default=now)
    try:
        start = datetime.fromisoformat(plan.states[unit.key].start)
    except ValueError:  # N/A: Slurm has not planned it yet
        start = begin
    is_planned = start < now + timedelta(days=365)  # a full queue has nonsense here
    begin = max(begin, start) if is_planned else begin
    if plan.states[unit.key].state not in WAITING:
        begin = start
    return max(now, begin + timedelta(seconds=unit.seconds))


def cancel(plan: Submission) -> int:
    """Cancel the jobs of this plan that no other plan waits for; their number."""
    keys = [unit.key for unit in plan.units] + [plan.report]
    ids = []
    for key in (key for key in keys if key in plan.states and plan.is_active(key)):
        plans = plan.jobs[key]["plans"]
        if plan.report in plans:
            plans.remove(plan.report)
            if not plans:
                ids.append(plan.jobs.pop(key)["id"])
    slurm.cancel(ids)
    plan.save()
    return len(ids)
