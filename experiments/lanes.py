"""Lanes of a plan: how Slurm, which caps only each array, runs a number of jobs at once at most."""

from experiments.units import Array


class Lanes:
    """Each job waits for the one before it in its lane, so that as many run at once as there are
    lanes. An array of several tasks has several lanes, and holds them until its last task ends.

    The lane is one in which a job begins first, by the planner's expected seconds. Other times can
    leave a lane empty, but never let more jobs run.
    """

    def __init__(self, count: int):
        self.last: list[set[str]] = [set() for _ in range(count)]  # ids to wait for
        self.free = [0.0] * count  # expected seconds from now
        self.ends: dict[str, float] = {}  # of a unit, by key
        self.numbers: dict[str, str] = {}  # of its job, if that is not a task of an array

    def hold(self, key: str, seconds: float, number: str, lanes: list[int]) -> None:
        """Note a job, or a task of an array, that is in the queue already."""
        job, _, task = number.partition("_")
        for lane in {lane % len(self.last) for lane in lanes}:  # --max_jobs may have changed
            self.last[lane].add(job)
            self.free[lane] += seconds / len(lanes)
        self.ends[key] = seconds
        if not task:
            self.numbers[key] = job

    def choose(self, array: Array) -> list[int]:
        """The lanes of an array, or of one job."""
        ready = max((self.ends[need] for need in array.needs), default=0.0)
        needs = {self.numbers.get(need) for need in array.needs}

        def cost(lane: int) -> tuple:
            waits = self.last[lane]
            # Best after what it needs, then in an unused lane, then in one that ends just before.
            kind = 0 if waits and waits <= needs else 1 if not waits else 2
            return max(ready, self.free[lane]), kind, -self.free[lane]

        lanes = sorted(range(len(self.last)), key=cost)[: len(array.units)]
        begin = max(ready, *(self.free[lane] for lane in lanes))
        end = begin + sum(unit.seconds for unit in array.units) / len(lanes)
        self.ends |= {unit.key: end for unit in array.units}
        for lane in lanes:
            self.free[lane] = end
        return sorted(lanes)

    def waits_for(self, lanes: list[int]) -> list[str]:
        """Ids of the jobs that must have ended before a job in these lanes begins."""
        return sorted(set().union(*(self.last[lane] for lane in lanes)), key=int)

    def put(self, array: Array, number: str, lanes: list[int]) -> None:
        if len(array.units) == 1:
            self.numbers[array.units[0].key] = number
        for lane in lanes:
            self.last[lane] = {number}
