-- icu/outputevents: rows of the needed itemids; value in mL.
select
    stay_id, charttime, itemid,
    -- + 0.0: no negative zero, whose place in the order would be a matter of chance
    value + 0.0 as value,
    case
        when stay_id is null then 'no stay_id'
        when charttime is null then 'no charttime'
        when known.stay_id is null then 'stay not in icustays'
        when value is null or not isfinite(value) then 'no value'
    end as dropped
from source
left join (select stay_id from icustays) as known using (stay_id)
where itemid in (select itemid from needed)
