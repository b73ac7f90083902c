"""`python -m agent`: the same as the `headgate` command."""

from agent.cli import main

if __name__ == "__main__":
    main(prog_name="headgate")
