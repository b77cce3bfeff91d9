#!/usr/bin/env bash
# submitit: one option of sbatch, given by its own name and among the additional parameters, stands in the script twice.
#
# Surprising: submitit refuses an unknown parameter, but does not see that "gpus-per-node" among slurm_additional_parameters
# is slurm_gpus_per_node. The script gets two lines that contradict each other, in the order of Python's names ("-" before
# "_") and not in the order given. Which of the two holds is left to sbatch, which is not run here.
#
# Here: benchmarks/launchers/slurm_settings.py brings all spellings of an option to one, and refuses two values of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q submitit==1.5.4
cd "$work"
mkdir bin
printf '#!/bin/sh\ncp "$1" script.txt\necho "Submitted batch job 1"\n' >bin/sbatch # keeps the script, runs nothing
ln -s sbatch bin/srun                                                            # submitit looks for it
chmod +x bin/sbatch
PATH="$work/bin:$PATH" "$work/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

import submitit

print(f"submitit {submitit.__version__}")
executor = submitit.AutoExecutor("logs", cluster="slurm")
executor.update_parameters(slurm_gpus_per_node=2, slurm_additional_parameters={"gpus-per-node": "a100:4"})
executor.submit(print)
lines = [line for line in Path("script.txt").read_text().splitlines() if "gpus-per-node" in line]
print("\n".join(lines))
same = lines == ["#SBATCH --gpus-per-node=a100:4", "#SBATCH --gpus-per-node=2"]
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
