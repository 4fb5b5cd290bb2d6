"""Figures of the run: where the time went in each stage, and what each rank did when."""

from __future__ import annotations

import numpy as np

from .figure import OTHERS, note_empty, one_figure, styled
from .inputs import Span, Timing
from .robust import evenly

__all__ = ["KINDS", "gantt_figure", "timing_figure", "timing_rows"]

KINDS = {"compute": "#2a7fb8", "read": "#3a9a4b", "write": "#d98c00", "mpi": "#7b3fa0", "wait": "#bbbbbb"}


def timing_rows(timings: list[Timing]) -> list[dict]:
    """Per stage and kind: least, mean and most seconds over the ranks, share of the stage's time, slowest rank."""
    result = []
    for stage in dict.fromkeys(item.stage for item in timings):
        some = [item for item in timings if item.stage == stage]
        total = sum(sum(item.seconds.values()) for item in some)
        for kind in dict.fromkeys(kind for item in some for kind in item.seconds):
            values = np.array([item.seconds.get(kind, 0.0) for item in some])
            result.append({"stage": stage, "kind": kind, "ranks": len(some), "least": float(values.min()),
                           "mean": float(values.mean()),
                           "most": float(values.max()), "share": float(values.sum() / total)
                           if total > 0 else float("nan"),
                           "most_rank": some[int(values.argmax())].rank})
    return result


@styled
def timing_figure(timings: list[Timing]):
    """Mean seconds per rank in each stage, stacked by kind; the line goes from the quickest to the slowest rank."""
    stages = list(dict.fromkeys(item.stage for item in timings))
    figure, axes = one_figure(6.8, 1.2 + 0.42 * max(len(stages), 2))
    if not stages:
        note_empty(axes, "no timings")
        return figure
    place = np.arange(len(stages))
    start = np.zeros(len(stages))
    kinds = list(dict.fromkeys([kind for kind in KINDS] + [kind for item in timings for kind in item.seconds]))
    for k, kind in enumerate(kinds):
        values = np.array([np.mean([item.seconds.get(kind, 0.0) for item in timings if item.stage == stage])
                           for stage in stages])
        if values.any():
            axes.barh(place, values, left=start, color=KINDS.get(kind, OTHERS[k % len(OTHERS)]), height=0.6, label=kind)
            start += values
    busy = [[sum(value for kind, value in item.seconds.items() if kind != "wait") for item in timings
             if item.stage == stage]
            for stage in stages]
    axes.errorbar([np.mean(b) for b in busy], place, xerr=[[np.mean(b) - min(b) for b in busy],
                                                           [max(b) - np.mean(b) for b in busy]],
                  fmt="|", color="#111111", capsize=3, lw=1.2, label="busy: least, mean, most")
    axes.set_yticks(place, stages)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="seconds per rank", title=f"Time per stage, mean over {len({item.rank for item in timings})} ranks")
    figure.legend(loc="outside lower center", ncols=6)
    return figure


@styled
def gantt_figure(spans: list[Span], most: int = 64):
    """What each rank worked on when; at most `most` ranks are drawn, evenly chosen."""
    ranks = sorted({span.rank for span in spans})
    shown = [ranks[k] for k in evenly(len(ranks), most)]
    figure, axes = one_figure(7.4, 1.4 + 0.22 * max(len(shown), 2))
    if not spans:
        note_empty(axes, "no times of parts")
        return figure
    line = {rank: k for k, rank in enumerate(shown)}
    for k, stage in enumerate(dict.fromkeys(span.stage for span in spans)):
        some = [span for span in spans if span.stage == stage and span.rank in line]
        axes.barh([line[span.rank] for span in some], [span.end - span.start for span in some],
                  left=[span.start for span in some],
                  height=0.8, color=OTHERS[k % len(OTHERS)], edgecolor="white", linewidth=0.4, label=stage)
    axes.set_yticks(range(len(shown)), [str(rank) for rank in shown], fontsize=7 if len(shown) < 40 else 5)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="seconds since the start", ylabel="rank", title="Parts by rank" if len(shown) == len(ranks)
             else f"Parts by rank ({len(shown)} of {len(ranks)} ranks)")
    figure.legend(loc="outside lower center", ncols=6)
    return figure
