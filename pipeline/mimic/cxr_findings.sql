-- MIMIC-CXR-JPG CheXpert labels of a study: 1 present, 0 absent, -1 uncertain, null not mentioned.
select *, null::varchar as dropped
from source
