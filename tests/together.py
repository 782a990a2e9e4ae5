"""Several processes of one program, which get torchrun's environment; what they import is imported once.

together.py COUNT MODULES SCRIPT ARGS     MODULES: names with commas between them
As by torchrun, the others get SIGTERM when one of them fails. $NETWORKS may name a network namespace for each.
"""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path


@contextmanager
def started(count: int, modules: str, script: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen]:
    """The process that starts them; its status is 0 if each one's is, its output theirs. They meet at a free port."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    paths = os.pathsep.join(str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parent))
    place |= {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths} | environment
    command = [sys.executable, __file__, str(count), modules, str(script), *arguments]
    with subprocess.Popen(
        command,
        env=os.environ | place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def enter(network: str) -> None:
    """Move this process into a network namespace that `ip netns add` has made: a machine of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{network}") as namespace:
        if libc.setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), network)
    os.environ |= {"GLOO_SOCKET_IFNAME": f"cable-{network[-1]}", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def main(count: str, modules: str, script: str, *arguments: str) -> int:
    for name in modules.split(","):
        import_module(name)
    children = []
    for rank in range(int(count)):
        child = os.fork()  # before any of them computes: no thread is lost by it
        if not child:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": count}
            if "NETWORKS" in os.environ:
                enter(os.environ["NETWORKS"].split(",")[rank])
            sys.argv = [script, *arguments]
            runpy.run_path(script, run_name="__main__")
            return 0
        children.append(child)
    failed = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not failed:  # the others would wait for it
            failed = 1
            for other in children:
                os.kill(other, signal.SIGTERM)
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
