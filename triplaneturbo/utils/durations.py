"""Durations in words: measured ones, and estimates."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Format a duration to about two significant digits: 0.042 s, 0.42 s, 4.2 s, 42 s, 7 min 02 s."""
    if seconds >= 99.5:
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60:02d} s"
    digits = 0 if seconds >= 9.95 else 1 if seconds >= 0.995 else 2 if seconds >= 0.0995 else 3
    return f"{seconds:.{digits}f} s"


def format_estimate(seconds: float) -> str:
    """Format an estimate to at most two significant digits: 0.35 s, 35 s, 4 min, 2.3 h, 12 h, 3 days."""
    if seconds < 99.5:
        return format_duration(seconds)
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes / 60
    if hours < 9.95:
        return f"{hours:.1f} h"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
