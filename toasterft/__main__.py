"""`python -m toasterft`, and what `accelerate launch -m toasterft` runs."""

from toasterft.cli import main

main()
