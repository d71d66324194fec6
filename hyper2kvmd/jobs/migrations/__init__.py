"""Schema steps; a released one is never edited, only followed by another."""
