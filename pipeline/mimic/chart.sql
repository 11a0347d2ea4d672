-- icu/chartevents: rows of the needed itemids. `value` stays text as charted: 'None' is an ectopy type and a GCS score.
-- Where no variable reads the text it is left out: it repeats valuenum, and most of the rows are such.
select
    stay_id, charttime, itemid, case when has_text then value end as value, valuenum,
    case
        when stay_id is null then 'no stay_id'
        when charttime is null then 'no charttime'
        when stay_id not in (select stay_id from icustays) then 'stay not in icustays'
        when value is null and valuenum is null then 'no value'
    end as dropped
from source join needed using (itemid)
