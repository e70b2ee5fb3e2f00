"""Reference traces rewritten from the facts, for groups in which every sample was wrong.

It takes the place of DyME's refiner (arXiv 2506.23061v2), a 14B model that rewrites the hint of each
sample from facts, question, answer and the current template. Here the question's wording says what is to
be worked out, the facts say with which numbers, the template says in which shape, and `checker` has the
last word: a trace that has a fault or misses the gold answer is never returned.

    question   "How much higher is red than blue?"       difference of red and blue
    facts      red = 7, blue = 3, green = 12             7 - 3
    template   facts, step                               red = 7, blue = 3. 7 - 3 = 4.

    template   the shape, and how it is learned      rewrite      by the rules teacher's derivations
    refiner    a run's, which counts and keeps       api_writer   by a model, as in the paper
"""

from toasterft.teachers.refine.api_writer import Writer
from toasterft.teachers.refine.refiner import OUTCOMES, Refiner
from toasterft.teachers.refine.rewrite import refine
from toasterft.teachers.refine.template import ENOUGH_VOTES, MOST_VOTES, PARTS, Template, learn, shape_of

__all__ = [
    "ENOUGH_VOTES",
    "MOST_VOTES",
    "OUTCOMES",
    "PARTS",
    "Refiner",
    "Template",
    "Writer",
    "learn",
    "refine",
    "shape_of",
]
