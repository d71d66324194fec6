"""Side-by-side measurements of the disk engine: `python -m bench`."""
