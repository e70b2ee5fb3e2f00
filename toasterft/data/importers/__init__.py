"""Data sets that somebody else laid out, read row by row into a folder of ours."""
