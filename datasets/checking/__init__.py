"""Whether a data set is whole: its files, its pictures, its sizes against the published ones."""
