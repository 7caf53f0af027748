"""`python -m edgecache` is `edgecache`."""

from edgecache.cli import main

if __name__ == "__main__":
    main()
