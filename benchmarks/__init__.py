"""What happens around a method: runs, training, scoring, evaluation, records and reports."""
