"""Starts services as processes, quickly: each is forked from one that has imported everything.

It reads a line of JSON for each process that it shall start from its standard input, and writes one
when a process has started and one when it has ended. At the end of its input it kills them all.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import services.credits.__main__
import services.generation.__main__
import services.simulator.process
import services.simulator.settings
import services.webhook.__main__  # noqa: F401  Each service starts without importing any more.
from services.runtime import failpoints

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Starts processes until its input ends."""
    gc.freeze()  # What all share is not copied because a collection has touched it.
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    alive: set[int] = set()
    wanted = b""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(readable, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                part = os.read(key.fd, 65_536)
                if key.fd == readable:
                    _report_ended(alive)
                    continue
                if not part:
                    _kill(alive)
                    return
                *lines, wanted = (wanted + part).split(b"\n")
                for line in lines:
                    alive.add(_start(json.loads(line)))


def _start(wanted: dict[str, Any]) -> int:
    process_id = os.fork()
    if process_id == 0:
        _become(wanted)
    _say({"name": wanted["name"], "started": process_id})
    return process_id


def _become(wanted: dict[str, Any]) -> NoReturn:
    """Turns this process into the one that is wanted."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        # Whoever kills the nursery kills them all; this wish is the kernel's to fulfil.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with Path(wanted["log"]).open("a") as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
        with Path(wanted["output"]).open("w") as output:
            os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
        os.environ.clear()
        os.environ.update(wanted["environment"])
        sys.argv = [wanted["module"], *wanted["arguments"]]
        importlib.reload(failpoints)  # It reads the environment when it is imported.
        module, _, function = wanted["module"].partition(":")
        getattr(importlib.import_module(module), function or "main")()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  As the interpreter does with what a program raises.
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _report_ended(alive: set[int]) -> None:
    for process_id in list(alive):
        ended, status = os.waitpid(process_id, os.WNOHANG)
        if ended:
            alive.discard(process_id)
            _say({"ended": process_id, "code": os.waitstatus_to_exitcode(status)})


def _kill(alive: set[int]) -> None:
    for process_id in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process_id, signal.SIGKILL)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
