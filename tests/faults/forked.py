"""Programs in processes of their own that need not import everything anew: a server imports once and forks for each."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["ynet_lite.paper.run", "ynet_lite.index", "ynet_lite.viewer.gallery"])


def run(program: str, argument, largest: int = resource.RLIM_INFINITY) -> tuple[int, str]:
    """Exit status (minus the signal that ended it) and stderr of ``program``, whose ``sys.argv[1]`` is ``argument``.

    No file that it writes may grow beyond ``largest`` bytes.
    """
    said, told = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(told, program, str(argument), largest))
    process.start()
    told.close()
    with os.fdopen(os.dup(said.fileno())) as stream:
        error = stream.read()
    process.join()
    return process.exitcode, error


def _run(told, program: str, argument: str, largest: int) -> None:
    os.dup2(told.fileno(), 2)
    told.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["-c", argument]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__", "os": os, "sys": sys})
