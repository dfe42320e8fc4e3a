"""Units of a plan on a cluster: what is a job, arrays of jobs, lanes, and costs."""

import random
from pathlib import Path

import pytest
from fake_slurm import FIRST, jobs_of, plan_words
from plan_tools import finish

import reproduce
from experiments import planner
from experiments.lanes import Lanes
from experiments.paper import FIGURES, TABLES
from experiments.units import Unit, arrays_of, cost_of, units_of


def test_training_attacks_and_shared_scores_are_units(ground):
    rows = ("Rand (global)", "RobustT")
    units = units_of(jobs_of(ground, rows=rows), ground / "runs")
    keys = [unit.key.removeprefix(FIRST) for unit in units]
    assert keys[:2] == ["scores-random", "ticket-random-0.3"]
    assert [key.split("_")[0] for key in keys[2:4]] == [
        "ticket-random-0.3/attacks/deepwordbug",
        "ticket-random-0.3/attacks/pwws",
    ]
    needs = {unit.key.removeprefix(FIRST): unit.needs for unit in units}
    assert needs["ticket-random-0.3"] == (f"{FIRST}scores-random",)
    assert needs["search-robust"] == (f"{FIRST}dense",)  # the model, not its attacks
    assert all(needs[keys[i]] == (f"{FIRST}ticket-random-0.3",) for i in (2, 3))
    order = [unit.key for unit in units]
    for unit in units:
        assert all(order.index(need) < order.index(unit.key) for need in unit.needs)
    # Tickets at several sparsities share their scores.
    flags = [word if word != "table1" else "figure2" for word in plan_words(ground)]
    flags = [w for w in flags if w not in ("--rows", "RobustT", "Rand (global)")]
    figure = units_of(planner.make_plan(reproduce.parse_args(flags)), ground / "runs")
    assert len({unit.key for unit in figure}) == len(figure)


def test_what_is_finished_is_not_a_job(ground):
    jobs = jobs_of(ground)
    for job in jobs:
        finish(job, attacks=False)
        job.look()
    units = units_of(jobs, ground / "runs")
    assert {unit.kind for unit in units if not unit.finished} == {"attack"}
    count, hours, gigabytes = cost_of(units, "mini")
    assert count == 5 and hours > 0 == gigabytes  # four attacks and the report


def unit(key: str, *needs: str, kind: str = "attack", seconds: float = 60) -> Unit:
    return Unit(key, None, kind, needs, seconds, (), False)


def test_short_units_of_one_kind_that_wait_for_the_same_form_an_array():
    units = [unit("a", kind="train"), unit("b", kind="train"), unit("c", "a"), unit("d", "b")]
    units += [unit("e", "a"), unit("long", "a", seconds=7200), unit("f", "gone")]
    arrays = arrays_of(units, {u.key for u in units})
    assert [[u.key for u in array.units] for array in arrays] == [
        ["a", "b"],
        ["c", "e"],
        ["d"],
        ["long"],
        ["f"],
    ]
    assert arrays[-1].needs == ()
    many = arrays_of([unit(str(i)) for i in range(2500)], set())
    assert [len(array.units) for array in many] == [1000, 1000, 500]


def test_no_more_jobs_run_at_once_than_there_are_lanes():
    """Whatever the jobs take; and with enough lanes, each waits only for what it needs."""
    draw = random.Random(0)
    for count in (1, 2, 3, 5, 40):
        units: list[Unit] = []
        for i in range(40):
            needs = draw.sample([u.key for u in units], k=min(i, draw.choice((0, 0, 1, 1, 2))))
            kind = draw.choice(("train", "attack"))
            units.append(unit(str(i), *needs, kind=kind, seconds=draw.choice((60, 600, 9000))))
        lanes, ends, spans = Lanes(count), {}, []
        for number, array in enumerate(arrays_of(units, {u.key for u in units}), 1):
            chosen = lanes.choose(array)
            needs = [ends[need] for need in array.needs]
            begin = max([*needs, *(ends[f"job {n}"] for n in lanes.waits_for(chosen))], default=0)
            assert count < 40 or begin == max(needs, default=0)
            lanes.put(array, str(number), chosen)
            free = [begin] * min(len(array.units), count)  # of the tasks, as %count lets them
            for task in array.units:
                start = min(free)
                ends[task.key] = free[free.index(start)] = start + draw.random()
                spans.append((start, ends[task.key]))
            ends[f"job {number}"] = max(free)
        most = max(sum(a <= start < b for a, b in spans) for start, _ in spans)
        assert most == count if count < 5 else most <= count


PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"


def costs(target: str) -> str:
    """The row of a target on the page, for one and for five seeds."""
    cells = [target]
    for seeds in ("42", "1 2 3 4 5"):
        flags = f"{target} --scale paper --cluster slurm --runs /nowhere --seeds {seeds}".split()
        args = reproduce.parse_args(flags)
        units = units_of(planner.make_plan(args), Path(args.runs))
        count, hours, gigabytes = cost_of(units, "paper")
        cells += [f"{count:,}", f"{hours:,.0f}", f"{gigabytes:,.0f}"]
    return f"| {' | '.join(cells)} |"


@pytest.mark.slow
def test_the_costs_of_the_page_are_those_of_the_planner(request):
    rows = "\n".join(costs(target) for target in [*TABLES, *FIGURES])
    before, start, rest = PAGE.read_text().partition(
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    written, end, after = rest.removesuffix("\n").partition("\n\n")
    if request.config.getoption("--write_tables"):
        PAGE.write_text(before + start + rows + end + after + "\n")
    else:
        assert written == rows, "run the tests with --write_tables"
