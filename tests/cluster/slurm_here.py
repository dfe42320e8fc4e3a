"""A whole Slurm on this machine: slurmctld and slurmd with two pretended GPUs. Of the partition
`two`, one node is another machine, which is down."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# Debian's packages: slurmctld slurmd slurm-client munge
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")

CONFIGURATION = """\
ClusterName=here
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2
GresTypes=gpu
KillWait=5
SlurmdTimeout=4
MessageTimeout=3
ReturnToService=2
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=here NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN
NodeName=elsewhere NodeHostname=far NodeAddr=127.0.0.2 CPUs=2 State=DOWN
PartitionName=main Nodes=here Default=YES MaxTime=INFINITE State=UP
PartitionName=two Nodes=here,elsewhere MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"no {lacking[0]}: apt-get install slurmctld slurmd slurm-client munge"
    return None if os.getuid() == 0 else "only root can start slurmd"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def wait_for(is_so, what: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)


def output_of(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout


class Machine:
    """The daemons, and the configuration's folder, which SLURM_CONF must name."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        ports = [free_port(), free_port()]
        text = CONFIGURATION.format(folder=folder, ports=ports)
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text("NodeName=here Name=gpu File=/dev/tty[0-1]\n")
        self.daemons: dict[str, subprocess.Popen] = {}

    def start(self, name: str, *words: str) -> None:
        log = open(self.folder / f"{name}.out", "ab")  # noqa: SIM115  the daemon writes it
        self.daemons[name] = subprocess.Popen([name, *words], stdout=log, stderr=log)
        log.close()

    def start_node(self) -> None:
        self.start("slurmd", "-D", "-N", "here")
        wait_for(
            lambda: output_of("sinfo", "-h", "-p", "main", "-o", "%t").strip() in ("idle", "mix"),
            "the node",
        )

    def kill(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Machine]:
    machine = Machine(folder)
    try:
        if subprocess.run(["munge", "-n"], capture_output=True).returncode:
            subprocess.run(["install", "-d", "-o", "munge", "/run/munge"], check=True)
            machine.start("runuser", "-u", "munge", "--", "munged", "--foreground")
            is_up = ["munge", "-n"]
            wait_for(lambda: not subprocess.run(is_up, capture_output=True).returncode, "munged")
        machine.start("slurmctld", "-D")
        machine.start_node()
        yield machine
    finally:
        output_of("scancel", "--user=root")
        for name in [*machine.daemons]:
            machine.daemons[name].terminate()
            machine.daemons.pop(name).wait(timeout=20)
