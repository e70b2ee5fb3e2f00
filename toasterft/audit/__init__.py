"""What is wrong with a data set, and what it looks like, before it costs money.

findings    the kinds of faults, how grave each is, and what `--fix` does about it
pictures    every image: there, whole, not huge; which are the same, which look the same
labels      answers that cannot be meant
reasoning   traces that miss their answer, speak of a given one, or run long
rows        duplicates, contradictions, classes
check       all of it over one data set
mend        the cleaned copy
preview     rows as a model is taught them; `page` makes one HTML file of them
"""
