"""`python -m fedai.cli`: the console command without its script."""

from fedai.cli.app import main

main()
