-- hosp/patients, as it is.
select subject_id, gender, anchor_age, anchor_year, anchor_year_group, dod, null::varchar as dropped
from source
