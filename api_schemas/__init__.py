"""The words everyone uses: configuration, manifest, operating point, report and HTTP bodies."""
