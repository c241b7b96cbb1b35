"""Shell lines as a reader of the documentation types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.forked_commands import start_server


def run_shell(script: str, folder: Path, **variables: str) -> str:
    """What shell lines print, run in a folder with ``limen`` on the path; a failing line fails the test."""
    done = subprocess.run(
        ["bash", "-euc", f"set -o pipefail; {script}"],
        cwd=folder,
        env=os.environ
        | {"PATH": f"{start_server()}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
