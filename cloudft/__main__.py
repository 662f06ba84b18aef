"""`python -m cloudft`."""

from cloudft.cli.main import main

if __name__ == "__main__":
    main()
