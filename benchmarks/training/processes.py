"""Which of torchrun's processes this is, and starting them: without torch, because the command line asks first.

`--devices N` starts N processes of the same command line through torch's elastic launcher, the one behind torchrun.
Both set the same environment, so that a run does not know which of them it was.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from datasets.system import is_posix
from errors import UserError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process through its environment."""


def processes() -> int:
    """Return how many processes make the run that this one belongs to; 1 outside of a launcher."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in NAMES) else 1


def rank() -> int:
    """Return the number of this process among them; 0 is the one that writes and prints."""
    return int(os.environ["RANK"]) if processes() > 1 else 0


def on_this_machine() -> int:
    """Return how many of the processes share this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if processes() > 1 else 1


def must_launch(devices: int | None) -> bool:
    """Return whether `devices` asks for processes that are still to be started.

    Another number than a launcher has started already is a `UserError`.
    """
    if devices is None or devices == processes():
        return False
    if processes() > 1:
        raise UserError(
            f"{devices} devices were asked for.",
            f"The launcher has started {processes()} processes.",
            "Leave --devices out, or ask both for the same number.",
        )
    if not is_posix():
        raise UserError(
            f"{devices} devices were asked for.",
            "Several processes for a run are started on Linux and macOS alone.",
            "Leave --devices out.",
        )
    return True


def launch(count: int, command: Sequence[str]) -> int:
    """Run a command in `count` processes on this machine and return the exit code: 0, or that of the first to fail.

    A process that is killed can say nothing about it, and the others are stopped: that is a `UserError` here.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The processes tell by themselves what went wrong; the launcher's own account is a page for each failure.
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    with tempfile.TemporaryDirectory(prefix="czsl-launch-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=str(Path(logs))),
        )
        try:
            elastic_launch(config, command[0])(*command[1:])
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            for rank, code in codes.items():
                # A negative code is the signal that ended a process; SIGTERM is how the launcher stops what is left.
                if code < 0 and -code != signal.SIGTERM:
                    raise UserError(
                        f"Process {rank} of {count} was ended by {signal.Signals(-code).name}.",
                        "It may have run out of memory.",
                        "The same command goes on from the last finished epoch.",
                    ) from error
            return next((code for code in codes.values() if code > 0), 1)
        except SignalException as error:
            return 128 + int(error.sigval)
        finally:
            for number, handler in handlers.items():  # torch's launcher leaves its own behind
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
    return 0
