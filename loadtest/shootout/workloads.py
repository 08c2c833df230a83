"""What is asked of every rival: the same bodies, from the same generator with the same seed."""

import dataclasses


@dataclasses.dataclass
class Workload:
    key: str
    title: str
    generator: list
    # Requests per second of an open loop; None: as many as the server answers.
    rate: int | None = None

    def arguments(self):
        return self.generator + (["--rate", str(self.rate), "--schedule", "poisson"] if self.rate else [])


WORKLOADS = [
    Workload("batch", "NDJSON batches of 200 events of 266 bytes, 16 connections, closed loop",
             ["--format", "ndjson", "--batch", "200", "--template", "attribution", "-c", "16"]),
    Workload("large", "NDJSON batches of 16 events of 4.2 KB, 16 connections, closed loop",
             ["--format", "ndjson", "--batch", "16", "--template", "large", "-c", "16"]),
    Workload("single", "one event of 266 bytes a request, 64 connections, closed loop",
             ["--format", "single", "--template", "attribution", "-c", "64"]),
    Workload("paced", "NDJSON batches of 200 events of 266 bytes at 250 requests/s (50 000 events/s), Poisson arrivals, open loop: "
             "latency from the intended send time",
             ["--format", "ndjson", "--batch", "200", "--template", "attribution", "-c", "64"], rate=250),
]
# A known number of events, whose fate is asked for after a kill -9.
PROBE = Workload("probe", "200 requests/s of 10 events for a second, then kill -9",
                 ["--format", "ndjson", "--batch", "10", "--template", "attribution", "-c", "4"], rate=200)
