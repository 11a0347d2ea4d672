"""Raw files -> tables -> cohort, labels, series, images."""
