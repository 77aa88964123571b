"""The store of trained adapters: immutable versions, movable aliases, the history of both.

It owns the bytes and the names and nothing else, needs neither torch nor DVC nor MLflow, and is
safe to use from many threads and processes at once.

==================  ===========================================================================
``store``           ``Registry``: register, resolve, read, promote, roll back, verify
``versions``        what it hands out: ``Version``, ``Move``
``manifest``        what a version is: its files, their hashes, the digest that names it
``task_record``     the record of one task: versions, aliases, history, and its file
``aliases``         the moves of that record, as pure functions
``adapter_config``  the schema of ``adapter_config.json``
``backbone``        the schema of ``backbone.json``
``checks``          whether the content of a version is sound
``publish``         the writes, under the lock
``verify``          everything that is wrong or unfinished on the disk
``collect``         what nothing needs, and its deletion
``layout``          which file is where, and how it is read
``documents``       JSON files that people read and Git merges
``card``            the generated model card
==================  ===========================================================================
"""
