"""Batch scripts: one per unit of a plan, one per array of units, and one for the report."""

import os
import shlex
import sys
from pathlib import Path

from experiments.cluster_settings import ClusterSettings, seconds_of
from experiments.commands import ROOT
from experiments.units import Array
from utils.files import write_atomically

MOST_WARNING_SECONDS = 300
# What the jobs need of the environment if it is set; all else is in their commands.
EXPORTED = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "ROBUST_TICKETS_CACHE"),
    *("NLTK_DATA", "CHECKPOINT"),
)

TEMPLATE = """\
#!/bin/bash
{options}
# {title}
# Written by reproduce.py for Slurm. {after}
set -u
SELF={self}
COMMAND=({command})
LOCKS=({locks})

for path in "$SELF" {places}; do
    if [ ! -e "$path" ]; then
        echo "error: the node $(hostname) does not see $path: put it on a file system that all" \\
            "nodes share" >&2
        exit 2
    fi
done
cd {folder} || exit 2
{exports}
export HF_HUB_OFFLINE=1  # the command that submits has fetched data and models
# One thread per CPU of the job, shared by the processes on its GPUs.
cpus=${{SLURM_CPUS_PER_TASK:-${{SLURM_CPUS_ON_NODE:-1}}}}
export OMP_NUM_THREADS=$((cpus >= {processes} ? cpus / {processes} : 1))
export OMP_WAIT_POLICY=${{OMP_WAIT_POLICY:-passive}}
echo "=== job ${{SLURM_JOB_ID:-}} on $(hostname), $(date), restart ${{SLURM_RESTART_COUNT:-0}}"

# Slurm sends TERM before the time limit. The command then saves and exits; one that takes too long
# is killed, and resumes from its last resume point.
stopped=
child=
killer=
stop() {{
    stopped=yes
    [ -n "$child" ] || return 0
    kill -TERM "$child" 2>/dev/null
    (sleep {patience}; kill -KILL "$child") >/dev/null 2>&1 &
    killer=$!
}}
trap stop TERM
run() {{
    [ -z "$stopped" ] || return 143
    "$@" &
    child=$!
    [ -z "$stopped" ] || stop  # the signal came before there was a child
    wait "$child"
    status=$?
    while kill -0 "$child" 2>/dev/null; do  # a signal has ended the wait, not the command
        wait "$child"
        status=$?
    done
    child=
    [ -z "$killer" ] || kill "$killer" 2>/dev/null  # its number may be another's by then
    return "$status"
}}

# A process of this job can still be at work on a node that Slurm has lost.
for lock in ${{LOCKS[@]+"${{LOCKS[@]}}"}}; do
    [ ! -e "$lock" ] || run flock "$lock" true
done
run "${{COMMAND[@]}}"
status=$?
if [ "$status" = 0 ] || {{ [ -z "$stopped" ] && [ "$status" != 143 ]; }}; then
    exit "$status"
fi
# Stopped by a signal. The job keeps its id in the queue, so that others can go on waiting for it.
id=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
id=${{id:-${{SLURM_JOB_ID:-}}}}
if [ -z "$id" ] || [ "$(squeue -h -j "$id" -o %T)" != RUNNING ]; then
    exit "$status"  # somebody cancels it, or Slurm itself puts it back into the queue
fi
if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {max_resubmits} ]; then
    echo "error: not finished after {max_resubmits} restarts (--max_resubmits): submit again" >&2
    exit 1
fi
echo "=== resubmitted"
trap 'exit 143' TERM
scontrol requeue "$id" || exit 1
sleep 60 &  # Slurm ends this script
wait $!
exit 1
"""

ARRAY_TEMPLATE = """\
#!/bin/bash
{options}
# {title}
case "$SLURM_ARRAY_TASK_ID" in
{cases}
esac
"""


class BatchScripts:
    """Writes the scripts of a submission into the folder `slurm` of the runs."""

    def __init__(self, args: ClusterSettings, runs: Path):
        self.args, self.runs = args, runs
        self.folder = runs / "slurm"
        self.logs = self.folder.absolute() / "logs"
        self.written: list[Path] = []
        limit = seconds_of(args.time) if args.time else 86400
        # Of a limit of minutes, Slurm's signal may come half a minute early.
        self.warning_seconds = min(MOST_WARNING_SECONDS, limit // 4)

    def write(self, array: Array) -> Path:
        """The scripts of the units and, if there are several, of their array: that to submit."""
        for unit in array.units:
            gpus = self.args.gpus_per_job if unit.is_training else min(1, self.args.gpus_per_job)
            line = unit.command.line
            if gpus > 1:  # as the stage scripts do
                launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
                line = [line[0], *launcher, str(gpus), *line[1:]]
            needs = ", ".join(array.needs)
            after = f"After these jobs: {needs}." if needs else "It waits for no other job."
            path = self.write_one(unit.key, line, after, gpus, unit.locks)
        if len(array.units) == 1:
            return path
        cases = [
            f"{i}) exec bash {shlex.quote(str(self.script(unit.key)))} ;;"
            for i, unit in enumerate(array.units)
        ]
        last = len(array.units) - 1
        name = f"{array.units[0].key}-and-{last}-more"
        limits = [f"--array=0-{last}%{self.args.max_jobs}"]
        text = ARRAY_TEMPLATE.format(
            options=self.options(name, gpus, limits),
            title=f"{len(cases)} jobs of one kind: {array.kind}",
            cases="\n".join(cases),
        )
        return self.save(name, text)

    def write_one(
        self, key: str, line: list[str], after: str, gpus: int, locks: tuple[Path, ...] = ()
    ) -> Path:
        given = [name for name in EXPORTED if os.environ.get(name)]
        exports = [f"export {name}={shlex.quote(os.environ[name])}" for name in given]
        text = TEMPLATE.format(
            options=self.options(key, gpus),
            title=key,
            after=after,
            self=shlex.quote(str(self.script(key))),
            command=shlex.join(line),
            locks=shlex.join(str(lock.absolute()) for lock in locks),
            places=shlex.join([str(ROOT), sys.executable, str(Path.cwd())]),
            folder=shlex.quote(str(Path.cwd())),
            exports="\n".join(exports) or ":",
            processes=max(gpus, 1),
            patience=max(1, self.warning_seconds - 30),
            max_resubmits=self.args.max_resubmits,
        )
        return self.save(key, text)

    def options(self, name: str, gpus: int, more: list[str] | None = None) -> str:
        """The lines for sbatch. It reads them with quotes, and a backslash as an escape."""
        args = self.args
        words = [f"--job-name={name}", "--requeue", "--open-mode=append", *(more or [])]
        words += [f"--signal=B:TERM@{self.warning_seconds}"]
        words += [f"--partition={args.partition}"] if args.partition else []
        words += [f"--account={args.account}"] if args.account else []
        words += [f"--time={args.time}"] if args.time else []
        words += [f"--gres=gpu:{gpus}"] if gpus else []
        words += shlex.split(args.sbatch_args or "")
        return "\n".join("#SBATCH " + shlex.quote(w).replace("\\", "\\\\") for w in words)

    def script(self, key: str) -> Path:
        return self.folder.absolute() / f"{file_name(key)}.sh"

    def save(self, key: str, text: str) -> Path:
        path = self.script(key)
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
        self.written.append(path)
        return path


def file_name(key: str) -> str:
    return key.replace("/", "-")
