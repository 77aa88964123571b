"""The command line: parse, call the library, show the answer.

Commands import what they need when they run, so that ``--help`` needs no torch.

================  =================================================================================
``app``           the commands put together
``_options``      options that many commands share, and the bank they mean
``_render``       tables, JSON, errors: everything that formats
``_progress``     bars with the time left, for terminals and for logs
``_summary``      what tables say of a version, read from its files
``_work``         the stages of a task, with their progress
``_inputs``       from the arguments of ``predict`` to a list of images
``bank``          init, list, show, history, verify
``versions``      register, promote, rollback
``tasks``         task add, list, show, sample
``backbone``      backbone fetch, show
``pipeline``      train, evaluate
``stage``         the stages of ``dvc.yaml``
``mirrors``       status, sync, push, pull
``predict``       predict
``router``        route, router show, router rebuild
``demo``          demo
================  =================================================================================
"""
