"""``tenfold serve``: trained models behind HTTP.

One front process speaks HTTP (Starlette on uvicorn) and holds the queue; worker processes parse, decode and compute, so
that a stranger's bytes are never opened where the connections are. No training framework is imported unless one is
named as the runtime.

    client ──► connection.py ──► gate.py ──► routes ──► pool.py ══ socket ══► worker.py ──► handler.py
               deadlines,        ids, keys,   bounded    queue,                a process     bodies, pictures,
               limits            logs,        bodies     batches,              a core        model, JSON
                                 figures                 deadlines
"""
