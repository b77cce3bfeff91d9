"""What methods cost: parameters, FLOPs, time by part, memory; measured without data sets or trained weights.

    python bench.py cost --backbone ViT-B-32 --labels mit_states --batch 16
    python bench.py cost --flops-only --backbone ViT-L-14-quickgelu --labels cgqa --world open

`labels.py` knows the real label spaces, `counting.py` counts without computing, `timing.py` measures in a process of
its own (`children.py`), `parts.py` says which part of a method a cost belongs to, and `record.py` is what is written.
docs/profile.md shows tables and says what each number is.
"""
