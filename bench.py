"""The command line of the suite.

    python bench.py run --methods msci csp --dataset mit_states
    python bench.py report
    python bench.py list methods

`benchmarks/commands/app.py` has its commands.
"""

import sys
from pathlib import Path

# A library that is also called `datasets` may be installed; this project's own packages come first wherever it starts.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchmarks.commands.app import main

if __name__ == "__main__":
    main()
