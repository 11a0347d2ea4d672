"""The benchmark as a library: raw MIMIC files -> tables -> cohort -> tensors -> runs -> reports. Knows nothing of DVC."""
