"""`python -m demo` is `python -m simcse_tf.demo`."""

from simcse_tf import cli
from simcse_tf.demo.__main__ import main

if __name__ == "__main__":
    cli.run(main)
