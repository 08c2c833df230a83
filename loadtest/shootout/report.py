"""From raw runs to the table: medians over rounds, everything also as a fraction of what the bare loops took."""

import statistics

from measuring import verdict

# They store nothing and look at nothing; the faster one is what others are compared with. Dropping is not always it: what is never
# answered comes in other portions, and the generator is what limits both.
BARE_LOOPS = ["sink-drop", "sink-answer"]
UNANSWERED = "sink-drop"
# Outcomes that no slowness of the machine explains.
ANSWERED_WRONGLY = ["wrong_status", "wrong_body", "bad_response", "connection_lost", "connect_failed", "unsolicited"]
# What an answer means, by durability.
WORDS = {"none": "nothing is stored", "memory": "received, in memory", "page cache": "written, page cache", "synced": "synced to the device"}


def median_of(runs, *path):
    values = []
    for run in runs:
        value = run
        for name in path:
            value = value[name]
        values.append(value)
    # Percentiles of nothing are null.
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


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
                "errors": sum(run["result"]["errors"] for run in its),
                "refused": sum(run["result"]["rejected"] for run in its),
                "answered_wrongly": sum(run["result"]["outcomes"][name] for run in its for name in ANSWERED_WRONGLY),
                "requests": sum(run["result"]["requests"] for run in its),
                "invalid_rounds": sum(not run["result"]["valid"] for run in its),
                "invalid_because": sorted({why for run in its for why in run["result"]["invalid_because"]}),
                "mark": verdict.mark([run["result"] for run in its]),
                "notes": verdict.notes([(rival.name, [run["result"] for run in its])]),
            })
        bare = max((row["events_per_second"] for row in rows if row["rival"] in BARE_LOOPS and "rounds" in row), default=None)
        for row in rows:
            if "rounds" not in row:
                continue
            # At a given rate all are equal.
            row["of_bare_loop"] = row["events_per_second"] / bare if bare and not workload.rate else None
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
    return "-" if row["rival"] == UNANSWERED or row[name] is None else number(row[name] / 1000)


def table(entry, probes):
    """The workload's rows, and under them what else is to be said of some."""
    lines = ["| an answer means | server | events/s | min–max of the rounds | of the bare loop | p50, ms | p99, ms | CPU, µs/event "
             "| errors | after kill -9 |", "|---|---|---:|---:|---:|---:|---:|---:|---:|---|"]
    for row in entry["rows"]:
        if "rounds" not in row:
            lines.append(f"| {WORDS[row['durability']]} | {row['name']} | failed in every round: {row['failures'][0]} | | | | | | | |")
            continue
        unchecked = "" if row["validates"] == "JSON" else " †"
        of = "-" if row["of_bare_loop"] is None else f"{row['of_bare_loop']:.1%}"
        refused = f", {row['refused']} refused" if row["refused"] else ""
        lines.append(
            f"| {WORDS[row['durability']]} | {row['name']}{unchecked} | {number(row['events_per_second'])}{row['mark']} "
            f"| {number(row['lowest'])}–{number(row['highest'])} | {of} | {latency(row, 'p50_us')} | {latency(row, 'p99_us')} "
            f"| {number(row['cpu_us_per_event'])} | {row['errors']} of {row['requests']}{refused} | {fate(probes.get(row['rival']))} |")
    notes = [note for row in entry["rows"] for note in row.get("notes", [])]
    return "\n".join(lines + ([""] + notes if notes else []))


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
        "", "Events/s are medians over the rounds of acknowledged events. The bare loop is the faster of the two io_uring loops "
        "that receive the same bytes, at the rate at which this generator loaded it; where that is marked, it could have taken more, and "
        f"the fractions are upper bounds. {verdict.LEGEND} †: does not look at "
        "what it receives; all others parse every event. CPU: time of all of the server's threads, in user and kernel mode, also "
        "that of polling while it waits. After kill -9: what was left of some 2 000 acknowledged events when the server "
        "was killed right after the last answer; what a power cut leaves is not shown by that, and is what `synced` is about.", "",
    ]
    return "\n".join(lines)
