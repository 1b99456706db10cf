"""``--reload``: the server starts again whenever a file of the project has changed, as ``runserver`` does.

The first process starts the command once more as a child, which serves, and looks for changes by Django's
own reloader in a thread beside: there Django's templates and translations say which changes they can take in
without that. (Django has it the other way round; but the server has to have the main thread, whose signals
end it.) Where the child fails, because somebody has saved half a line, the first process waits for the next
change.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from django.utils import autoreload

logger = logging.getLogger("trigger_ddp.reload")

#: Exit code of a child that is to be started again; Django's reloader has the same.
EXIT_CHANGED = 3
#: Seconds that clients and running requests have before a server with old code gives up on them.
PATIENCE_SECONDS = 2.0

_LOOK_SECONDS = 0.5
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def is_child() -> bool:
    """Whether this process is the one that serves."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def restart_on_changes(refusal: int) -> int:
    """Run this command as a child, again and again, until it ends by itself or this process is told to end.

    Args:
        refusal: the exit code of a child that can't start, and has said what the user can mend. The first
            one ends this; a later one may have been caused by a change, and be mended by the next.

    Returns:
        The exit code.
    """
    return _Parent().run(refusal)


class _Parent:
    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._signalled = False

    def run(self, refusal: int) -> int:
        for signum in _FORWARDED:
            signal.signal(signum, self._forward)
        environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        first = True
        while not self._is_stopping():
            begun = time.time()
            self._child = subprocess.Popen(autoreload.get_child_arguments(), env=environ)  # noqa: S603  ourselves
            if self._is_stopping():  # the signal came before there was somebody to pass it on to
                self._child.terminate()
            code = self._child.wait()
            self._child = None
            if self._is_stopping() or code == 0 or (first and code == refusal):
                return max(code, 0)
            first = False
            if code != EXIT_CHANGED:
                logger.warning("the server has ended with %d; it is started again at the next change", code)
                self._wait_for_change(begun)
        return 0

    def _is_stopping(self) -> bool:
        return self._signalled

    def _forward(self, signum: int, frame: FrameType | None) -> None:
        if signum != signal.SIGHUP:
            self._signalled = True
        # A terminal sends SIGINT to all of its processes, and a second one would mean: at once.
        if self._child is not None and not (signum == signal.SIGINT and sys.stdin and sys.stdin.isatty()):
            self._child.send_signal(signum)

    def _wait_for_change(self, since: float) -> None:
        """Return when a source has another time than now, or one later than ``since``, or at a signal."""
        before = dict(_sources())
        if any(changed > since for changed in before.values()):
            return
        while not self._is_stopping() and dict(_sources()) == before:
            time.sleep(_LOOK_SECONDS)


def _sources() -> Iterator[tuple[str, float]]:
    """The project's Python files, with the times of their last changes.

    Those are below the working directory and the directories of ``sys.path``, what is installed left out.
    Which of them the project loads only a server would know that could start.
    """
    for top in {str(Path.cwd()), *(path for path in sys.path if path)}:
        if "site-packages" in top or top.startswith((sys.base_prefix, sys.prefix)):
            continue
        for directory, subdirectories, files in os.walk(top):
            if "pyvenv.cfg" in files:
                subdirectories.clear()
                continue
            subdirectories[:] = [
                name for name in subdirectories if not name.startswith(".") and name != "node_modules"
            ]
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(directory, name)  # noqa: PTH118  there may be very many
                    try:
                        yield path, os.stat(path).st_mtime  # noqa: PTH116
                    except OSError:  # gone in the meantime, which is a change
                        continue


class Changes:
    """Ends the server in this process when a file of the project has changed.

    To be made in the main thread, before the project is loaded. Then the process is to end with
    `EXIT_CHANGED` once the server has ended.

    Attributes:
        noticed: whether a file has changed.
    """

    def __init__(self) -> None:
        self.noticed = False
        # While no server runs that has its own way to end at SIGTERM: during the start.
        signal.signal(signal.SIGTERM, self._end)
        threading.Thread(target=self._look, daemon=True, name="trigger_ddp reload").start()

    def _end(self, signum: int, frame: FrameType | None) -> None:
        sys.exit(EXIT_CHANGED if self.noticed else 128 + signum)

    def _look(self) -> None:
        reloader = autoreload.get_reloader()
        try:
            reloader.run(threading.main_thread())
        except SystemExit:  # the reloader's way to say so; it has logged which file it is
            logger.info("a file has changed: starting again")
            self.noticed = True
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE_SECONDS)
            os.kill(os.getpid(), signal.SIGTERM)
