"""The programs to measure, and a tidegate of one's own on ports that nobody else has."""

import contextlib
import fcntl
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from . import ending
from .ending import Wrong, say

ROOT = pathlib.Path(__file__).resolve().parents[2]
READY_SECONDS_MAX = 60
DRAIN_SECONDS_MAX = 60
# The test harness leases ports by locked files: see tests/support/ports.rs.
PORT_FIRST, PORT_COUNT = 18_000, 14_000
LISTENING = "0A"


def programs(names, profile):
    """Path of each program: named by its variable (TIDEGATE_BIN, TIDEGATE_LOAD_BIN, …), or built with `profile`."""
    given = {name: os.environ.get(name.upper().replace("-", "_") + "_BIN") for name in names}
    for name, path in given.items():
        if path and not os.access(path, os.X_OK):
            raise Wrong(f"{name.upper().replace('-', '_')}_BIN={path} is not a program")
    missing = [name for name, path in given.items() if not path]
    if missing:
        say(f"== building {', '.join(missing)}, profile {profile}")
        packages = [argument for name in missing for argument in ("-p", name)]
        ending.run(["cargo", "build", "--quiet", "--profile", profile, "--bins", *packages], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    folder = "debug" if profile == "dev" else profile
    return {name: pathlib.Path(path or target / folder / name).resolve() for name, path in given.items()}


def own_environment():
    """The environment without settings of tidegate: those of the caller's own server have no business in a measurement."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}


class Lease:
    """A port that no test and no other run uses while this is held."""

    def __init__(self):
        directory = pathlib.Path(tempfile.gettempdir()) / "tidegate-test-ports"
        directory.mkdir(exist_ok=True)
        origin = os.getpid() % PORT_COUNT
        for step in range(PORT_COUNT):
            port = PORT_FIRST + (origin + step) % PORT_COUNT
            lock = open(directory / str(port), "a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            except OSError:
                lock.close()
                continue
            self.port, self.lock = port, lock
            return
        raise Wrong("no port is free")

    def close(self):
        self.lock.close()


def listens(pid, port):
    """Whether that process, and not another one, has a socket that listens on 127.0.0.1:`port`."""
    address = f"0100007F:{port:04X}"
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == address and row[3] == LISTENING}
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) in sockets:
                return True
    return False


class Server:
    """A tidegate with a log of its own. `flags` are those of `serve` beside addresses and directory."""

    def __init__(self, binary, data, log_path, flags=()):
        self.binary, self.data, self.log_path = binary, pathlib.Path(data), pathlib.Path(log_path)
        self.process = None
        self.leases = [Lease(), Lease()]
        self.port, self.admin = (lease.port for lease in self.leases)
        self.url, self.admin_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin}"
        command = [binary, "serve", "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}",
                   "--data", self.data, *flags]
        try:
            with open(self.log_path, "w") as log, ending.held():
                self.process = ending.start(command, stdout=log, stderr=subprocess.STDOUT, env=own_environment())
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Wrong(f"the server ended at once, with {self.process.returncode}: {self._last_words()}")
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=2):
                    if listens(self.process.pid, self.port):
                        return
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(0.05)
        raise Wrong(f"the server was not ready within {READY_SECONDS_MAX} s: {self._last_words()}")

    def _last_words(self):
        said = self.log_path.read_text(errors="replace").strip().splitlines()[-2:]
        return f"{' / '.join(said) or 'it said nothing'} (all of it in {self.log_path})"

    def metrics(self):
        """The page of the admin port, as text."""
        with urllib.request.urlopen(f"{self.admin_url}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def drain(self):
        """Has it answer and store what it took; its exit code, or that it did not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=DRAIN_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            ending.end(self.process)
            return "none: it did not drain"

    def close(self):
        """Ends it at once, whatever it is doing. Its log stays, as its directory belongs to somebody else."""
        with ending.held():
            if self.process is not None and self.process.poll() is None:
                ending.end(self.process)
            for lease in self.leases:
                lease.close()
