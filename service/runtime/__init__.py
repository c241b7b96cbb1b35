"""Load limits, the compute thread pool, micro-batches of the encoder, background jobs, process memory.

Four limits keep the service quick under overload. Each answers a request it has no room for with 429
(``overloaded``) and ``Retry-After``:

=====================  ==============================  ===============================  =====================
limit                  what it bounds                  which request gets 429           settings
=====================  ==============================  ===============================  =====================
AdmissionQueue         requests whose bodies may be    any ``/v1/`` request that finds  ``max_inflight``,
                       in memory, in all and of one    the queue full, or waits in it   ``max_queue``,
                       client                          for longer than the deadline     ``deadline``, ...
EventLoopLimit         duration of one iteration of    a search or match that comes     ``max_turn``
                       the event loop, which computes  late in one, or behind more than
                       small searches itself           one takes (the first eight of
                                                       an iteration never)
ComputePool            wait for a compute thread       work that would wait longer      ``threads``,
                                                       than ``max_wait`` and than four  ``max_wait``
                                                       times its unloaded duration
                                                       (the first four never; the
                                                       first eight never, where they
                                                       take little CPU time)
EncodeBatches          encoder inputs that wait for    a request with inputs while      ``threads``,
                       a compute thread                four full batches per thread     ``encode_batch``
                                                       wait
=====================  ==============================  ===============================  =====================

``ComputePool.check_wait`` and ``EventLoopLimit.check_arrival`` run when the headers of a search or match are
here, before it is a call of the app (``http/protocol/load_gate.py``), so that refusing it costs little, and
what is refused there is answered at a bounded rate (``http/protocol/connections.py``); the middleware runs
``check_iteration``, and the first again, before the body is read.
"""
