"""The committed records of the suite `reference`, and the documents that are made from them.

python -m benchmarks.reference collect --results FOLDER     # finished runs -> results/reference/*.xz
python -m benchmarks.reference expand --to FOLDER           # and back, for bench.py report, compare, ...
python -m benchmarks.reference switches --results FOLDER    # commands of runs beside the suite that are not there yet
python -m benchmarks.reference build                        # docs/results.md, docs/figures/, tables of README.md
"""
