"""How worker processes start."""

import multiprocessing
import multiprocessing.context


def worker_context(*preloaded: str) -> multiprocessing.context.BaseContext:
    """Return the start method of worker processes.

    They are forked from a server that has imported the modules `preloaded` once, and holds neither a GPU nor threads
    (of torch or tokenizers), which a fork would break. Where there is no such server (Windows), they are spawned.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    return context
