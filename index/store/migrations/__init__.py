"""Steps that bring an older item store to the form this version reads."""
