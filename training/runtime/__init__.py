"""Devices, precision, processes, signals."""
