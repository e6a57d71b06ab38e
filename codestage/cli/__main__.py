"""`python -m codestage.cli`, as torchrun starts it."""

from codestage.cli import main

main()
