"""What every room may use: errors, array types, atomic files, progress, optional packages."""
