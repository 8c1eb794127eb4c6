"""Parts of `python -m benchmarks.gpu_check`: each a function of the setting and of `report(name, result)`."""
