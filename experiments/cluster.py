"""Give a plan to Slurm instead of the runner."""

import hashlib
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from experiments import cluster_status, prefetch, recorded, slurm, submission
from experiments.batch_scripts import BatchScripts
from experiments.commands import ROOT
from experiments.jobs import Job
from experiments.study import STUDIES
from utils.cli import UserError


def run(args: Namespace, jobs: list[Job], report_words: list[str]) -> None:
    """Submit the plan of reproduce.py to Slurm, or show its state, or cancel it.

    `report_words`: the arguments of reproduce.py that make its report; they name the plan.
    """
    runs = Path(args.runs)
    digest = hashlib.sha256(shlex.join(report_words).encode()).hexdigest()[:8]
    line = [sys.executable, str(ROOT / "reproduce.py"), *report_words]
    scripts = BatchScripts(args, runs)
    plan = submission.Submission(scripts, jobs, f"report-{args.target}-{digest}", line)
    if args.dry_run:
        for path in submission.write_scripts(plan):
            print(f"\n# {path}\n{path.read_text()}", end="")
        return
    slurm.check_here()
    try:
        if args.status:
            plan.look()
            cluster_status.show_status(plan)
        elif args.cancel:
            with plan.opened():
                print(f"cancelled {cluster_status.cancel(plan)} jobs")
        else:
            if args.target in STUDIES:
                recorded.check_inputs([job for job in jobs if not job.finished])
            slurm.check_places([runs, ROOT, Path(sys.prefix)], args.partition)
            prefetch.prefetch(jobs, runs)
            recorded.drop_epochs(jobs)
            with plan.opened():
                count = submission.submit(plan)
            print(f"{count} jobs submitted; add --status to this command to see their state")
    except slurm.Refused as e:
        raise UserError(str(e)) from e
