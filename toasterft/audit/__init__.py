"""Check and preview a data set before a run costs money.

kinds            the kinds of faults, how grave each is, and what `--fix` does about it
images           every image: there, whole, not huge
near_duplicates  which images look the same
labels           answers that cannot be meant
traces           traces that miss their answer, mention a given one, or run long
cross_rows       duplicates, contradictions, leaks, classes
check            all of it over one data set
fix              the cleaned copy
preview          rows as a model is taught them; `preview_html` makes one HTML file of them
"""
