-- icu/icustays. `los` is left out: it is outtime - intime in days, computed where needed.
select subject_id, hadm_id, stay_id, first_careunit, last_careunit, intime, outtime, null::varchar as dropped
from source
