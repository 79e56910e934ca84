"""The four parts a run is put together from: data, task, devices, optimisation."""
