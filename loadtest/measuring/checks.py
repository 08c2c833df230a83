"""What the tests of scripts are made of: demands, waits, and a runner that scripts/test can count."""

import sys
import time
import traceback

from .ending import say

SECONDS_MAX = 60


class Failed(Exception):
    """What was not as it must be."""


def demand(holds, what):
    if not holds:
        raise Failed(what)


def wait_for(what, answer):
    """The first answer that is one; it is asked for again and again."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := answer()):
        demand(time.monotonic() < deadline, f"{what}: not within {SECONDS_MAX} s")
        time.sleep(0.05)
    return found


def run_tests(label, tests):
    """Runs those of `tests`, (name, function), whose name contains an argument of the command line, or all; the exit code."""
    passed, failed = 0, []
    for name, test in tests:
        if sys.argv[1:] and not any(wanted in name for wanted in sys.argv[1:]):
            continue
        try:
            test()
            passed += 1
            say(f"test {name} ... ok")
        except Exception as error:
            failed.append(name)
            say(f"test {name} ... FAILED: {error}" if isinstance(error, Failed) else f"test {name} ... FAILED\n{traceback.format_exc()}")
    # In the form of cargo's own lines, so that scripts/test counts it.
    verdict = "FAILED" if failed else "ok"
    print(f"test result: {verdict}. {passed} passed; {len(failed)} failed ({label}{': ' if failed else ''}{', '.join(failed)})")
    return 1 if failed or not passed else 0
