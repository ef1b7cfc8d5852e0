"""Training commands as people start them: what they say when they fail, and several processes of one."""

import os
import subprocess
import sys

from tests.helpers.paths import ROOT


def failed(capsys) -> str:
    """The error of a run, which is one line."""
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    return error[0]


def in_two_processes(module: str, *arguments: str) -> list[str]:
    """The lines that two processes of a command print; they must end well."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, "-m", module, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
