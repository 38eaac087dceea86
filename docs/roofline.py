#!/usr/bin/env python3
"""Draws speeds under the limits of the machine: a roofline plot (Williams et al. 2009), as SVG.

    bitnet bench -m model.gguf -t 1,2 --roofline -o json >bench.json
    cargo bench -p bitnet-kernels -- --json >kernels.jsonl
    docs/roofline.py bench.json kernels.jsonl >docs/roofline.svg

The horizontal axis is ternary multiply-adds for each byte of ternary weights read, the vertical one
multiply-adds a second, both logarithmic. What reads each weight once stands under the slope, which
is the read bandwidth; what uses it for many tokens under the flat roof, the peak of 8-bit
multiply-adds. There is a roof for each number of threads in bench.json. The second file may be left
out. docs/performance.md describes the fields of both.
"""

import html
import json
import math
import statistics
import sys
from collections import namedtuple

Point = namedtuple("Point", "x y name threads kind")  # multiply-adds per byte, 10^9 a second
Roof = namedtuple("Roof", "threads bandwidth peak")  # GB/s, 10^9 multiply-adds a second

PACKED = {"i2s_r32": 4, "tl2_r32": 4.8}  # ternary weights in a byte, as kernels read them

WIDTH, HEIGHT = 960, 620
LEFT, RIGHT, TOP, BOTTOM = 80, 250, 40, 60
# Apart for eyes that do not tell red from green (Okabe and Ito 2008).
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]


def model_points(results):
    """A point for each test of prompts or generation alone."""
    for r in results:
        if r["n_prompt"] and r["n_gen"]:
            continue
        # That share a pass over the weights. Older results have them as `n_batch`.
        tokens = min(r["n_prompt"], r.get("n_ubatch", r["n_batch"])) or 1
        yield Point(
            PACKED[r["layout"]] * tokens,
            r["model_n_products"] * r["median_ts"] / 1e9,
            f'{r["test"]}, {r["layout"]}',
            r["n_threads"],
            "model",
        )


def kernel_points(rows):
    """The fastest row of each operation, format and shape."""
    best = {}
    for r in rows:
        if not r["id"].startswith(("gemv_", "gemm_")):
            continue
        products = r["rows"] * r["cols"] * r["tokens"]
        name = f'{r["id"]} {r["rows"]}x{r["cols"]}'
        point = Point(products / r["bytes"], products / r["seconds"] / 1e9, name, 1, "kernel")
        key = (r["id"].rsplit("_", 1)[0], r["rows"], r["cols"], r["tokens"])
        if key not in best or best[key].y < point.y:
            best[key] = point
    return list(best.values())


def roofs(results):
    """The median limits for each number of threads."""
    for threads in sorted({r["n_threads"] for r in results}):
        measured = [r for r in results if r["n_threads"] == threads and r["bandwidth"]]
        if not measured:
            sys.exit("no limits in the results: run bitnet bench with --roofline")
        yield Roof(
            threads,
            statistics.median(r["bandwidth"] for r in measured),
            statistics.median(r["peak"] for r in measured),
        )


class Plot:
    """An SVG with two logarithmic axes."""

    def __init__(self, points, limits):
        xs = [p.x for p in points] + [limit.peak / limit.bandwidth for limit in limits]
        ys = [p.y for p in points] + [limit.peak for limit in limits]
        self.x = (min(xs) / 1.6, max(xs) * 2)
        self.y = (min(ys) / 1.6, max(ys) * 1.6)
        self.parts = []

    def place(self, x, y):
        def share(value, ends):
            return math.log(value / ends[0]) / math.log(ends[1] / ends[0])

        across, up = share(x, self.x), share(y, self.y)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    def line(self, ends, color, width=1.0):
        (x1, y1), (x2, y2) = (self.place(*end) for end in ends)
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{color}" stroke-width="{width}"/>'
        )

    def text(self, at, text, anchor="start", color="#222", extra=""):
        x, y = at
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{extra}>'
            f"{html.escape(text)}</text>"
        )

    def axes(self):
        for ends, other, along in ((self.x, self.y, True), (self.y, self.x, False)):
            decades = range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
            for value in (step * 10.0**decade for decade in decades for step in (1, 2, 5)):
                if not ends[0] <= value <= ends[1]:
                    continue
                low, high = other
                if along:
                    self.line(((value, low), (value, high)), "#ddd")
                    x, y = self.place(value, low)
                    self.text((x, y + 18), f"{value:g}", "middle")
                else:
                    self.line(((low, value), (high, value)), "#ddd")
                    x, y = self.place(low, value)
                    self.text((x - 8, y + 4), f"{value:g}", "end")
        middle = (LEFT + WIDTH - RIGHT) / 2
        self.text((middle, HEIGHT - 16), "ternary multiply-adds per byte of ternary weights", "middle")
        turn = f' transform="rotate(-90 20 {HEIGHT / 2})"'
        self.text((20, HEIGHT / 2), "10⁹ ternary multiply-adds a second", "middle", extra=turn)

    def roof(self, index, roof, color):
        ridge = roof.peak / roof.bandwidth
        # Where the slope enters the plot: at its left side or at its bottom.
        x = max(self.x[0], self.y[0] / roof.bandwidth)
        self.line(((x, x * roof.bandwidth), (ridge, roof.peak)), color, 2)
        self.line(((ridge, roof.peak), (self.x[1], roof.peak)), color, 2)
        plural = "s" if roof.threads > 1 else ""
        label = f"{roof.threads} thread{plural}: {roof.bandwidth:.1f} GB/s, {roof.peak:.0f} GMAC/s"
        self.text((WIDTH - RIGHT + 12, TOP + 18 * index), label, color=color)

    def point(self, point, limit, color):
        x, y = self.place(point.x, point.y)
        share = 100 * point.y / min(limit.peak, limit.bandwidth * point.x)
        title = f"{point.name}, threads: {point.threads}, {point.y:.1f} GMAC/s, {share:.0f} % of the roof"
        shape = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}">'
            if point.kind == "model"
            else f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="none" '
            f'stroke="{color}">'
        )
        end = "</circle>" if point.kind == "model" else "</rect>"
        self.parts.append(f"{shape}<title>{html.escape(title)}</title>{end}")
        if point.kind == "model":
            self.text((x + 9, y + 4), f"{point.name} {share:.0f} %", color=color)

    def svg(self):
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="12">\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{body}\n</svg>'
        )


def main(paths):
    if not 1 <= len(paths) <= 2:
        sys.exit(__doc__)
    with open(paths[0], encoding="utf-8") as file:
        results = json.load(file)
    kernels = []
    if len(paths) == 2:
        with open(paths[1], encoding="utf-8") as file:
            kernels = [json.loads(line) for line in file if line.startswith("{")]
    limits = list(roofs(results))
    by_threads = {limit.threads: limit for limit in limits}
    points = list(model_points(results)) + kernel_points(kernels)
    plot = Plot(points, limits)
    plot.axes()
    colors = {limit.threads: COLORS[i % len(COLORS)] for i, limit in enumerate(limits)}
    for index, limit in enumerate(limits):
        plot.roof(index, limit, colors[limit.threads])
    for point in points:
        # A kernel runs on one thread, which bench.json may not have.
        limit = by_threads.get(point.threads, limits[0])
        plot.point(point, limit, colors[limit.threads])
    print(plot.svg())


if __name__ == "__main__":
    main(sys.argv[1:])
