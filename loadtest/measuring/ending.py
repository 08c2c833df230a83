"""How a script ends that has started other programs: by itself, by SIGINT, SIGTERM or SIGHUP, and then nothing is left of them.

A signal becomes the exception `Stopped` in the main thread, once: what is cleaned up on its way out is not cut short by a second one.
Programs run in sessions of their own, so that Ctrl-C in a terminal reaches only the script, which ends them. Otherwise a server would
drain while its load went on, and the result would look like one. A terminal that is closed reaches only the script as well.
"""

import contextlib
import os
import signal
import subprocess
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Wrong(Exception):
    """Something the caller can mend; its text says how."""


class Stopped(BaseException):
    """The script was told to end."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


class _Arrived:
    """Signals between their arrival and their exception."""

    held = 0
    number = None


def _on_signal(number, _):
    if _Arrived.number is not None:
        return
    _Arrived.number = number
    if not _Arrived.held:
        raise Stopped(number)


@contextlib.contextmanager
def held():
    """Lets a signal wait until the end of the block: what is started in it is noted by whoever will end it, what is removed is gone."""
    before = _Arrived.number
    _Arrived.held += 1
    try:
        yield
    finally:
        _Arrived.held -= 1
        if _Arrived.number is not None and before is None and not _Arrived.held:
            raise Stopped(_Arrived.number)


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_script(name, main, code_if_wrong=2):
    """Ends the process with what `main` returns, with 128 + the signal that stopped it, or with `code_if_wrong`."""
    for number in SIGNALS:
        # nohup means it; SIGINT is ignored as well by what a script starts with '&', and can still be sent on purpose.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    try:
        code = main()
    except Stopped as stopped:
        # The terminal may be what is gone.
        with contextlib.suppress(OSError):
            say(f"{name}: stopped by {signal.Signals(stopped.number).name}")
        code = 128 + stopped.number
    except (Wrong, subprocess.CalledProcessError) as wrong:
        say(f"{name}: {wrong}")
        code = code_if_wrong
    sys.exit(code)


def end(process):
    """Kills a program started by `start` and all that it has started, and waits for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start(command, **options):
    """A program in a session of its own. Its caller holds signals (`held`) until it can `end` it."""
    return subprocess.Popen([str(part) for part in command], start_new_session=True, stdin=subprocess.DEVNULL, **options)


def run(command, timeout=None, check=False, **options):
    """What subprocess.run does, but whatever cuts it short also ends the programs that `command` has started."""
    process = None
    try:
        with held():
            process = start(command, **options)
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        if process is not None:
            end(process)
        raise
    if check and process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, [str(part) for part in command], out, err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
