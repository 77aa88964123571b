"""MLflow, DVC and Git: the one place that talks to them, so predicting never has to.

========================  =========================================================================
``environment``           environment defaults to set before a vendor library is imported
``git``                   revision and state of the working tree, by the ``git`` program
``mlflow_store``          where runs and model versions are tracked, created once and race-free
``mlflow_runs``           ``RunLogger``: everything one training run leaves behind
``mlflow_mirror``         the registry's versions and aliases as MLflow shows them
``mlflow_repair``         model versions whose tags or source were changed in MLflow
``mlflow_dvc_artifacts``  the bytes of a version by MLflow's address for it: ``dvc://md5/…``
``figures``               pictures for the run pages
``dvc_repo``              setting DVC up, and running the pipeline
``dvc_objects``           which objects DVC keeps, and their bytes
``scaffold``              a bank of one's own: ``adapterbank init``
========================  =========================================================================
"""
