"""A real Slurm of two nodes on this machine: Debian's slurmd runs several times on one host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=10
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=60
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=2
PartitionName=low Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=1
"""


def why_not() -> str:
    """Why there can be no Slurm here; "" where there can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    if missing:
        return f"no {', '.join(missing)} on this machine: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as root only"


@contextmanager
def two_nodes() -> Iterator[dict[str, str]]:
    """Start it; gives the environment in which Slurm's commands find it."""
    folder = Path(tempfile.mkdtemp(prefix="fmexp-slurm-"))
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, ports=_free_ports(3)))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {"SLURM_CONF": str(configuration)}
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
         *(f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed"))],
        ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"],
    ]  # fmt: skip
    path = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    started: list[subprocess.Popen[bytes]] = []
    try:
        for daemon in daemons:
            with (folder / f"{daemon[0]}-{len(started)}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(daemon, env=os.environ | environment | {"PATH": path},
                                     cwd=folder, stdout=log, stderr=log)
                )  # fmt: skip
            if daemon[0] == "munged":
                _until(lambda: (folder / "munge.socket").exists())
        _until(
            lambda: (
                slurm(environment, "sinfo", "-h", "-N", "-p", "main", "-o", "%T").split()
                == ["idle"] * 2
            )
        )
        yield environment
    finally:
        if len(started) > 1:
            slurm(environment, "scancel", "--full", "--signal=KILL", "--user=root")
        for process in reversed(started):
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def nodes() -> Iterator[dict[str, str]]:
    """The environment of its commands; a machine without it skips, unless FMEXP_SLURM=required."""
    if reason := why_not():
        (pytest.fail if os.environ.get("FMEXP_SLURM") == "required" else pytest.skip)(reason)
    with two_nodes() as environment:
        yield environment


def slurm(environment: dict[str, str], *command: str) -> str:
    """What one of Slurm's commands prints; "" where it fails."""
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("Slurm does not start")
        time.sleep(0.1)
