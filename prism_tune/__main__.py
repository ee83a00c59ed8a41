"""`python -m prism_tune` is the same as `prism-tune`."""

from prism_tune.cli.app import main

main()
