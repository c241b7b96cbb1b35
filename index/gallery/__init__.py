"""A gallery on disk: generations, live updates, backups."""
