"""`python -m crgan_cli` is `crgan`."""

from crgan_cli.commands.main import main

main()
