"""What rounding is worth: the same seed trained again with nothing changed but how sums are rounded.

python -m benchmarks.studies.rounding run --methods dfsp csp --results FOLDER   # goes on where it was broken off
python -m benchmarks.studies.rounding summary --results FOLDER                  # a table
python -m benchmarks.studies.rounding summary --results FOLDER --to FILE        # and deviations, for the documents

Each variant is a folder of ordinary records below FOLDER: another number of threads, a limit on vector instructions
(ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA), or one unit in the last place of one number of an initial tensor. A variant
that changes nothing on this processor is seen by its equal epochs and left out of the count.

The documents take the deviations from results/reference/rounding.json.
"""
