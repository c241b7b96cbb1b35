"""Networks that were made elsewhere as encoders: how they are found, fed, read and checked."""
