"""From raw runs to the table: medians over rounds, everything also as a fraction of the ceiling."""

import statistics

# They store nothing and look at nothing; the faster one is the ceiling. Dropping is not always it: what is never answered comes
# in other portions, and the generator is what limits both.
CEILINGS = ["sink-drop", "sink-answer"]
UNANSWERED = "sink-drop"
# Outcomes that no slowness of the machine explains.
ANSWERED_WRONGLY = ["wrong_status", "wrong_body", "bad_response", "connection_lost", "connect_failed"]
# What an answer means, by durability.
WORDS = {"none": "nothing is stored", "memory": "received, in memory", "page cache": "written, page cache", "synced": "synced to the device"}


def median_of(runs, *path):
    values = []
    for run in runs:
        value = run
        for name in path:
            value = value[name]
        values.append(value)
    return statistics.median(values)


def summarise(runs, rivals, workloads):
    """One entry per workload and rival that ran, in the order of `rivals`."""
    summary = []
    for workload in workloads:
        rows = []
        for rival in rivals:
            its = [run for run in runs if (run["workload"], run["rival"]) == (workload.key, rival.key)]
            failures = [run["failed"] for run in its if "failed" in run]
            its = [run for run in its if "failed" not in run]
            if not its:
                if failures:
                    rows.append({"rival": rival.key, "name": rival.name, "durability": rival.durability, "failures": failures})
                continue
            rates = [run["result"]["events_per_second"] for run in its]
            rows.append({
                "rival": rival.key, "name": rival.name, "durability": rival.durability, "validates": rival.validates,
                "events_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates), "rounds": rates,
                "p50_us": median_of(its, "result", "latency_us", "corrected", "p50"),
                "p99_us": median_of(its, "result", "latency_us", "corrected", "p99"),
                "p999_us": median_of(its, "result", "latency_us", "corrected", "p999"),
                "cpu_us_per_event": median_of(its, "cpu_us_per_event"),
                "failures": failures,
                "errors": sum(run["result"]["errors"] + run["result"]["rejected"] for run in its),
                "answered_wrongly": sum(run["result"]["outcomes"][name] for run in its for name in ANSWERED_WRONGLY),
                "requests": sum(run["result"]["requests"] for run in its),
                # The server could do more than this generator can ask for.
                "generator_bound": any(not run["result"]["valid"] for run in its),
                "invalid_because": sorted({why for run in its for why in run["result"]["invalid_because"]}),
            })
        ceiling = max((row["events_per_second"] for row in rows if row["rival"] in CEILINGS and "rounds" in row), default=None)
        for row in rows:
            if "rounds" not in row:
                continue
            # At a given rate all are equal.
            row["of_ceiling"] = row["events_per_second"] / ceiling if ceiling and not workload.rate else None
        summary.append({"workload": workload.key, "title": workload.title, "rate": workload.rate, "rows": rows})
    return summary


def number(value):
    """Three significant figures, with thousands apart."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}".replace(",", " ")
    return f"{value:.3g}"


def latency(row, name):
    # With nothing waited for there is no answer to measure.
    return "-" if row["rival"] == UNANSWERED else number(row[name] / 1000)


def table(entry, probes):
    lines = ["| an answer means | server | events/s | min–max of the rounds | of ceiling | p50, ms | p99, ms | CPU, µs/event "
             "| errors | after kill -9 |", "|---|---|---:|---:|---:|---:|---:|---:|---:|---|"]
    for row in entry["rows"]:
        if "rounds" not in row:
            lines.append(f"| {WORDS[row['durability']]} | {row['name']} | failed in every round: {row['failures'][0]} | | | | | | | |")
            continue
        bound = "≥ " if row["generator_bound"] else ""
        unchecked = "" if row["validates"] == "JSON" else " †"
        of = "-" if row["of_ceiling"] is None else f"{row['of_ceiling']:.1%}"
        lines.append(
            f"| {WORDS[row['durability']]} | {row['name']}{unchecked} | {bound}{number(row['events_per_second'])} "
            f"| {number(row['lowest'])}–{number(row['highest'])} | {of} | {latency(row, 'p50_us')} | {latency(row, 'p99_us')} "
            f"| {number(row['cpu_us_per_event'])} | {row['errors']} of {row['requests']} | {fate(probes.get(row['rival']))} |")
    return "\n".join(lines)


def fate(probe):
    if probe is None or probe["stored"] is None:
        return "stores nothing"
    lost = probe["acked"] - probe["stored"]
    return "all there" if lost <= 0 else f"{lost} of {probe['acked']} lost"


def markdown(summary, probes, manifest):
    lines = ["# Shootout", "", f"{manifest['when']}, commit {manifest['commit']}, {manifest['rounds']} rounds of "
             f"{manifest['seconds']} s, in turns.", ""]
    for name, value in manifest["machine"].items():
        lines.append(f"- {name}: {value}")
    lines += [f"- cores: {manifest['cores']}", "", "| server | version |", "|---|---|"]
    lines += [f"| {name} | {version} |" for name, version in manifest["versions"].items()]
    if manifest["absent"]:
        lines += ["", f"Not on this machine: {', '.join(manifest['absent'])}."]
    for entry in summary:
        lines += ["", f"## {entry['workload']}", "", f"{entry['title']}.", "", table(entry, probes)]
    lines += [
        "", "Events/s are medians over the rounds of acknowledged events; the ceiling is the faster of the two bare io_uring "
        "loops that receive the same bytes. ≥: the generator was the limit in at least one round, the server can do more. †: does not look at "
        "what it receives; all others parse every event. CPU: time of all of the server's threads, in user and kernel mode, also "
        "that of polling while it waits. After kill -9: what was left of some 2 000 acknowledged events when the server "
        "was killed right after the last answer; what a power cut leaves is not shown by that, and is what `synced` is about.", "",
    ]
    return "\n".join(lines)
