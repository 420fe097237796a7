"""The block cache: verified blocks of 4 MiB on a local disk, shared by all processes of a machine.

`policy` says which blocks can go, `ledger` keeps the books, `files` the blocks, and `blockcache` puts them together:
reserve, fetch once however many readers wait, verify, publish, evict. It knows keys, sizes and digests; where bytes
come from is the caller's (`Fetch`).
"""
