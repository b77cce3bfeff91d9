"""The committed records of the suite `reference`, and the documents that are made from them.

python -m benchmarks.studies.reference collect --results FOLDER     # finished runs -> results/reference/*.xz
python -m benchmarks.studies.reference expand --to FOLDER           # and back, for bench.py report, compare, ...
python -m benchmarks.studies.reference switches --results FOLDER    # commands of runs beside the suite that are missing
python -m benchmarks.studies.reference join METHOD --results FOLDER # a new method: its runs, then collect and build
python -m benchmarks.studies.reference build                       # docs/results.md, docs/figures/, README.md
python -m benchmarks.studies.reference check                       # are these what the records make, byte for byte?
"""
