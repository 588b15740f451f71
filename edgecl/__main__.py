"""`python -m edgecl` is the same as `edgecl`."""

from edgecl.cli import main

main()
