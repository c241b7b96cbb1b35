"""A comparison of two models as lines of text."""

from __future__ import annotations

from api_schemas.comparison import Comparison


def describe_comparison(comparison: Comparison) -> str:
    """Differences of figures with their intervals, decisions that flip, and compatibility."""
    lines = [
        f"{comparison.n_items:,} items of {comparison.n_classes:,} classes; "
        "difference = new - old, 95 % interval"
    ]
    for row in comparison.differences:
        if row.a is None or row.b is None or row.difference is None:
            continue
        interval = f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}" if row.interval else "no interval"
        lines.append(f"  {row.name:<24}{row.a:>9.4f}{row.b:>9.4f}{row.difference:>+10.4f}   {interval}")
    flips = comparison.flips
    lines.append(
        f"Flips: genuine pairs {flips.genuine_gained:,} gained, {flips.genuine_lost:,} lost; "
        f"impostor pairs {flips.impostor_gained:,} gained, {flips.impostor_lost:,} lost."
    )
    if comparison.compatibility:
        mixed = comparison.compatibility
        lines.append(
            f"New queries against the old gallery: recall@1 {mixed.recall_at_1_new_old:.4f} "
            f"(old against old {mixed.recall_at_1_old_old:.4f}): "
            f"{'compatible' if mixed.compatible else 'not compatible: embed the gallery again'}."
        )
        rates = (mixed.fpir_new_old, mixed.fpir_old_old, mixed.fnir_new_old, mixed.fnir_old_old)
        shown = ["-" if rate is None else f"{rate:.1%}" for rate in rates]
        lines.append(
            f"  A search at the old threshold {flips.threshold_a:.4f}: strangers matched {shown[0]} (old "
            f"against old {shown[1]}), known missed {shown[2]} (old against old {shown[3]}); `limen export "
            "RUN --gallery-of OLD_BUNDLE` calibrates a threshold of its own."
        )
    return "\n".join([*lines, *comparison.reasons])
