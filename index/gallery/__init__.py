"""Galleries: what a bundle or a data folder answers, live updates, backups."""
