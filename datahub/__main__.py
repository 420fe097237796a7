"""``python -m datahub``."""

from datahub.cli import main

if __name__ == "__main__":
    main()
