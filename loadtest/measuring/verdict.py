"""What a table says of runs that tidegate-load has declared invalid, or in which the server refused or failed.

The generator judges itself (`valid`, `invalid_because` in loadtest/docs/result.md): where it was the limit, late, or did not run, its
figures say nothing about the server. They are kept, with a mark, because to leave them out would choose the lucky runs.
"""

import argparse

MARK = "‡"
LEGEND = (f"{MARK}: the generator calls the run, or some of the rounds, invalid: it was itself the limit, late, or did not run, so these figures do "
          "not measure the server.")


def mark(results):
    """What stands behind the name of a row of these runs."""
    return "" if all(result["valid"] for result in results) else f" {MARK}"


def notes(rows):
    """A list under a table, in Markdown: why runs are invalid, and what was refused or failed. `rows` are pairs of name and results."""
    lines = []
    for name, results in rows:
        invalid = [result for result in results if not result["valid"]]
        if invalid:
            reasons = [reason for result in invalid for reason in result["invalid_because"]] or ["no reason given"]
            lines.append(f"- {MARK} {name}: {len(invalid)} of {len(results)} invalid, as by: {reasons[0]}")
        asked = sum(result["requests"] for result in results)
        for what, count in (("refused", sum(result["rejected"] for result in results)),
                            ("failed", sum(result["errors"] for result in results))):
            if count:
                lines.append(f"- {name}: {count} of {asked} requests {what} ({count / max(asked, 1):.1%})")
    return lines


def positive(kind):
    """A converter for argparse: a number above zero."""
    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text} is not a {'whole ' if kind is int else ''}number") from None
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value
    return convert
