"""DVC: setting it up, running pipelines, and the objects it keeps."""
