"""One connection: its limits, what is refused before it becomes a call of the app, how answers are sent."""
