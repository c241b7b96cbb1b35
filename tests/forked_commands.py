"""``limen`` as a child of a process that has imported it, so that a command does not wait for imports.

The process only imports and never computes: neither torch nor BLAS nor FAISS has started a thread in it when
it forks. A script of the same name sends it the arguments, folder, environment and open files.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = (
    *("evaluation.evaluate", "evaluation.diagnose", "evaluation.report.write_report"),
    *("limen.pipeline.make_bundle", "limen.pipeline.measure_decisions", "limen.pipeline.wrap_encoder"),
    *("service.app", "service.server", "training.data.check_data", "training.loop.train", "torch._dynamo"),
)
SCRIPT = """#!{python} -SE
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
server.sendall(told)
pid = int.from_bytes(server.recv(4), "big")
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(pid, number))
status = int.from_bytes(server.recv(4) or bytes([0, 0, 0, 99]), "big")
sys.exit(status)
"""


@cache
def start_server() -> Path:
    """The folder that holds the script ``limen``; the process behind it ends with this one."""
    folder = TemporaryDirectory(prefix="limen-commands-")
    address, script = Path(folder.name) / "socket", Path(folder.name) / "limen"
    script.write_text(SCRIPT.format(python=sys.executable, address=str(address)))
    script.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forked_commands", str(address)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def end() -> None:
        server.kill()
        server.wait()
        folder.cleanup()

    atexit.register(end)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return Path(folder.name)


def serve(address: str) -> None:
    """Fork a command for every connection, until whoever started this process has ended."""
    from limen.cli.main import COMMANDS

    for entry in COMMANDS.values():
        import_module(f"limen.cli.commands.{entry.file}")
    for name in IMPORTED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for commands
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            caller, _ = listener.accept()
            if not os.fork():
                _run_for(caller)
            caller.close()


def _run_for(caller: socket.socket) -> NoReturn:
    """Fork the command that the caller asks for, and tell it the process and the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(caller, 4, 3)
    told = b""
    while len(told) < int.from_bytes(size, "big"):
        told += caller.recv(1 << 16)
    pid = os.fork()
    if not pid:
        caller.close()
        _run(files, *json.loads(told))
    caller.sendall(pid.to_bytes(4, "big"))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    caller.sendall((code if code >= 0 else 128 - code).to_bytes(4, "big"))
    os._exit(0)


def _run(files: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Be the command, and end with its exit code."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["limen", *arguments]
    from limen.cli.main import main

    try:
        main()
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    serve(sys.argv[1])
