"""The initial LR of a function that trains, as it is.

In this folder:  python function.py
"""

from ordinary_training import train

import lratlas


def main() -> None:
    """Search by the accuracy that the function prints, and train as it is advised."""
    advice = lratlas.find(train, samples=540, chance=0.1, limit=1, folder="function-search")
    print(advice)
    if advice.lr is not None:  # one differed from the others
        train(advice.lr)


if __name__ == "__main__":
    main()
