"""The colours that figures name by role, for light and dark ground."""

from __future__ import annotations

from typing import Final

LIGHT: Final = {
    "ground": "#f6f5f1",
    "card": "#ffffff",
    "line": "#e4e1d8",
    "grid": "#ebe8e0",
    "ink": "#17212b",
    "soft": "#5b6570",
    "accent": "#0b7a6b",
    "accent-wash": "#0b7a6b1f",
    "warm": "#c8501a",
    "cool": "#3458b8",
}
DARK: Final = {
    "ground": "#0e1419",
    "card": "#161e25",
    "line": "#25303a",
    "grid": "#222d37",
    "ink": "#e9eef2",
    "soft": "#a3afba",
    "accent": "#4fd1b5",
    "accent-wash": "#4fd1b526",
    "warm": "#ff9d5c",
    "cool": "#8fb0ff",
}
