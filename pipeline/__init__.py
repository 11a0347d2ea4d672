"""The benchmark as a library: raw MIMIC files -> tables -> cohort -> tensors -> runs -> reports. It knows no DVC."""
