"""The tables of docs/BENCHMARKS.md, section "tidegate": medians over the rounds, with their range."""

import statistics

from measuring import verdict

UNITS = ((1e6, " M"), (1e3, " k"))


def rate(value):
    """As 3.69 M, 18 k, 4.3 k, 858."""
    for factor, unit in UNITS:
        # What rounds to a thousand is one of the next unit.
        if value >= factor * 0.9995:
            scaled = value / factor
            digits = 2 if factor == 1e6 else 1 if scaled < 10 else 0
            return f"{scaled:.{digits}f}{unit}"
    return f"{value:.0f}"


def time_of(us):
    if us >= 1000:
        return f"{us / 1000:.1f} ms" if us < 10_000 else f"{us / 1000:.0f} ms"
    return f"{us:.0f} µs"


def spread(values, written):
    """The median of the rounds, and from where to where they went if it shows."""
    low, high = written(min(values)), written(max(values))
    median = written(statistics.median(values))
    return median if low == high else f"{median} ({low} – {high})"


def column(results, *path):
    values = []
    for value in results:
        for name in path:
            value = value[name]
        values.append(value)
    return values


# Of the tables of medians: head of a column, how its figures are written, and where they are in a result.
CLOSED = [
    ("requests/s", rate, ("requests_per_second",)),
    ("events/s", rate, ("events_per_second",)),
    ("p50", time_of, ("latency_us", "corrected", "p50")),
    ("p99", time_of, ("latency_us", "corrected", "p99")),
]
OPEN = [
    ("answered, events/s", rate, ("events_per_second",)),
    ("p50", time_of, ("latency_us", "corrected", "p50")),
    ("p99", time_of, ("latency_us", "corrected", "p99")),
    ("p99 from the actual send", time_of, ("latency_us", "uncorrected", "p99")),
    ("slip p99", time_of, ("generator", "slip_p99_us")),
]


def medians(first, columns, rows):
    lines = [f"| {' | '.join([first, *(head for head, _, _ in columns)])} |", "|---" * (len(columns) + 1) + "|"]
    for title, results in rows:
        cells = [spread(column(results, *path), written) for _, written, path in columns]
        lines.append(f"| {' | '.join([title + verdict.mark(results), *cells])} |")
    return lines


def closed_rows(rows):
    return medians("load", CLOSED, rows)


def open_rows(rows):
    return medians("offered", OPEN, rows)


def ramp_rows(rows):
    lines = ["| ramp | kept up with, requests/s | highest goodput of an interval, events/s | p99 | p99 from the actual send | lost |",
             "|---|---|---|---|---|---|"]
    for title, results in rows:
        for result in results:
            measured = [one for one in result["intervals"] if not one["warmup"] and not one["drain"]]
            peak = max((one["events"] / (one["to_s"] - one["from_s"]) for one in measured), default=0)
            verified = result["verdict"]
            lines.append(
                f"| {title}{verdict.mark([result])} | {'all' if result['knee'] is None else rate(result['knee'])} | {rate(peak)} "
                f"| {time_of(result['latency_us']['corrected']['p99'])} | {time_of(result['latency_us']['uncorrected']['p99'])} "
                f"| {verified['lost']} of {verified['acked']} |")
    return lines


def markdown(loads, found):
    """The tables of all loads in `found`, results by name, and what is to be said of single rows."""
    lines = []
    for kind, written in (("closed", closed_rows), ("open", open_rows), ("ramp", ramp_rows)):
        rows = [(load.title, found[load.key]) for load in loads if load.kind == kind and load.key in found]
        if rows:
            lines += [*written(rows), ""]
    everything = [(load.key, found[load.key]) for load in loads if load.key in found]
    if any(verdict.mark(results) for _, results in everything):
        lines += [verdict.LEGEND, ""]
    return "\n".join(lines + verdict.notes(everything)) + "\n"
