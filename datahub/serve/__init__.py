"""The shared cache server: one verified copy of packed datasets, for many training jobs, over HTTP.

`library` knows what there is, `local` and `filling` bring verified blocks, `engine` cuts a body into pieces of them,
and the `routes_*` modules speak HTTP. It is built by `app` and run, in one process or several, by `running`.
"""
