"""Where a rival runs: its cores, its directory, its process, and what the process costs.

Every rival answers requests on the server core. What it does beside that, where it can be told apart (a writer thread, a merge
pool), runs on the helper core, as tidegate's writer does.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.request

from measuring import ending
from measuring.ending import Wrong
from measuring.server import own_environment

READY_SECONDS_MAX = 60
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Place:
    """A directory on the disk to be measured, which nobody else uses and which is not there yet, ports, and the process that runs there."""

    def __init__(self, home, cores, log_path):
        self.home = pathlib.Path(home)
        self.cores = cores
        self.log_path = log_path
        self.port, self.other_port = free_port(), free_port()
        self.process = None
        self.home.mkdir()

    def file(self, name, text):
        """Writes a configuration file; its path."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, command, cores=None, environment=None, ready=None):
        """Runs a server on the server core, or on `cores` where it pins its own threads, until it listens, and answers 200 at
        the path `ready` if it has one."""
        allowed = cores or {self.cores.server}
        with open(self.log_path, "ab") as log, ending.held():
            self.process = ending.start(
                command, cwd=self.home, stdout=log, stderr=subprocess.STDOUT, env={**own_environment(), **(environment or {})},
                preexec_fn=lambda: os.sched_setaffinity(0, allowed),
            )
        self._wait_until(lambda: socket.create_connection(("127.0.0.1", self.port), timeout=1).close())
        if ready:
            self._wait_until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}{ready}", timeout=5).close())

    def _wait_until(self, it_answers):
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Wrong(f"{self.process.args[0]} ended with {self.process.returncode}: see {self.log_path}")
            try:
                it_answers()
                return
            except OSError:
                time.sleep(0.02)
        raise Wrong(f"{self.process.args[0]} is not ready after {READY_SECONDS_MAX} s: see {self.log_path}")

    def move_helpers(self, pattern):
        """Puts threads whose name matches `pattern` on the helper core."""
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                if re.search(pattern, (task / "comm").read_text()):
                    os.sched_setaffinity(int(task.name), {self.cores.helper})
            except (FileNotFoundError, ProcessLookupError):
                # The thread has ended meanwhile.
                continue

    def cpu_seconds(self):
        """Time on a core of all its threads, also of those that have ended, in user and kernel mode."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2:].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def stop(self):
        """Kills what runs here."""
        if self.process is not None:
            ending.end(self.process)
        self.process = None

    def clear(self):
        """Ends what runs here and removes its data, and lets the disk finish: the next one starts on an idle disk."""
        with ending.held():
            self.stop()
            shutil.rmtree(self.home, ignore_errors=True)
        os.sync()
