"""A worker that has nothing to do: every job is done at once. What is left is the cost of telling it."""

import json
import sys


def main() -> None:
    """Serve the driver until it is gone."""
    sys.stdin.readline()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message:
            return
        print(json.dumps({"done": message["job"]}), flush=True)


if __name__ == "__main__":
    main()
