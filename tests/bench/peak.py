"""Run a command; print the peak memory of its largest descendant, in MiB, as the last line of stderr."""

import resource
import subprocess
import sys

if __name__ == "__main__":
    code = subprocess.run(sys.argv[1:]).returncode
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, file=sys.stderr)
    sys.exit(code)
