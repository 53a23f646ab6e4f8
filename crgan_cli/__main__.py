"""`python -m crgan_cli` is `crgan`."""

from crgan_cli.cli import main

main()
