-- hosp/diagnoses_icd: the discharge codes of a hospital admission.
select
    subject_id, hadm_id, seq_num, icd_version, icd_code,
    case
        when hadm_id is null then 'no hadm_id'
        when icd_code is null then 'no code'
        when icd_version is null then 'no version'
        when row_number() over (partition by hadm_id, seq_num, icd_version, icd_code order by subject_id) > 1
            then 'the same row again'
    end as dropped
from source
