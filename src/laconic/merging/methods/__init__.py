"""The merging methods, one file per family; every file here is imported by the register."""
