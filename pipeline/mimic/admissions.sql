-- hosp/admissions: times of the hospital admission, and what is known of the patient on that occasion.
select
    subject_id, hadm_id, admittime, dischtime, deathtime, admission_type, admission_location, insurance, language, race,
    hospital_expire_flag, null::varchar as dropped
from source
