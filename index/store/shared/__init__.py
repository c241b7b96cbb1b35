"""What the processes of one service share on the server: choices, jobs, turns."""
