"""Where the lines of metrics.jsonl go besides: `experiments.run --watch=NAME`.

Each is a file with a function of its name: (workdir) → what is called with every line,
a dict, as soon as it is written. When the function is called, the workdir need not be
there yet. One of your own is `--watch=file:function`.
"""
