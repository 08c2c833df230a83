"""Which core does what while something is measured."""

import dataclasses
import os
import re

from .ending import Wrong


@dataclasses.dataclass
class Cores:
    server: int
    helper: int
    generator: str

    @staticmethod
    def choose():
        """One for the server, one for its helpers, the others for the generator; on two cores it shares the helpers'."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise Wrong("two cores are needed at least: one for the server, one for the generator")
        return Cores(allowed[0], allowed[1], ",".join(map(str, allowed[2:4] or allowed[1:2])))

    @staticmethod
    def parse(text):
        """S,H,G as the command line gives them; G may be a list with '+'."""
        found = re.fullmatch(r"(\d+),(\d+),(\d+(?:\+\d+)*)", text)
        if not found:
            raise Wrong(f"--cores takes S,H,G as in 0,1,2+3, not {text}")
        return Cores(int(found[1]), int(found[2]), found[3].replace("+", ","))
