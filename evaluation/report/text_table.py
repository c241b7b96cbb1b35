"""A report as a few lines for the terminal."""

from __future__ import annotations

from api_schemas.report import Report

WORST = 5


def format_table(report: Report) -> str:
    """The figures people ask for first, one a line, and the classes that hold the threshold worst."""
    counts, found, checked = report.counts, report.consistency, report.verification
    lines = [
        f"{counts.items:,} items of {counts.classes:,} classes ({report.split}), score: {_score(report)}; "
        f"{counts.genuine_pairs:,} genuine and {counts.impostor_pairs:,} impostor pairs",
        "",
        *_section(
            "Consistency: does one threshold hold for every class?",
            [
                ("OPIS", _small(found.opis)),
                ("OPIS, debiased", _small(found.opis_debiased) + _interval(found.opis_ci)),
                ("OPIS, log-FAR", _small(found.opis_logfar)),
                (
                    "OPIS, log-FAR, debiased",
                    _small(found.opis_logfar_debiased) + _interval(found.opis_logfar_ci),
                ),
                *(
                    (f"OPIS of {_percent(float(e))} classes", _small(v))
                    for e, v in found.epsilon_opis.items()
                ),
            ],
        ),
        *_section(
            "Verification: are these two the same?",
            [
                ("EER", _percent(checked.eer)),
                ("AUC", _share(checked.auc)),
                *(
                    (f"accepted at FAR {_percent(float(far))}", _percent(tar))
                    for far, tar in checked.tar_at_far.items()
                ),
            ],
        ),
        *_section(
            "Retrieval: what is nearest?",
            [
                ("recall@1", _percent(report.retrieval.recall_at_1)),
                ("recall@10", _percent(report.retrieval.recall_at_10)),
                ("R-precision", _percent(report.retrieval.r_precision)),
                ("MAP@R", _percent(report.retrieval.map_at_r)),
            ],
        ),
    ]
    who = report.identification
    if who is not None:
        lines += _section(
            f"Identification: who is this, of {who.gallery.classes:,} classes ({who.gallery.items:,} items)?",
            [
                *(
                    (f"missed at FPIR {_percent(float(fpir))}", _percent(fnir))
                    for fpir, fnir in who.fnir_at_fpir.items()
                ),
                ("AUROC of known against unknown", _share(who.auroc)),
            ],
        )
    worst = worst_classes(report, WORST)
    if worst:
        width = max(max(len(row[0]) for row in worst), 5)
        lines += [
            f"Worst classes, means over FAR {_percent(found.calibration_range.far[0])} to "
            f"{_percent(found.calibration_range.far[1])}"
            if found.calibration_range
            else "Worst classes",
            f"  {'class':<{width}}  items     FAR     FRR  utility",
            *(
                f"  {label:<{width}}  {n:>5}  {_percent(far):>6}  {_percent(frr):>6}  {utility:>7.3f}"
                for label, n, far, frr, utility in worst
            ),
            "",
        ]
    lines += [f"Note: {reason}" for reason in report.reasons]
    return "\n".join(lines).rstrip() + "\n"


def worst_classes(report: Report, n: int) -> list[tuple[str, int, float | None, float | None, float]]:
    """(label, items, FAR, FRR, utility) of the classes with the least utility over the range."""
    scored = [row for row in report.consistency.per_class if row.utility is not None]
    ordered = sorted(scored, key=lambda row: (row.utility or 0.0, row.label))[:n]
    return [(row.label, row.n_items, row.far, row.frr, row.utility or 0.0) for row in ordered]


def _section(title: str, rows: list[tuple[str, str]]) -> list[str]:
    return [title, *(f"  {name:<31} {value}" for name, value in rows), ""]


def _score(report: Report) -> str:
    return report.score.kind if report.score.form is None else f"{report.score.kind} ({report.score.form})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"   95 % interval {ends[0]:.5f} to {ends[1]:.5f}"
