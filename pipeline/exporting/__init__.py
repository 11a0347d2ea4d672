"""The cohort in the files of other projects: MEDS, CareBench, MedFuse; and Croissant of the synthetic hospital."""
