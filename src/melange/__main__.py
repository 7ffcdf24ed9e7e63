"""``python -m melange`` is the command ``melange``."""

from melange.cli import main

if __name__ == "__main__":
    main()
