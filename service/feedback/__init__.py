"""What people say of decisions: judged, and obeyed by later ones."""
