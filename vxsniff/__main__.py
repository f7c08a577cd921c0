"""`python -m vxsniff` is the console script."""

from vxsniff.app.cli import main

if __name__ == "__main__":
    main()
