"""A report as text, HTML, PNG and SVG."""
