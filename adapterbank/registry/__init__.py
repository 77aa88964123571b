"""The store of trained adapters: immutable versions, movable aliases, the history of both.

It owns the bytes and the names and nothing else, needs neither torch nor DVC nor MLflow, and is
safe to use from many threads and processes at once.

==================  ===========================================================================
``store``           ``Registry``: register, resolve, read, promote, roll back, verify
``manifest``        what a version is: its files, their hashes, the digest that names it
``aliases``         the record of one task as pure functions: versions, aliases, history
``adapter_config``  the schema of ``adapter_config.json``
``backbone``        the schema of ``backbone.json``
``checks``          whether the content of a version is sound
``verify``          everything that is wrong or unfinished in a registry on disk
``layout``          which file is where, and how it is read
``documents``       JSON files that people read and Git merges
``card``            the generated model card
==================  ===========================================================================
"""
