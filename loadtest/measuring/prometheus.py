"""A real Prometheus, found or unpacked, that scrapes servers."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from . import ending
from .checks import demand, wait_for
from .ending import say
from .server import Lease

NOT_FOUND = "neither prometheus and promtool on PATH nor Debian's package to unpack"


def find_prometheus():
    """Paths of prometheus and promtool; `None` where they cannot be had."""
    on_path = [shutil.which(name) for name in ("prometheus", "promtool")]
    if all(on_path):
        return on_path
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tidegate"
    home = cache / "prometheus-debian"
    unpacked = [home / "usr/bin/prometheus", home / "usr/bin/promtool"]
    cache.mkdir(parents=True, exist_ok=True)
    # Two runs may come here at once: the second one waits for the first.
    with open(cache / "prometheus.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(path.exists() for path in unpacked) and not unpack_package("prometheus", home):
            return None
    return [str(path) for path in unpacked]


def unpack_package(name, home):
    if not all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb")):
        return False
    say(f"== unpacking Debian's {name} to {home}")
    with tempfile.TemporaryDirectory() as folder:
        if not download(name, folder):
            # The lists of packages may be missing or old.
            if os.geteuid() == 0:
                ending.run(["apt-get", "update", "-qq"], timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if not download(name, folder):
                return False
        [package] = pathlib.Path(folder).glob("*.deb")
        new = home.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        ending.run(["dpkg-deb", "-x", package, new], check=True)
        shutil.rmtree(home, ignore_errors=True)
        new.rename(home)
    return True


def download(name, folder):
    got = ending.run(["apt-get", "download", "-qq", name], cwd=folder, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return got.returncode == 0


class Prometheus:
    """A Prometheus that scrapes `servers` twice a second under the rules of `rules`. `flags` are further ones of its own."""

    def __init__(self, binary, home, servers, rules, flags=()):
        self.lease, self.process = Lease(), None
        self.url = f"http://127.0.0.1:{self.lease.port}"
        self.said = home / "prometheus.txt"
        config = home / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "tidegate", "static_configs": [{"targets": [instance(server) for server in servers]}]}],
        }))
        command = [binary, f"--config.file={config}", f"--storage.tsdb.path={home / 'tsdb'}", f"--web.listen-address=127.0.0.1:{self.lease.port}", *flags]
        try:
            with open(self.said, "w") as said, ending.held():
                self.process = ending.start(command, stdout=said, stderr=subprocess.STDOUT)
            wait_for("Prometheus is ready", self._is_ready)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _is_ready(self):
        demand(self.process.poll() is None, f"Prometheus ended: {self.said.read_text()[-2000:]}")
        with contextlib.suppress(OSError, urllib.error.URLError):
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        return False

    def _ask(self, path, **parameters):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        return self._ask("query", query=expression)["result"]

    def rules(self):
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def firing(self, name, server):
        """The alert's annotations, if it fires for that server."""
        for alert in self._ask("alerts")["alerts"]:
            labels = alert["labels"]
            if alert["state"] == "firing" and (labels["alertname"], labels["instance"]) == (name, instance(server)):
                return alert["annotations"]
        return None

    def close(self):
        with ending.held():
            if self.process is not None:
                ending.end(self.process)
            self.lease.close()


def instance(server):
    return f"127.0.0.1:{server.admin}"
