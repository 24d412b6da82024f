"""Statistics: what activation- and gradient-informed methods must know of running models.

`view` and `store` (the file: written, checked, read) stand above the merge, which reads them;
`calibrate`, which runs models and makes the file, stands below it.
"""
