"""The table as a picture: one SVG, a panel per workload, a row per server, a dot per round.

Dots on a logarithmic scale, not bars: the servers are two orders of magnitude apart, and a bar's length means nothing on such
a scale.
"""

import math
from xml.sax.saxutils import escape

from measuring import verdict

WIDTH = 1000
LEFT, RIGHT = 330, 120
ROW, PANEL_HEAD, PANEL_FOOT, TOP, BOTTOM = 24, 44, 44, 70, 20
COLOURS = {"none": "#8a8f98", "memory": "#d98a1f", "page cache": "#2f7fc1", "synced": "#1f8a4c"}
WORDS = {"none": "stores nothing", "memory": "answers from memory", "page cache": "answers when written",
         "synced": "answers when synced"}


def text(x, y, what, anchor="start", size=13, colour="#20242a", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(what)}</text>')


def short(value):
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


class Scale:
    """Logarithmic, over whole decades."""

    def __init__(self, values):
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)

    def x(self, value):
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self):
        return [10 ** power for power in range(self.low, self.high + 1)]


def panel(entry, top):
    """Lines of one workload's panel, and its height. Latency where the rate was given, events per second elsewhere."""
    paced = entry["rate"] is not None
    rows = [row for row in entry["rows"] if row.get("events_per_second") and not (paced and row["rival"] == "sink-drop")]
    if not rows:
        return [], 0
    if paced:
        points = [[(row[name] or 0) / 1000 for name in ("p50_us", "p99_us")] for row in rows]
        axis = "ms from the intended send time; small dot: p50, large dot: p99"
    else:
        points = [row["rounds"] + [row["events_per_second"]] for row in rows]
        axis = "events/s; small dots: rounds, large dot: their median"
    scale = Scale([value for row in points for value in row if value > 0])
    bottom = top + PANEL_HEAD + ROW * len(rows)
    lines = [text(12, top + 18, entry["workload"], size=16, weight="bold"), text(90, top + 18, entry["title"].split(":")[0], size=12, colour="#5a616b")]
    for tick in scale.ticks():
        x = scale.x(tick)
        lines.append(f'<line x1="{x:.1f}" y1="{top + PANEL_HEAD - 10}" x2="{x:.1f}" y2="{bottom}" stroke="#dfe2e6"/>')
        lines.append(text(x, bottom + 16, short(tick), "middle", 11, "#5a616b"))
    lines.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 32, axis, "middle", 11, "#5a616b"))
    for index, (row, values) in enumerate(zip(rows, points)):
        y = top + PANEL_HEAD + ROW * index + ROW / 2
        colour = COLOURS[row["durability"]]
        ours = row["rival"].startswith("tidegate")
        lines.append(text(LEFT - 14, y + 4, row["name"], "end", 13, weight="bold" if ours else "normal"))
        low, high = scale.x(min(values)), scale.x(max(values))
        lines.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2" opacity="0.5"/>')
        for value in values[:-1]:
            lines.append(f'<circle cx="{scale.x(value):.1f}" cy="{y}" r="3" fill="{colour}" opacity="0.55"/>')
        lines.append(f'<circle cx="{scale.x(values[-1]):.1f}" cy="{y}" r="6" fill="{colour}"/>')
        lines.append(text(WIDTH - RIGHT + 14, y + 4, short(values[-1]) + (" ms" if paced else "") + row["mark"], size=12))
    return lines, bottom + PANEL_FOOT - top


def svg(summary, subtitle):
    lines, y = [], TOP
    for entry in summary:
        drawn, height = panel(entry, y)
        lines += drawn
        y += height
    x = 12
    legend = []
    for durability, colour in COLOURS.items():
        legend.append(f'<circle cx="{x + 6}" cy="50" r="6" fill="{colour}"/>')
        legend.append(text(x + 18, 54, WORDS[durability], size=12))
        x += 34 + 7 * len(WORDS[durability])
    head = [text(12, 24, "The same events over HTTP, by what an answer promises", size=18, weight="bold"),
            text(WIDTH - 12, 24, subtitle, "end", 11, "#5a616b")]
    if any(row.get("mark") for entry in summary for row in entry["rows"]):
        head.append(text(WIDTH - 12, 54, f"{verdict.MARK} not valid: the generator was the limit, or late", "end", 11, "#5a616b"))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + BOTTOM}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{y + BOTTOM}" fill="#ffffff"/>', *head, *legend, *lines, "</svg>", ""])
