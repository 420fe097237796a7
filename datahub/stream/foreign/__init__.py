"""WebDataset shards that were not packed by datahub, as a dataset: scanned once, the index kept under the home.

`naming` says which shards a text stands for, `facts` what tells each from other bytes at its place, `scan` reads one
shard's samples by webdataset's rules, `indexing` has every shard scanned once by one process, `tables` makes of all
that the folder a packed variant has (less its shards), and `opening` the dataset.
"""
