"""Engines that propose candidates, their registry, memory estimate and self-recall audit."""
