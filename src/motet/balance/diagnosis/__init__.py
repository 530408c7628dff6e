"""Who pulls against whom in which layer, watched while a model trains."""
