"""`python -m stockade.sandbox.runtime`: the command where it is not started through boot.py."""

from stockade.sandbox.runtime.main import main

if __name__ == "__main__":
    main()
